import type pg from 'pg'
import type { Database } from '../../../database/database.ts'
import { queryPrepared } from '../../../database/prepared.ts'

/** Stands for the active jobs, among the keys of the waiting ones. */
const activeKey = '!'

/** Maximum number of waiting jobs that are read to find the first one with a finish tag. */
const lookAhead = 200

/** The finish tags of a queue's waiting jobs: of the first job, and of the last job of each flow. */
export interface FinishTags {
  readonly front: number | undefined
  /** The finish tag of the last job that was fetched and is not settled: new jobs are placed after it, not after the front. */
  readonly served: number | undefined
  readonly last: ReadonlyMap<string, number>
}

/** The finish tags of a queue without jobs. */
export const emptyQueue: FinishTags = { front: undefined, served: undefined, last: new Map() }

/**
 * Reads the finish tags of some queues without locks: a concurrent insert or fetch makes a tag slightly better or
 * worse. Each branch reads its own partition of pg-boss's job table: the front is at the start of the index that
 * pg-boss fetches through, the last job of a flow at the end of its entries in the index on keys. The keys are passed
 * as JSON, because PostgreSQL would plan again for each array length.
 */
export async function readFinishTags(
  client: pg.ClientBase,
  { bossSchema }: Pick<Database, 'bossSchema'>,
  queues: readonly string[],
  keys: readonly (readonly string[])[],
): Promise<readonly FinishTags[]> {
  const text = queues.map((queue, index) => finishTagsSql(bossSchema, queue, index)).join('\nunion all\n')
  const { rows } = (await queryPrepared(
    client,
    text,
    keys.map((key) => JSON.stringify(key)),
  )) as unknown as {
    rows: { readonly queue: number; readonly key: string | null; readonly finishTag: number | null }[]
  }
  const found = queues.map(() => ({
    front: undefined as number | undefined,
    served: undefined as number | undefined,
    last: new Map<string, number>(),
  }))
  for (const { queue, key, finishTag } of rows) {
    const tags = found[queue]
    if (tags === undefined || finishTag === null) continue
    if (key === null) tags.front = finishTag
    else if (key === activeKey) tags.served = finishTag
    else tags.last.set(key, finishTag)
  }
  return found
}

function finishTagsSql(bossSchema: string, queue: string, index: number): string {
  const jobs = `${bossSchema}.job where name = '${queue}' and state < 'active'`
  return `select ${index} as queue, null as key, (
  select -priority from (
    select priority, singleton_key, state from ${jobs} and not blocked and priority < 0
    order by priority desc, created_on limit ${lookAhead}) waiting
  where state = 'created' and singleton_key is not null
  order by priority desc limit 1) as "finishTag"
union all
select ${index}, '${activeKey}', (
  select -min(priority) from ${bossSchema}.job
  where name = '${queue}' and state = 'active' and singleton_key is not null and priority < 0)
union all
select ${index}, k.key, (
  select -priority from ${jobs} and singleton_key = k.key and priority < 0
  order by created_on desc, priority limit 1)
from jsonb_array_elements_text($${index + 1}::jsonb) k (key)`
}
