import type { Database } from '../../database/database.ts'
import { findDeadLetterJobs, hasQueue } from '../../delivery/jobs/dead-letter-jobs.ts'
import type { StoredFilter } from '../../delivery/operator/dead-letter-filter.ts'
import type { RegisteredSubscription } from '../../delivery/registry/registry.ts'
import { readSlice, type Cursor } from './slice.ts'

/** What an act on dead letters would be about. */
export interface DeadLetterPreview {
  /** Dead letters that match. With `type` only those among `examinedCount`. */
  readonly count: number
  /** Whether there are more than were counted. */
  readonly isCountPartial: boolean
  readonly subscriptions: readonly {
    /** Undefined if the subscription does not exist any more. */
    readonly subscription: string | undefined
    readonly count: number
    /** Those that hold a key: the events behind them follow. */
    readonly keyCount: number
  }[]
  /** The oldest ones, up to 10,000, were looked at one by one for what follows. */
  readonly examinedCount: number
  /** What a redrive would skip, and why. */
  readonly unroutable: {
    /** The subscription does not exist any more. */
    readonly noSubscription: number
    /** Its pg-boss queue does not exist. */
    readonly noQueue: number
    /** The event is not in the log any more. */
    readonly notInLog: number
    /** It is not in pg-boss any more: somebody has redriven or deleted it there. */
    readonly moved: number
  }
  /** What a redrive would settle without calling the handler, because the event has expired or was erased. */
  readonly notHandled: { readonly expired: number; readonly erased: number }
}

const maxExaminedCount = 10_000
const sliceCount = 1000

/** Up to so many are counted. */
const maxCount = 1_000_000

interface Tally {
  count: number
  keyCount: number
}

/** Only reads, in several statements. */
export async function previewLetters(
  database: Database,
  filter: StoredFilter,
  subscriptions: ReadonlyMap<number, RegisteredSubscription>,
): Promise<DeadLetterPreview> {
  const unroutable = { noSubscription: 0, noQueue: 0, notInLog: 0, moved: 0 }
  const notHandled = { expired: 0, erased: 0 }
  const examined = new Map<number, Tally>()
  const queues = new Map<number, boolean>()
  let cursor: Cursor = {}
  let isLast = false
  let examinedCount = 0
  while (!isLast && examinedCount < maxExaminedCount) {
    const slice = await readSlice(database, filter, cursor, sliceCount)
    for (const [id, letters] of slice.bySubscription) {
      const tally = examined.get(id) ?? { count: 0, keyCount: 0 }
      examined.set(id, tally)
      tally.count += letters.length
      tally.keyCount += letters.filter(({ state }) => state !== 'dead').length
      const name = subscriptions.get(id)?.name
      if (name === undefined) {
        unroutable.noSubscription += letters.length
        continue
      }
      if (!queues.has(id)) queues.set(id, await hasQueue(database, database, name))
      if (queues.get(id) === false) {
        unroutable.noQueue += letters.length
        continue
      }
      const present = await findDeadLetterJobs(
        database,
        database,
        name,
        letters.map(({ jobId }) => jobId),
      )
      for (const { jobId, eventId, state } of letters) {
        const event = slice.events.get(eventId)
        if (event === undefined) unroutable.notInLog += 1
        else if (state === 'dead' && !present.has(jobId)) unroutable.moved += 1
        else if (event.isErased) notHandled.erased += 1
        else if (event.isExpired) notHandled.expired += 1
      }
    }
    cursor = slice.cursor
    isLast = slice.isLast
    examinedCount += sliceCount
  }
  const counted = isLast || filter.types !== undefined ? examined : await countLetters(database, filter)
  const all = [...counted].toSorted(([a], [b]) => a - b)
  const count = all.reduce((sum, [, tally]) => sum + tally.count, 0)
  return {
    count,
    isCountPartial: isLast ? false : filter.types !== undefined || count >= maxCount,
    subscriptions: all.map(([id, tally]) => ({ subscription: subscriptions.get(id)?.name, ...tally })),
    examinedCount: [...examined.values()].reduce((sum, tally) => sum + tally.count, 0),
    unroutable,
    notHandled,
  }
}

/** How many dead letters match, by the id of their subscription. `types` are ignored. */
export async function countLetters(
  database: Pick<Database, 'query'>,
  filter: StoredFilter,
): Promise<ReadonlyMap<number, Tally>> {
  const { rows } = await database.query<{
    subscription_id: number
    letter_count: string
    key_count: string
  }>('select * from bus.count_dead_letters($1::jsonb, $2)', [JSON.stringify(filter), maxCount])
  return new Map(
    rows.map((row) => [
      row.subscription_id,
      { count: Number(row.letter_count), keyCount: Number(row.key_count) },
    ]),
  )
}
