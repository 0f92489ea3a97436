import type { Database } from '../../database/database.ts'
import type { Delivery } from '../../delivery/delivery.ts'
import { reasonOf } from '../../foundation/error-reason.ts'
import type { BusLogger } from '../../foundation/logger.ts'
import { version } from '../../foundation/version.ts'
import type { Recorder } from '../recorder.ts'
import { databaseSections, healthSection } from './database-sections.ts'
import { toFamilies, type Reading } from './gauges.ts'
import type { ResolvedMetrics } from './metrics-option.ts'
import { createProcessMetrics } from './process-metrics.ts'
import { createSections } from './sections.ts'
import { writeFamilies } from './text-format.ts'

/** The metrics of a process, for Prometheus. */
export interface Metrics {
  /** What the engine tells. It records from the first call of `read` on, or from the start with the option `metrics`. */
  readonly recorder: Recorder
  read: () => Promise<string>
}

interface MetricsParts {
  readonly database: Database
  readonly logger: BusLogger
  readonly service: string
  /** The event types of the catalogue. */
  readonly types: readonly string[]
  /** The subscriptions that this code declares. */
  readonly subscriptions: () => readonly string[]
  readonly readHealth: Parameters<typeof healthSection>[0]
  readonly own: () => {
    readonly delivery: Delivery | undefined
    readonly failedTryPublishCount: number
  }
}

export function createMetrics(
  { database, logger, service, types, subscriptions, readHealth, own }: MetricsParts,
  option: ResolvedMetrics,
): Metrics {
  const ofProcess = createProcessMetrics({ types, subscriptions })
  const sections = option.database
    ? createSections(
        healthSection(readHealth),
        databaseSections(database, { service, version }, option.tenantCount),
        (section, error) =>
          logger.warn({ section, reason: reasonOf(error) }, 'a section of the metrics could not be read'),
      )
    : undefined
  if (option.isOn) ofProcess.start()

  function readOwn(): readonly Reading[] {
    const { delivery, failedTryPublishCount } = own()
    const build = { version, service, node: process.versions.node }
    const readings: Reading[] = [
      { gauge: 'buildInfo', labels: build, value: 1 },
      { gauge: 'relayLeader', value: Number(delivery?.isLeading === true) },
      { gauge: 'relayFailing', value: Number(delivery?.relayState === 'failing') },
      { gauge: 'overrunning', value: delivery?.overrunningHandlerCount ?? 0 },
      { gauge: 'tryPublishFailed', value: failedTryPublishCount },
      {
        gauge: 'loopLate',
        value: Math.round(Math.max(0, ...(delivery?.loops ?? []).map(({ lateMs }) => lateMs))) / 1000,
      },
    ]
    if (delivery !== undefined) readings.push({ gauge: 'listenUp', value: Number(delivery.isListening) })
    return readings
  }

  return {
    recorder: ofProcess.recorder,
    async read() {
      ofProcess.start()
      await sections?.refresh()
      const gauges = toFamilies([...readOwn(), ...(sections?.readings() ?? [])])
      return writeFamilies([...ofProcess.read(), ...gauges])
    },
  }
}
