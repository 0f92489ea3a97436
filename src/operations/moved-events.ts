import type { Database, Executor } from '../database/database.ts'
import { filterByPredicate, typeMatcher } from '../delivery/registry/declarations.ts'
import type { RegisteredSubscription } from '../delivery/registry/registry.ts'
import { sampleEventIds } from '../delivery/jobs/leftover-jobs.ts'
import { deadLetterQueueName, queueName } from '../delivery/jobs/queues.ts'
import { readReceipts } from '../delivery/ledger/receipts.ts'
import { ConfigurationError } from '../foundation/errors.ts'

/** What is looked at of what waits for a subscription: so many jobs, events of them, and events elsewhere. */
const maxJobs = 1000
const maxEvents = 5000

/** So many types are named. */
const maxNames = 3

/**
 * The types of those events, among some, that no code of a subscription covers, neither that of a live process nor the one that was started
 * last: a worker would make dead letters of them. Events that are not in the log any more, and those without a payload, do not count.
 */
export async function findUncoveredTypes(
  executor: Executor,
  target: Pick<RegisteredSubscription, 'declarations'>,
  eventIds: readonly string[],
): Promise<readonly string[]> {
  const { rows } = await executor.query<{ id: string; type: string }>(
    'select id, type from bus.events where id = any($1::uuid[]) and erased_at is null',
    [eventIds],
  )
  const left = new Map(rows.map(({ id, type }) => [id, type]))
  for (const declaration of target.declarations) {
    const matches = typeMatcher(declaration)
    const ids = [...left].flatMap(([id, type]) => (matches(type) ? [id] : []))
    const { where } = declaration
    const covered =
      where === undefined || ids.length === 0 ? ids : await filterByPredicate(executor, ids, where)
    for (const id of covered) left.delete(id)
  }
  return [...new Set(left.values())].toSorted()
}

/**
 * Refuses to move what waits for a subscription to one that does not cover it, as far as can be seen from the first jobs and events. Parts of the
 * removal look at all of them.
 *
 * @throws a {@link ConfigurationError} `BUS_SUBSCRIPTION_NOT_COVERING`
 */
export async function refuseUncovered(
  database: Database,
  { id, name }: { readonly id: number; readonly name: string },
  target: RegisteredSubscription,
): Promise<void> {
  const queues = [queueName(name), deadLetterQueueName(name)]
  const inJobs = await sampleEventIds(database, queues, { jobs: maxJobs, events: maxEvents })
  const { rows } = await database.query<{ id: string }>(
    `(select o.event_id as id from bus.ordered_keys k join bus.ordered_events o on o.key_id = k.id and o.seq > k.done_seq
       where k.subscription_id = $1 limit ${maxEvents})
     union all
     (select o.event_id from bus.outbox o where o.subscription_id = $1 limit ${maxEvents})`,
    [id],
  )
  const ids = [...new Set([...inJobs, ...rows.map((row) => row.id)])]
  const received = await readReceipts(database, target.id, ids)
  const types = await findUncoveredTypes(
    database,
    target,
    ids.filter((each) => !received.has(each)),
  )
  if (types.length === 0) return
  throw new ConfigurationError(
    'BUS_SUBSCRIPTION_NOT_COVERING',
    `${notCovering(target.name, types)}: they would become dead letters. Choose another subscription, or deploy code of it that covers them`,
  )
}

/** Says which types a subscription does not cover: the first three. */
export function notCovering(target: string, types: readonly string[]): string {
  return `The code of the subscription \`${target}\` does not cover, by \`events\` or \`where\`, all of what waits: ${types
    .slice(0, maxNames)
    .map((type) => `\`${type}\``)
    .join(', ')}${types.length > maxNames ? ` and ${types.length - maxNames} more` : ''}`
}
