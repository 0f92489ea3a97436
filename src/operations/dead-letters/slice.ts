import type { Executor } from '../../database/database.ts'
import { readEntries, type DeadLetterEntry } from '../../delivery/ledger/dead-letter-rows.ts'
import type { StoredFilter } from '../../delivery/operator/dead-letter-filter.ts'
import { readLogEvents, type LogEvent } from '../../delivery/operator/log-events.ts'

/** Where the next slice begins: behind the last dead letter of the one before. */
export interface Cursor {
  readonly afterTime?: string | undefined
  readonly afterEvent?: string | undefined
  readonly afterSubscription?: number | undefined
}

/** Some dead letters of a selection. */
export interface Slice {
  /** By the id of their subscription, each in the order in which they became dead letters. */
  readonly bySubscription: ReadonlyMap<number, readonly DeadLetterEntry[]>
  readonly events: ReadonlyMap<string, LogEvent>
  readonly cursor: Cursor
  /** Whether this was the last slice. */
  readonly isLast: boolean
}

/** The next dead letters of a selection. Its `types` leave some out, so a slice may be empty and not the last. */
export async function readSlice(
  executor: Executor,
  filter: StoredFilter,
  cursor: Cursor,
  maxCount: number,
): Promise<Slice> {
  const found = await readEntries(executor, { ...filter, ...cursor }, maxCount)
  const events = await readLogEvents(
    executor,
    found.map(({ eventId }) => eventId),
  )
  const { types } = filter
  const wanted =
    types === undefined
      ? found
      : found.filter(({ eventId }) => types.includes(events.get(eventId)?.type ?? ''))
  const last = found.at(-1)
  return {
    bySubscription: Map.groupBy(wanted, ({ subscriptionId }) => subscriptionId),
    events,
    cursor:
      last === undefined
        ? cursor
        : { afterTime: last.failedAt, afterEvent: last.eventId, afterSubscription: last.subscriptionId },
    isLast: found.length < maxCount,
  }
}
