import { expect, test } from 'vitest'
import { limits } from '../../../src/index.ts'
import { bounds } from '../../../src/telemetry/prometheus/bounds.ts'
import { testBus, type PaymentBus } from '../../support/bus.ts'
import { until } from '../../support/database.ts'
import { isFullForm } from '../../support/form.ts'
import { startOwnServer } from '../../support/own-server.ts'
import { parsePrometheusText, valueOf } from '../../support/prometheus-text.ts'
import { roomFor } from '../../support/slowness.ts'

const label = 'messaging_destination_subscription_name'
const sections = ['health', 'subscriptions', 'depth', 'lag', 'keys', 'partitions', 'server']

/** As many as a process may have; in the short form more than have series of their own. */
const count = isFullForm ? limits.subscriptionCount : bounds.subscriptions + 100

test(
  `with ${count} subscriptions metrics have bounded series and a scrape has its answer in time`,
  { tags: ['slow'], timeout: 600_000 },
  async () => {
    const server = await startOwnServer()
    const make = (): PaymentBus => {
      const bus = testBus(server.url)
      for (let n = 0; n < count; n += 1)
        bus.subscribe({ name: `sub-${n}`, events: ['note'], handler: () => {} })
      return bus
    }
    const bus = make()
    await bus.start()
    await bus.stop()
    await server.rows(
      `insert into pgboss.job (name, data) select 'bus.sub-' || n, '{"eventIds": ["a"]}' from generate_series(0, ${count - 1}) n`,
    )

    const asked = make()
    const read = async () => {
      const startedAt = performance.now()
      const text = await asked.metrics()
      return { families: parsePrometheusText(text), ms: performance.now() - startedAt }
    }
    const first = await read()
    // A process that has nothing to tell yet waits for five seconds; Prometheus for ten.
    expect(first.ms).toBeLessThan(roomFor(6000))
    const times: number[] = []
    // One that took too long on a busy machine is read again within two minutes.
    await until(
      'all sections are read',
      async () => {
        const { families, ms } = await read()
        times.push(ms)
        return sections.every((section) => valueOf(families, 'bossbus_metrics_section_up', { section }) === 1)
      },
      300_000,
    )
    const { families, ms } = await read()
    expect(ms).toBeLessThan(roomFor(1500))
    expect(Math.max(...times)).toBeLessThan(roomFor(6000))

    expect(valueOf(families, 'bossbus_ready', { [label]: '_OTHER' })).toBe(count - bounds.subscriptions)
    for (const { kind, samples } of families) {
      expect(new Set(samples.map(({ labels }) => labels[label])).size).toBeLessThanOrEqual(
        bounds.subscriptions + 1,
      )
      expect(samples.length).toBeLessThanOrEqual(
        kind === 'histogram' ? bounds.histogramSeries * 17 : bounds.counterSeries,
      )
    }
    const seriesCount = families.reduce((sum, { samples }) => sum + samples.length, 0)
    expect(seriesCount).toBeLessThan(5000)
  },
)
