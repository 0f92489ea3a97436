import type { PgBoss } from 'pg-boss'
import type { BusLogger } from '../events/logger.ts'
import type { Database } from '../outbox/database.ts'
import type { PartitionKeeper } from '../outbox/partitions.ts'
import type { Presence } from './presence.ts'
import { stateColumns, toState, type StateRow } from './subscription-state.ts'
import { queueName } from './subscription.ts'
import type { Worker } from './worker-parts.ts'
import { reasonOf } from './settler.ts'

/** How often one process asks for due retries and lost workers of all its subscriptions, in one query. */
const lookIntervalMs = 5000

/** The same where notifications do not arrive: then nobody says either that another process has inserted jobs. */
const pollingIntervalMs = 1000

/** How often the leader lets pg-boss count, expire and delete jobs in every queue, and makes partitions for coming months. */
const maintenanceIntervalMs = 5 * 60_000

/** How soon partitions that could not be made, because the log was in use, are tried again. */
const partitionRetryMs = 30_000

/** How often a process looks for keys whose job ended without a word: see recover-keys.ts. */
const recoverIntervalMs = 60_000

/** Does what no event triggers: wakes workers for due retries, finds dead workers, keeps the queues tidy. */
export interface Upkeep {
  /** Looks now, because something may be due sooner than the next regular look. */
  soon: () => void
  stop: () => Promise<void>
}

export interface UpkeepParts {
  readonly database: Database
  readonly boss: PgBoss
  readonly workers: readonly Worker[]
  readonly partitions: PartitionKeeper
  /** Whether they were all there at the start. */
  readonly hasPartitions: boolean
  readonly isLeader: () => boolean
  readonly isPolling: () => boolean
  readonly presence: Presence
  readonly logger: BusLogger
}

interface LookRow extends StateRow {
  readonly name: string
  /** Seconds until the next queued job is due, 0 or less when one is ready, null when none is queued. */
  readonly due_seconds: string | null
  readonly lapsed: boolean
}

/** pg-boss notifies nobody of retries, dead letters and redrives, and with its timers off nobody of dead workers. */
export function startUpkeep(parts: UpkeepParts): Upkeep {
  const { database, boss, workers, partitions, isLeader, isPolling, presence, logger } = parts
  const byQueue = new Map(workers.map((worker) => [queueName(worker.name), worker]))
  const text = lookSql([...byQueue.keys()], database.bossSchema)
  let stopped = false
  let timer: NodeJS.Timeout | undefined
  let running: Promise<void> | undefined
  let again = false
  let maintainedAt = performance.now()
  let partitionsDueAt = performance.now() + (parts.hasPartitions ? maintenanceIntervalMs : partitionRetryMs)
  let recoveredAt = Number.NEGATIVE_INFINITY

  const regularMs = (): number => (isPolling() ? pollingIntervalMs : lookIntervalMs)

  function schedule(delayMs: number): void {
    if (stopped) return
    clearTimeout(timer)
    timer = setTimeout(() => {
      running ??= pass().finally(() => {
        running = undefined
        if (again) {
          again = false
          schedule(0)
        }
      })
    }, delayMs)
  }

  async function pass(): Promise<void> {
    let nextMs = regularMs()
    try {
      if (workers.length > 0) nextMs = await look()
      await presence.upkeep(isLeader()).catch((error: unknown) => {
        logger.warn({ reason: reasonOf(error) }, 'this process could not say that it is there, trying again')
      })
      if (performance.now() - recoveredAt > recoverIntervalMs) await recover()
      if (isLeader() && performance.now() > partitionsDueAt) await keepPartitions()
      if (isLeader() && performance.now() - maintainedAt > maintenanceIntervalMs) await maintain()
    } catch (error) {
      logger.warn({ reason: reasonOf(error) }, 'upkeep failed, trying again')
    }
    schedule(nextMs)
  }

  async function recover(): Promise<void> {
    recoveredAt = performance.now()
    for (const worker of workers) if (worker.ordered) await worker.recoverKeys()
  }

  async function keepPartitions(): Promise<void> {
    const isDone = await partitions.keep()
    partitionsDueAt = performance.now() + (isDone ? maintenanceIntervalMs : partitionRetryMs)
  }

  async function maintain(): Promise<void> {
    maintainedAt = performance.now()
    await boss.supervise()
  }

  async function look(): Promise<number> {
    let nextMs = regularMs()
    let expired = false
    const readAt = performance.now()
    const { rows } = await database.query<LookRow & Record<string, unknown>>(text)
    for (const row of rows) {
      const { name, due_seconds, lapsed } = row
      byQueue.get(name)?.applyState(toState(row), readAt)
      // pg-boss fails the attempts of workers that were not heard of: they run again, or go to the dead letters.
      if (lapsed) {
        await boss.supervise(name)
        await database.reach?.('upkeep.expired')
        const worker = byQueue.get(name)
        if (worker?.ordered === true) await worker.recoverKeys()
        expired = true
      }
      const dueMs = due_seconds === null ? undefined : Number(due_seconds) * 1000
      if (lapsed || (dueMs !== undefined && dueMs <= 0)) byQueue.get(name)?.wake()
      if (dueMs !== undefined && dueMs > 0) nextMs = Math.min(nextMs, dueMs + 5)
    }
    // When those are due is not known yet; pg-boss looks after a queue once a second at most.
    return expired ? Math.min(nextMs, 250) : nextMs
  }

  // At once: a process that starts finds what one before it left behind.
  schedule(0)

  return {
    soon() {
      if (running === undefined) schedule(0)
      else again = true
    },
    async stop() {
      stopped = true
      clearTimeout(timer)
      await running
    },
  }
}

/**
 * One branch a queue, so that each reads its own partition of pg-boss's job table and nothing else; the next due job of
 * each state is the first entry of an index, however many wait.
 */
function lookSql(queues: readonly string[], bossSchema: string): string {
  const branches = queues
    .map((name) => {
      const jobs = `${bossSchema}.job where name = '${name}'`
      return `select '${name}' as name,
  extract(epoch from least(
    (select min(start_after) from ${jobs} and state = 'created' and not blocked),
    (select min(start_after) from ${jobs} and state = 'retry' and not blocked)) - clock_timestamp()) as due_seconds,
  exists (select from ${jobs} and state = 'active'
    and heartbeat_on + heartbeat_seconds * interval '1 second' < clock_timestamp()) as lapsed`
    })
    .join('\nunion all\n')
  return `select q.*, ${stateColumns} from (
${branches}
) q join bus.subscriptions s on 'bus.' || s.name = q.name`
}
