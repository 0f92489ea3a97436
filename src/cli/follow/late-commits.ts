import type { Executor } from '../../database/database.ts'
import { createValues } from '../../database/statement-values.ts'
import { lowestId } from '../../events/event-id.ts'
import { typeConditions } from '../../operations/event-statements.ts'

/** Which events of the log are followed. */
export interface FollowFilter {
  readonly types: readonly string[] | undefined
  readonly patterns: readonly string[] | undefined
  readonly tenantId: string | undefined
}

/** Finds events that were committed later than their ids, which are made when they are published, suggest. */
export interface LateCommits {
  /** The ids that have become visible and are not known. They are from now on: whoever gives up waiting must still take them. */
  readonly find: () => Promise<readonly string[]>
  /** Makes an id known. False if it was. */
  readonly note: (id: string) => boolean
  /** True once a transaction has been open for longer than is looked back. */
  readonly isBounded: () => boolean
}

/** A writer takes its lock before it makes ids; statements that insert many events take a while. */
const marginMs = 10_000

/** Where it is not known since when a transaction is open. */
const unknownMs = 10 * 60_000

const maxLookBackMs = 60 * 60_000
const pageSize = 10_000
const maxWriters = 10_000

interface Writers {
  /** The database's clock, in milliseconds. */
  readonly now: number
  /** The transactions that write to the log, and since when they are open, if that may be known. */
  readonly open: ReadonlyMap<string, number | undefined>
}

/**
 * Whoever inserts an event holds a lock on the log until its transaction ends. A transaction that holds it now and did not a moment ago
 * publishes nothing with an older id than that moment; so events appear late only above the time at which the oldest of these was first seen,
 * and from there everything is compared with what is known.
 *
 * @param beginning - an id: events with a lower one that are committed already are known
 */
export async function watchLateCommits(
  executor: Executor,
  filter: FollowFilter,
  beginning: string,
): Promise<LateCommits> {
  const first = await readWriters(executor)
  let lookedAt = first.now
  let isBounded = false
  let since = new Map(
    [...first.open].map(([writer, startedAt]) => [writer, startedAt ?? first.now - unknownMs]),
  )
  const known = new Set<string>()
  for await (const ids of pagesAbove(floor(first.now)))
    for (const id of ids) if (id < beginning) known.add(id)

  function floor(now: number): string {
    const lowest = Math.min(lookedAt, ...since.values()) - marginMs
    isBounded ||= lowest < now - maxLookBackMs
    return lowestId(Math.floor(Math.max(lowest, now - maxLookBackMs)))
  }

  async function* pagesAbove(low: string): AsyncGenerator<readonly string[]> {
    let after = low
    for (;;) {
      const ids = await idsAfter(executor, filter, after)
      yield ids
      const last = ids.at(-1)
      if (last === undefined || ids.length < pageSize) return
      after = last
    }
  }

  return {
    isBounded: () => isBounded,
    note(id) {
      if (known.has(id)) return false
      known.add(id)
      return true
    },
    async find() {
      // Before the events are read, so that those of a transaction that has ended by now are seen.
      const writers = await readWriters(executor)
      const low = floor(writers.now)
      const visible: string[] = []
      for await (const ids of pagesAbove(low)) visible.push(...ids)
      // From here on without waiting: two calls that overlap, because the first one took too long, find no event twice.
      const found = visible.filter((id) => !known.has(id))
      since = new Map([...writers.open.keys()].map((writer) => [writer, since.get(writer) ?? lookedAt]))
      lookedAt = writers.now
      for (const id of known) if (id < low) known.delete(id)
      for (const id of found) known.add(id)
      return found
    },
  }
}

async function idsAfter(executor: Executor, filter: FollowFilter, after: string): Promise<readonly string[]> {
  const { value, values } = createValues()
  const conditions = [
    `e.id > ${value(after)}::uuid`,
    ...(filter.tenantId === undefined ? [] : [`e.tenant_id = ${value(filter.tenantId)}::text`]),
    ...typeConditions('e.type', filter, { value }),
  ]
  const { rows } = await executor.query<{ id: string }>(
    `select e.id from bus.events e where ${conditions.join(' and ')} order by e.id limit ${pageSize}`,
    values,
  )
  return rows.map(({ id }) => id)
}

async function readWriters(executor: Executor): Promise<Writers> {
  const { rows } = await executor.query<{ now: number; writers: Record<string, number | null> | null }>(
    `select (extract(epoch from clock_timestamp()) * 1000)::float8 as now, (
       select jsonb_object_agg(w.writer, w.started) from (
         select l.virtualtransaction as writer, (extract(epoch from min(a.xact_start)) * 1000)::float8 as started
         from pg_locks l left join pg_stat_activity a on a.pid = l.pid
         where l.locktype = 'relation' and l.relation = 'bus.events'::regclass and l.mode = 'RowExclusiveLock' and l.granted
           and l.database = (select oid from pg_database where datname = current_database())
         group by l.virtualtransaction limit ${maxWriters}) w) as writers`,
  )
  const [row] = rows
  return {
    now: row?.now ?? Date.now(),
    open: new Map(
      Object.entries(row?.writers ?? {}).map(([writer, startedAt]) => [writer, startedAt ?? undefined]),
    ),
  }
}
