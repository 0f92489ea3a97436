import type pg from 'pg'
import type { JobInsert } from 'pg-boss'
import { queryPrepared } from '../../database/prepared.ts'
import type { ClaimedEvent } from '../../outbox/relay/relay.ts'
import { firstAttemptJob, splitIntoBatches, type JobData, maxFinishTag } from '../jobs/job.ts'
import type { RegisteredSubscription } from '../registry/registry.ts'
import { queueName } from '../jobs/queues.ts'

/** A tenant with at least this share of a claim gets batches of its own; the others share theirs. */
const minOwnShare = 0.25

/**
 * The keys of the batches that tenants share, and how those of one tenant begin. Events that waited for their time stand in a
 * snapshot of their own beside those that come meanwhile, so that a million that are due at midnight delay nobody.
 */
const flowKeys = { shared: '*', own: '=' } as const
const scheduledFlowKeys = { shared: '+', own: '@' } as const

/** Stands for the jobs that are being worked on, beside the keys of those that wait. */
const activeKey = '!'

/** Waiting jobs that are looked at to find the first one that has a finishTag in the snapshot. */
const lookAhead = 200

/** What of a claim goes to one subscription: events that the same declarations of it cover. */
export interface RoutedEvents {
  readonly subscription: RegisteredSubscription
  readonly events: readonly ClaimedEvent[]
  /** The declarations that cover them, where their types do not tell. */
  readonly declarations?: readonly number[] | undefined
}

/** Events that stand in snapshot together: those of one tenant, or of all that have only a few. */
interface Group {
  readonly key: string
  readonly tenantCount: number
  readonly events: ClaimedEvent[]
}

/** What waits in a queue already: the finishTag of its first job, and of the last one of each group that has any. */
interface QueueSnapshot {
  readonly front: number | undefined
  /** The finishTag of the last job that was taken and is not done: who comes now comes behind that, and not behind the front. */
  readonly served: number | undefined
  readonly last: ReadonlyMap<string, number>
}

/**
 * Makes the jobs of a claim so that no tenant waits behind another one's backlog (docs/adr/0009). Each job has a finishTag in
 * its queue's snapshot, and pg-boss takes the lowest first, through its priority: the finishTag of the front, or of the tenant's
 * last waiting job where that is later, plus the number of events. So tenants that wait take turns by their events.
 * What is known of the snapshot is read from the queue, in one statement for all of them: any number of relays see the same, and
 * nothing is lost with one.
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
    // Nothing waits, and it is one batch: no snapshot, so that few events of many tenants cost one job.
    const groups =
      snapshot.front === undefined && events.length <= subscription.batchSize
        ? [{ key: keysOf(events).shared, tenantCount: 1, events: [...events] }]
        : (groupings[index] ?? [])
    return groups.flatMap((group) => planGroup(group, snapshot, subscription, declarations))
  })
}

const emptyQueue: QueueSnapshot = { front: undefined, served: undefined, last: new Map() }

/** Of one claim, all have waited for their time, or none has. */
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
    const job = firstAttemptJob(eventIds, subscription, declarations)
    return { ...job, priority: -finishTag, singletonKey: key }
  })
}

/**
 * Reads the snapshots of some queues, without locks: a job that is inserted or taken meanwhile makes a finishTag a little better or
 * worse. Each branch reads its own partition of pg-boss's job table: the front is at the beginning of the index that
 * pg-boss fetches through, the last job of a group at the end of that group's entries in the index of its keys. The keys come
 * as JSON, because of an array PostgreSQL would count the elements and plan anew each time.
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
