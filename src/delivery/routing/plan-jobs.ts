import type pg from 'pg'
import type { JobInsert } from 'pg-boss'
import type { Database } from '../../database/database.ts'
import type { ClaimedEvent } from '../../outbox/relay/claim.ts'
import { firstJob, splitIntoBatches, type JobData, maxFinishTag } from '../jobs/job.ts'
import { emptyQueue, readFinishTags, type FinishTags } from '../jobs/queue-state/finish-tags.ts'
import type { RegisteredSubscription } from '../registry/registry.ts'
import { queueName } from '../jobs/queues.ts'

/** A tenant with at least this share of a claim gets batches of its own; the other tenants share theirs. */
const minOwnShare = 0.25

/**
 * The flows of a queue: one that tenants share, and one per large tenant, whose key starts with this prefix. Events
 * that were scheduled have flows of their own, so that a million events due at midnight delay nobody.
 */
const flowKeys = { shared: '*', own: '=' } as const
const scheduledFlowKeys = { shared: '+', own: '@' } as const

/** The events of a claim for one subscription that the same declarations cover. */
export interface RoutedEvents {
  readonly subscription: RegisteredSubscription
  readonly events: readonly ClaimedEvent[]
  /** The declarations that cover them, if the types alone do not decide. */
  readonly declarations?: readonly number[] | undefined
}

/** The events of one flow: those of one tenant, or of all tenants with only a few. */
interface Group {
  readonly key: string
  readonly tenantCount: number
  readonly events: ClaimedEvent[]
}

/**
 * Creates the jobs of a claim so that no tenant waits behind another one's backlog: self-clocked fair queueing
 * (docs/adr/0009). Each job has a finish tag: the tag at the front of its queue, or of the last waiting job of its flow
 * if that is later, plus the number of its events. pg-boss fetches the lowest tag first, because the job's priority is
 * its negative tag. So waiting tenants take turns by number of events. The tags are read from all queues in one
 * statement, so any number of relays see the same state, and no state is lost with a relay.
 *
 * Which events share a job: those of a flow, which is decided here; how many of them, `splitIntoBatches` in ../jobs/job.ts; only those that
 * the same predicates match, match-events.ts. Keys: `bus.begin_ordered_keys`.
 */
export async function planJobs(
  client: pg.ClientBase,
  database: Pick<Database, 'bossSchema'>,
  routed: readonly RoutedEvents[],
): Promise<readonly JobInsert<JobData>[][]> {
  const groupings = routed.map(({ events }) => groupByTenant(events))
  const tags = await readFinishTags(
    client,
    database,
    routed.map(({ subscription }) => queueName(subscription.name)),
    groupings.map((groups) => groups.map(({ key }) => key)),
  )
  return routed.map(({ subscription, events, declarations }, index) => {
    const tagsOfQueue = tags[index] ?? emptyQueue
    // If nothing waits and the events fit one batch, there is no need for flows: a few events of many tenants then cost
    // one job.
    const groups =
      tagsOfQueue.front === undefined && events.length <= subscription.batchSize
        ? [{ key: keysOf(events).shared, tenantCount: 1, events: [...events] }]
        : (groupings[index] ?? [])
    return groups.flatMap((group) => planGroup(group, tagsOfQueue, subscription, declarations))
  })
}

/** Within a claim either all events were scheduled, or none. */
const keysOf = (events: readonly ClaimedEvent[]): typeof flowKeys | typeof scheduledFlowKeys =>
  events[0]?.wasScheduled === true ? scheduledFlowKeys : flowKeys

function groupByTenant(events: readonly ClaimedEvent[]): readonly Group[] {
  const byTenant = new Map<string, ClaimedEvent[]>()
  for (const event of events) {
    const known = byTenant.get(event.tenantId)
    if (known === undefined) byTenant.set(event.tenantId, [event])
    else known.push(event)
  }
  const keys = keysOf(events)
  const groups: Group[] = []
  const few = new Set<string>()
  for (const [tenantId, own] of byTenant) {
    if (own.length >= events.length * minOwnShare)
      groups.push({ key: `${keys.own}${tenantId}`, tenantCount: 1, events: own })
    else few.add(tenantId)
  }
  if (few.size === 0) return groups
  const shared = events.filter(({ tenantId }) => few.has(tenantId))
  return [...groups, { key: keys.shared, tenantCount: few.size, events: shared }]
}

function planGroup(
  { key, tenantCount, events }: Group,
  { front, served, last }: FinishTags,
  subscription: RegisteredSubscription,
  declarations: readonly number[] | undefined,
): JobInsert<JobData>[] {
  const now = Math.min(front ?? served ?? 0, served ?? front ?? 0)
  let finishTag = Math.max(now, last.get(key) ?? 0)
  return splitIntoBatches(events, subscription.batchSize).map((batch) => {
    finishTag = Math.min(maxFinishTag, finishTag + Math.ceil(batch.length / tenantCount))
    const job = firstJob(batch, subscription, declarations)
    return { ...job, priority: -finishTag, singletonKey: key }
  })
}
