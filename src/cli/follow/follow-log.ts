import type { Bus } from '../../bus-interface.ts'
import type { Database } from '../../database/database.ts'
import { lowestId } from '../../events/event-id.ts'
import type { HistoryEvent } from '../../operations/history-event.ts'
import { watchLateCommits, type FollowFilter } from './late-commits.ts'
import type { WakeUps } from './wake-ups.ts'

export interface FollowOptions {
  readonly bus: Bus
  readonly database: Database
  readonly wakeUps: WakeUps
  readonly filter: FollowFilter
  /** Also those that were published since then. */
  readonly from: Date | undefined
  readonly signal: AbortSignal
  readonly inTime: <T>(work: Promise<T>) => Promise<T>
  /** Told to a person: the database does not answer, or does again. */
  readonly note: (text: string) => void
}

const pageSize = 500

/** How often the log is looked at without a notification. */
const pollMs = 500

/** How often late commits are looked for, at most, and how much of the time that takes, at most. */
const lateMs = 250
const lateShare = 0.1

const retryMs = 1000

/**
 * The events of the log as they are committed: those of one look in the order of their ids, each once. Ends when the signal is aborted. A
 * database that does not answer any more is tried again; one that does not at the beginning is an error.
 */
export async function* followLog(options: FollowOptions): AsyncGenerator<HistoryEvent> {
  const { bus, database, wakeUps, filter, from, signal, inTime, note } = options
  const { rows } = await inTime(
    database.query<{ now: number }>('select (extract(epoch from clock_timestamp()) * 1000)::float8 as now'),
  )
  let last = lowestId(from?.getTime() ?? Math.floor(rows[0]?.now ?? Date.now()))
  const late = await inTime(watchLateCommits(database, filter, last))
  /** Found, and not read yet. */
  const pending: string[] = []
  let lateAt = performance.now()
  let lateTookMs = 0
  let isLost = false
  let isTold = false

  async function readNew(): Promise<readonly HistoryEvent[]> {
    const events = await inTime(
      bus.events.find({
        ...{ type: filter.types, pattern: filter.patterns, tenantId: filter.tenantId },
        ...{ order: 'oldest', after: last, limit: pageSize },
      }),
    )
    last = events.at(-1)?.id ?? last
    return events
  }

  async function findLate(): Promise<void> {
    if (performance.now() - lateAt < Math.max(lateMs, lateTookMs / lateShare)) return
    const beganAt = performance.now()
    // Also when nobody waits for it any more: the events that it has found are not found again.
    await inTime(late.find().then((ids) => void pending.push(...ids)))
    lateAt = performance.now()
    lateTookMs = lateAt - beganAt
    if (late.isBounded() && !isTold) {
      isTold = true
      note('A transaction has been open for over an hour: events that it commits may be missing here.')
    }
  }

  while (!signal.aborted) {
    let isFull = false
    try {
      const fresh = await readNew()
      isFull = fresh.length === pageSize
      yield* fresh.filter(({ id }) => late.note(id))
      await findLate()
      for (let id = pending[0]; id !== undefined; id = pending[0]) {
        const event = await inTime(bus.events.get(id))
        pending.shift()
        if (event !== undefined) yield event
      }
      if (isLost) note('The database answers again.')
      isLost = false
    } catch (error) {
      if (signal.aborted) return
      if (!isLost) note(`The database does not answer (${(error as Error).message}), trying again.`)
      isLost = true
    }
    if (!isFull) await wakeUps.wait(isLost ? retryMs : pollMs, signal)
  }
}
