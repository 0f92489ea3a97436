import type { Executor } from '../database/database.ts'
import { limits } from '../foundation/limits.ts'
import { textOption } from '../foundation/options.ts'
import { uuidShape } from '../foundation/text.ts'
import type { Window } from './event-statements.ts'
import { partitionsIn } from './log-partitions.ts'
import type { OperationKind, OperationState } from './operation.ts'
import { maxKeyCount, readKeys, type KeyKind } from './search-sets.ts'

/** What a text is. `kind` is stable. */
export type LookupMatch =
  | { readonly kind: 'event'; readonly id: string; readonly tenantId: string; readonly type: string }
  /**
   * A job of pg-boss, of any queue: by its own id, or by that of the job that it comes from, as a dead letter does. `eventIds` are up to ten of
   * its events, if it is a job of the bus.
   */
  | {
      readonly kind: 'job'
      readonly jobId: string
      readonly queue: string
      readonly state: string
      readonly subscription: string | undefined
      readonly isDeadLetter: boolean
      readonly eventIds: readonly string[]
      readonly eventCount: number
    }
  | {
      readonly kind: 'operation'
      readonly id: string
      readonly operation: OperationKind
      readonly state: OperationState
    }
  | {
      readonly kind: 'instance'
      readonly id: string
      readonly service: string
      readonly host: string
      readonly pid: number
    }
  | {
      readonly kind: 'audit'
      readonly id: string
      readonly action: string
      readonly by: string
      readonly at: Date
    }
  /** `id` is the event that has used it. */
  | {
      readonly kind: 'business-id' | 'idempotency-key'
      readonly tenantId: string
      readonly id: string
    }
  /** `id` is one of its events: `events.trace` has all. */
  | { readonly kind: 'correlation'; readonly tenantId: string; readonly id: string }
  /** `id` is one of its events: `events.find({ tenantId, subject })` has all. */
  | { readonly kind: 'subject'; readonly tenantId: string; readonly id: string }
  /**
   * A key of an ordered subscription that has events to deliver; `id` is the first of them. No index has the keys of the others:
   * `events.find({ tenantId, orderingKey })` reads the tenant's log.
   */
  | {
      readonly kind: 'ordering-key'
      readonly tenantId: string
      readonly id: string
      readonly subscription: string
      readonly state: 'active' | 'blocked' | 'parked' | 'overrunning'
    }
  /** `id` is its newest event. */
  | { readonly kind: 'tenant'; readonly tenantId: string; readonly id: string }
  | { readonly kind: 'subscription'; readonly name: string; readonly service: string }
  /** `id` is its newest event. */
  | { readonly kind: 'type'; readonly type: string; readonly id: string }

export interface Lookup {
  readonly text: string
  /** Up to ten of each kind. */
  readonly matches: readonly LookupMatch[]
  /**
   * Correlations, subjects and keys begin with a tenant in their indexes, so without one each tenant is tried: those of the newest months,
   * and 5,000 at most. True if there are more months or tenants: `bus.tenant(id).lookup(text)` searches all of one.
   */
  readonly isPartial: boolean
}

/** Matches of a kind. */
const maxMatches = 10

/** Months in which correlations and subjects of all tenants are searched. */
const maxPartitions = 2

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
export async function lookUp(executor: Executor, given: unknown): Promise<Lookup> {
  const text = textOption('text', given, { max: limits.lookupLength }).trim()
  const matches: LookupMatch[] = uuidShape.test(text) ? await lookUpId(executor, text.toLowerCase()) : []
  // Nothing else has such an id.
  if (matches.length > 0) return { text, matches, isPartial: false }
  const [registered, keys, inLog] = await Promise.all([
    lookUpSubscription(executor, text),
    lookUpKeys(executor, text, undefined),
    lookUpInLog(executor, text, undefined),
  ])
  return {
    text,
    matches: [...matches, ...registered, ...keys.matches, ...inLog.matches],
    isPartial: keys.isPartial || inLog.isPartial,
  }
}

/** In the scope of a tenant. @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
export async function lookUpForTenant(executor: Executor, tenantId: string, given: unknown): Promise<Lookup> {
  const text = textOption('text', given, { max: limits.lookupLength }).trim()
  const matches = uuidShape.test(text) ? await lookUpEvent(executor, text.toLowerCase()) : []
  const keys = await lookUpKeys(executor, text, tenantId)
  const inLog = await lookUpInLog(executor, text, tenantId)
  return { text, matches: [...matches, ...keys.matches, ...inLog.matches], isPartial: false }
}

async function lookUpEvent(executor: Executor, id: string): Promise<LookupMatch[]> {
  const { rows } = await executor.query<{ id: string; tenantId: string; type: string }>(
    'select e.id, e.tenant_id as "tenantId", e.type from bus.events e where e.id = $1::uuid',
    [id],
  )
  return rows.map((row) => ({ kind: 'event', ...row }))
}

interface JobRow extends Record<string, unknown> {
  readonly queue: string
  readonly job_id: string
  readonly state: string
  readonly event_ids: readonly string[] | null
  readonly event_count: number | null
}

async function lookUpId(executor: Executor, id: string): Promise<LookupMatch[]> {
  const events = await lookUpEvent(executor, id)
  const { rows: others } = await executor.query<{ match: Record<string, unknown> & { at?: string } }>(
    `select jsonb_build_object('kind', 'operation', 'id', o.id, 'operation', o.kind, 'state', o.state) as match from bus.operations o where o.id = $1::uuid
     union all
     select jsonb_build_object('kind', 'instance', 'id', i.id, 'service', i.service, 'host', i.host, 'pid', i.pid) from bus.instances i where i.id = $1::uuid
     union all
     select jsonb_build_object('kind', 'audit', 'id', a.id, 'action', a.action, 'by', a.actor, 'at', a.at) from bus.audit a where a.id = $1::uuid`,
    [id],
  )
  const named = others.map(
    ({ match }) =>
      (match.at === undefined ? match : { ...match, at: new Date(match.at) }) as unknown as LookupMatch,
  )
  if (events.length > 0 || named.length > 0) return [...events, ...named]
  // Only what is nothing else is searched for in every queue.
  const { rows: jobs } = await executor.query<JobRow>(
    `select j.queue, j.job_id, j.state, j.event_ids, j.event_count from bus.find_jobs($1::uuid, ${maxMatches}) j`,
    [id],
  )
  return jobs.map(({ queue, job_id: jobId, state, event_ids: eventIds, event_count: eventCount }) => ({
    kind: 'job',
    jobId,
    queue,
    state,
    subscription: /^bus\.(.+?)(?:\.dead)?$/.exec(queue)?.[1],
    isDeadLetter: queue.startsWith('bus.') && queue.endsWith('.dead'),
    eventIds: eventIds ?? [],
    eventCount: eventCount ?? 0,
  }))
}

async function lookUpSubscription(executor: Executor, name: string): Promise<LookupMatch[]> {
  const { rows } = await executor.query<{ name: string; service: string }>(
    'select s.name, s.service from bus.subscriptions s where s.name = $1',
    [name],
  )
  return rows.map((row) => ({ kind: 'subscription', ...row }))
}

interface KindMatches {
  readonly matches: readonly LookupMatch[]
  readonly isPartial: boolean
}

async function lookUpKeys(
  executor: Executor,
  text: string,
  tenantId: string | undefined,
): Promise<KindMatches> {
  const found = await readKeys(executor, ['event_id', 'idempotency_key'], text, tenantId)
  const ofKind = (kind: KeyKind, name: 'business-id' | 'idempotency-key'): LookupMatch[] =>
    (found ?? [])
      .filter((used) => used.kind === kind)
      .slice(0, maxMatches)
      .map(({ tenantId: ofTenant, id }) => ({ kind: name, tenantId: ofTenant, id }))
  return {
    matches: [...ofKind('event_id', 'business-id'), ...ofKind('idempotency_key', 'idempotency-key')],
    isPartial: found === undefined,
  }
}

interface LogRow extends Record<string, unknown> {
  readonly kind: 'correlation' | 'subject' | 'tenant' | 'type' | 'ordering-key'
  readonly tenant_id: string
  readonly id: string | null
  readonly subscription: string | null
  readonly state: 'active' | 'blocked' | 'parked' | 'overrunning' | null
  readonly tenant_count: string
}

async function lookUpInLog(
  executor: Executor,
  text: string,
  tenantId: string | undefined,
): Promise<KindMatches> {
  const partitions = (await partitionsIn(executor)).toReversed()
  const found = new Map<string, LookupMatch>()
  let searchedCount = 0
  let isPartial = false
  for (const partition of partitions) {
    if (tenantId === undefined && searchedCount >= maxPartitions) {
      isPartial ||= await isThereBefore(executor, partition.high)
      break
    }
    const rows = await readPartition(executor, text, tenantId, { partition, isFirst: searchedCount === 0 })
    const tenantCount = Number(rows[0]?.tenant_count ?? 0)
    // Months to come are empty.
    if (tenantCount > 0) searchedCount += 1
    isPartial ||= tenantCount > maxKeyCount
    for (const row of rows) {
      const match = toMatch(row, text)
      const key = `${row.kind} ${row.tenant_id} ${row.subscription ?? ''}`
      const ofKind = [...found.values()].filter(({ kind }) => kind === row.kind)
      if (match !== undefined && !found.has(key) && ofKind.length < maxMatches) found.set(key, match)
    }
  }
  return { matches: [...found.values()], isPartial }
}

async function isThereBefore(executor: Executor, id: string): Promise<boolean> {
  const { rows } = await executor.query(
    'select e.id from bus.events e where e.id < $1::uuid order by e.id desc limit 1',
    [id],
  )
  return rows.length > 0
}

/** One statement for a partition of the log. In a tenant's scope only what its own indexes answer. */
async function readPartition(
  executor: Executor,
  text: string,
  tenantId: string | undefined,
  { partition: { low, high }, isFirst }: { readonly partition: Window; readonly isFirst: boolean },
): Promise<LogRow[]> {
  const inPartition = 'e.id >= $2::uuid and e.id < $3::uuid'
  const tenants =
    tenantId === undefined
      ? `recursive stepped (id) as (
           (select e.tenant_id from bus.events e where ${inPartition} order by e.tenant_id limit 1)
           union all
           select (select e.tenant_id from bus.events e where e.tenant_id > s.id and ${inPartition} order by e.tenant_id limit 1)
           from stepped s where s.id is not null
         ), tenants as materialized (select s.id from stepped s where s.id is not null limit ${maxKeyCount + 1})`
      : 'tenants (id) as materialized (values ($4::text))'
  const ofAllTenants = `
     union all
     (select 'tenant', e.tenant_id, e.id, null, null from unnest(array[$1::text]) as l (key)
      cross join lateral (
        select e.tenant_id, e.id from bus.events e where e.tenant_id = l.key and ${inPartition} order by e.tenant_id desc, e.id desc limit 1) e)
     union all
     (select 'type', '', e.id, null, null from unnest(array[$1::text]) as l (key)
      cross join lateral (select e.type, e.id from bus.events e where e.type = l.key and ${inPartition} order by e.type desc, e.id desc limit 1) e)`
  // Of keys that have events to deliver, whatever the month.
  const ofOrderedKeys = `
     union all
     (select 'ordering-key', k.tenant_id, o.event_id, s.name, k.state
      from bus.subscriptions s
      join bus.ordered_keys k on k.subscription_id = s.id
        and k.key_hash = any (array(select bus.ordering_key_hash(t.id, $1::text) from tenants t))
      cross join lateral (
        select o.event_id from bus.ordered_events o where o.key_id = k.id and o.seq > k.done_seq order by o.seq limit 1) o
      where s.options -> 'ordered' = 'true' and k.ordering_key = $1::text limit ${maxMatches})`
  const { rows } = await executor.query<LogRow>(
    `with ${tenants}, found (kind, tenant_id, id, subscription, state) as (
       (select 'correlation', e.tenant_id, e.id, null::text, null::text from bus.events e
        where e.tenant_id = any (array(select t.id from tenants t)) and e.correlation_id = $1::text and ${inPartition} limit 200)
       union all
       (select 'subject', e.tenant_id, e.id, null, null from bus.events e
        where hashtextextended(e.subject, hashtextextended(e.tenant_id, 0)) = any (array(
            select hashtextextended($1::text, hashtextextended(t.id, 0)) from tenants t))
          and e.subject = $1::text and ${inPartition} limit 200)${tenantId === undefined ? ofAllTenants : ''}${tenantId === undefined && isFirst ? ofOrderedKeys : ''}
     )
     select f.*, c.n as tenant_count from (select count(*) as n from tenants) c left join found f on true`,
    tenantId === undefined ? [text, low, high] : [text, low, high, tenantId],
  )
  return rows
}

function toMatch(
  { kind, tenant_id: tenantId, id, subscription, state }: LogRow,
  text: string,
): LookupMatch | undefined {
  if ((kind as string | null) === null || id === null) return undefined
  if (kind === 'ordering-key')
    return subscription === null || state === null ? undefined : { kind, tenantId, id, subscription, state }
  return kind === 'type' ? { kind, type: text, id } : { kind, tenantId, id }
}
