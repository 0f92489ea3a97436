import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import { limits } from '../../src/index.ts'
import { startOwnPostgres } from '../../src/testing/postgres.ts'
import { recordingLogger, testBus, type PaymentBus } from '../support/bus.ts'
import { until } from '../support/database.ts'
import { recordFigure } from '../support/figures.ts'
import { isFullForm } from '../support/form.ts'
import { roomFor } from '../support/slowness.ts'

const subscriptionCount = limits.subscriptionCount
const idleMs = 60_000

test.skipIf(!isFullForm)(
  'a process with as many subscriptions as it may have starts soon, idles quietly, and answers every read within a second (long form only)',
  async () => {
    const server = await startOwnPostgres([
      'max_connections=100',
      'shared_preload_libraries=pg_stat_statements',
    ])
    const client = new pg.Client({ connectionString: server.url })
    await client.connect()
    onTestFinished(async () => {
      await client.end()
      await server.stop()
    })
    await client.query('create extension pg_stat_statements')
    const logger = recordingLogger()
    let deliveredCount = 0
    const make = (): PaymentBus => {
      const bus = testBus(server.url, { logger })
      for (let n = 0; n < subscriptionCount; n += 1)
        bus.subscribe({ name: `sub-${n}`, events: ['note'], handler: () => void (deliveredCount += 1) })
      return bus
    }
    await testBus(server.url).migrate()
    const first = make()
    const firstStartMs = await timed(async () => first.start())
    await first.stop()
    const bus = make()
    const startMs = await timed(async () => bus.start())
    const published = await bus.tryPublish({ type: 'note', tenantId: 'acme', payload: 1 })
    const fanOutMs = await timed(async () => until('all have it', () => deliveredCount === subscriptionCount))

    const acme = bus.tenant('acme')
    const id = published?.id ?? ''
    const reads: Readonly<Record<string, () => Promise<unknown>>> = {
      'subscriptions.list': async () => bus.subscriptions.list(),
      'deadLetters.list': async () => bus.deadLetters.list(),
      'blockedKeys.list': async () => bus.blockedKeys.list(),
      deliveries: async () => bus.deliveries(id),
      'deliveries of an event that nobody has': async () =>
        bus.deliveries('01900000-0000-7000-8000-000000000000'),
      'tenant.deliveries': async () => acme.deliveries(id),
      'tenant.deadLetters.list': async () => acme.deadLetters.list(),
      'tenant.stats': async () => acme.stats(),
      health: async () => bus.health(),
    }
    const slowest = { what: '', ms: 0 }
    const slow: string[] = []
    for (const [what, read] of Object.entries(reads)) {
      // A connection that has not met the queues yet learns them first.
      await read()
      const ms = Math.min(await timed(read), await timed(read), await timed(read))
      if (ms >= 1000) slow.push(what)
      if (ms > slowest.ms) Object.assign(slowest, { what, ms })
    }

    const calls = async (): Promise<number> =>
      Number(
        (
          await client.query<{ n: string }>(
            `select sum(calls) as n from pg_stat_statements where toplevel and query !~ 'pg_stat_statements'`,
          )
        ).rows[0]?.n,
      )
    const perSecondIn = async (ms: number): Promise<number> => {
      const atFirst = await calls()
      await new Promise((resolve) => setTimeout(resolve, ms))
      return ((await calls()) - atFirst) / (ms / 1000)
    }
    // The queues that the event went through are counted by pg-boss once more.
    const countedMs = await timed(async () =>
      until('nothing is done any more', async () => (await perSecondIn(5000)) < 2, 300_000),
    )
    const perSecond = await perSecondIn(idleMs)
    recordFigure(
      `${subscriptionCount} subscriptions in one process`,
      `first start ${seconds(firstStartMs)}, later ${seconds(startMs)}; an event to all of them ${seconds(fanOutMs)}; slowest read (${slowest.what}) ${Math.round(slowest.ms)} ms; counted and tidied ${seconds(countedMs)} later; idle ${perSecond.toFixed(1)} statements/s`,
    )
    expect(slow).toEqual([])
    expect(firstStartMs).toBeLessThan(roomFor(60_000))
    expect(startMs).toBeLessThan(roomFor(5000))
    expect(perSecond).toBeLessThan(2)
    expect(logger.lines.filter(({ level }) => level === 'warn' || level === 'error')).toEqual([])
  },
  600_000,
)

async function timed(work: () => Promise<unknown>): Promise<number> {
  const startedAt = performance.now()
  await work()
  return performance.now() - startedAt
}

function seconds(ms: number): string {
  return `${(ms / 1000).toFixed(1)} s`
}
