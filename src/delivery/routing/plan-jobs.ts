import type pg from 'pg'
import type { JobInsert } from 'pg-boss'
import { queryPrepared } from '../../database/prepared.ts'
import type { ClaimedEvent } from '../../outbox/relay/claim.ts'
import { newJob, splitIntoBatches, type JobData, maxFinishTag } from '../jobs/job.ts'
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

/** Stands for the active jobs, among the keys of the waiting ones. */
const activeKey = '!'

/** Maximum number of waiting jobs that are read to find the first one with a finish tag. */
const lookAhead = 200

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

/** The waiting jobs of a queue: the finish tag of the first job, and of the last job of each flow. */
interface QueueSnapshot {
  readonly front: number | undefined
  /** The finish tag of the last job that was fetched and is not settled: new jobs are placed after it, not after the front. */
  readonly served: number | undefined
  readonly last: ReadonlyMap<string, number>
}

/**
 * Creates the jobs of a claim so that no tenant waits behind another one's backlog: self-clocked fair queueing
 * (docs/adr/0009). Each job has a finish tag: the tag at the front of its queue, or of the last waiting job of its flow
 * if that is later, plus the number of its events. pg-boss fetches the lowest tag first, because the job's priority is
 * its negative tag. So waiting tenants take turns by number of events. The tags are read from all queues in one
 * statement, so any number of relays see the same state, and no state is lost with a relay.
 */
export async function planJobs(
  client: pg.ClientBase,
  bossSchema: string,
  routed: readonly RoutedEvents[],
): Promise<readonly JobInsert<JobData>[][]> {
  const groupings = routed.map(({ events }) => groupByTenant(events))
  const snapshots = await readSnapshots(
    client,
    bossSchema,
    routed.map(({ subscription }) => queueName(subscription.name)),
    groupings.map((groups) => groups.map(({ key }) => key)),
  )
  return routed.map(({ subscription, events, declarations }, index) => {
    const snapshot = snapshots[index] ?? emptyQueue
    // If nothing waits and the events fit one batch, there is no need for flows: a few events of many tenants then cost
    // one job.
    const groups =
      snapshot.front === undefined && events.length <= subscription.batchSize
        ? [{ key: keysOf(events).shared, tenantCount: 1, events: [...events] }]
        : (groupings[index] ?? [])
    return groups.flatMap((group) => planGroup(group, snapshot, subscription, declarations))
  })
}

const emptyQueue: QueueSnapshot = { front: undefined, served: undefined, last: new Map() }

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
  { front, served, last }: QueueSnapshot,
  subscription: RegisteredSubscription,
  declarations: readonly number[] | undefined,
): JobInsert<JobData>[] {
  const now = Math.min(front ?? served ?? 0, served ?? front ?? 0)
  let finishTag = Math.max(now, last.get(key) ?? 0)
  return splitIntoBatches(events, subscription.batchSize).map((eventIds) => {
    finishTag = Math.min(maxFinishTag, finishTag + Math.ceil(eventIds.length / tenantCount))
    const job = newJob(eventIds, subscription, declarations)
    return { ...job, priority: -finishTag, singletonKey: key }
  })
}

/**
 * Reads the finish tags of some queues without locks: a concurrent insert or fetch makes a tag slightly better or
 * worse. Each branch reads its own partition of pg-boss's job table: the front is at the start of the index that
 * pg-boss fetches through, the last job of a flow at the end of its entries in the index on keys. The keys are passed
 * as JSON, because PostgreSQL would plan again for each array length.
 */
async function readSnapshots(
  client: pg.ClientBase,
  bossSchema: string,
  queues: readonly string[],
  keys: readonly (readonly string[])[],
): Promise<readonly QueueSnapshot[]> {
  const text = queues.map((queue, index) => snapshotSql(bossSchema, queue, index)).join('\nunion all\n')
  const { rows } = (await queryPrepared(
    client,
    text,
    keys.map((key) => JSON.stringify(key)),
  )) as unknown as {
    rows: { readonly queue: number; readonly key: string | null; readonly finishTag: number | null }[]
  }
  const snapshots = queues.map(() => ({
    front: undefined as number | undefined,
    served: undefined as number | undefined,
    last: new Map<string, number>(),
  }))
  for (const { queue, key, finishTag } of rows) {
    const snapshot = snapshots[queue]
    if (snapshot === undefined || finishTag === null) continue
    if (key === null) snapshot.front = finishTag
    else if (key === activeKey) snapshot.served = finishTag
    else snapshot.last.set(key, finishTag)
  }
  return snapshots
}

function snapshotSql(bossSchema: string, queue: string, index: number): string {
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
