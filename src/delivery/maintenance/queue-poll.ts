import type { Database } from '../../database/database.ts'
import { pollQueueSql, type PollFloor } from '../jobs/queue-state/poll-queue.ts'
import {
  stateColumns,
  toState,
  type StateRow,
  type SubscriptionState,
} from '../flow-control/subscription-state.ts'

/** The result of polling a queue. */
export interface QueuePoll {
  readonly name: string
  /** Whether a job may run now. */
  readonly ready: boolean
  /** Milliseconds until the next waiting job may run; undefined if there is none. */
  readonly dueMs: number | undefined
  /** Whether a worker has been silent for longer than its jobs allow. */
  readonly lapsed: boolean
  /** Whether a job was inserted, started or touched at a future time: the server's clock was set back since. */
  readonly isAhead: boolean
  /** The floor of the next poll. */
  readonly floor: PollFloor
  readonly state: SubscriptionState
}

/** The results of one statement, and the server's time when it answered. */
export interface PollResult {
  readonly queues: readonly QueuePoll[]
  readonly clockMs: number | undefined
}

interface PollRow extends StateRow, Record<string, unknown> {
  readonly clock_ms: number
  readonly found: {
    readonly name: string
    readonly ready: boolean
    readonly due_seconds: number | null
    readonly lapsed: boolean
    readonly ahead: boolean
    readonly waiting_floor: string
    readonly active_floor: string
  }
}

/**
 * Polls queues in one statement that holds the locks of only a few of them at a time, and reads the states of their
 * subscriptions.
 *
 * The next job of each state is the first entry of pg-boss's index (name, state, blocked, start_after), however many
 * jobs wait. While an old snapshot is held, the index keeps the entries of deleted jobs, and each poll would read more
 * of them; so a poll starts at the floor that the last one returned.
 */
export async function pollQueues(
  executor: Pick<Database, 'query' | 'bossSchema'>,
  queues: readonly { readonly name: string; readonly floor: PollFloor | undefined }[],
): Promise<PollResult> {
  const { rows } = await executor.query<PollRow>(
    `select (extract(epoch from clock_timestamp()) * 1000)::float8 as clock_ms, r.found, ${stateColumns}
     from bus.read_each($1::text[]) as r (found) join bus.subscriptions s on s.name = substr(r.found->>'name', 5)`,
    [queues.map(({ name, floor }) => pollQueueSql(executor, name, floor))],
  )
  return {
    clockMs: rows[0]?.clock_ms,
    queues: rows.map((row) => {
      const { name, ready, due_seconds, lapsed, ahead, waiting_floor, active_floor } = row.found
      const dueMs = due_seconds === null ? undefined : due_seconds * 1000
      const floor = { waiting: waiting_floor, active: active_floor }
      return { name, ready, dueMs, lapsed, isAhead: ahead, floor, state: toState(row) }
    }),
  }
}
