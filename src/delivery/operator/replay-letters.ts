import type { Executor } from '../../database/database.ts'
import { ConfigurationError } from '../../foundation/errors.ts'
import { describe } from '../../foundation/options.ts'
import type { StoredFilter } from './dead-letter-filter.ts'
import type { DeadLetterRow } from './dead-letter-row.ts'

/** With a condition on the type, which is in the log, so many dead letters are looked at in one step, and at most. */
const stepCount = 1000
const maxLooked = 10_000

/**
 * Reads the dead letters of a replay, oldest first: rows of `bus.failing` under the ids that stand for its subscriptions. Only reads. Everything is
 * looked up by index.
 *
 * @throws a {@link ConfigurationError} `BUS_OPERATION_NOT_FOUND`
 */
export async function readReplayLetters(
  executor: Executor,
  operationId: string,
  { types, subscription, ...conditions }: StoredFilter,
  limit: number,
): Promise<DeadLetterRow[]> {
  const found: DeadLetterRow[] = []
  let filter = conditions
  const wanted = types === undefined ? limit : stepCount
  for (let lookedCount = 0; lookedCount < maxLooked; lookedCount += wanted) {
    const page = await readPage(executor, operationId, { subscription, ...filter }, wanted)
    found.push(...page.filter(({ type }) => types === undefined || (type !== null && types.includes(type))))
    const last = page.at(-1)
    if (found.length >= limit || last === undefined || page.length < wanted) break
    const [afterTime, afterEvent, afterSubscription] = last.place.split('_')
    filter = { ...filter, afterTime, afterEvent, afterSubscription: Number(afterSubscription) }
  }
  if (found.length === 0) await refuseUnknownReplay(executor, operationId)
  return found.slice(0, limit)
}

async function refuseUnknownReplay(executor: Executor, operationId: string): Promise<void> {
  const { rows } = await executor.query('select from bus.replays where operation_id = $1 limit 1', [
    operationId,
  ])
  if (rows.length > 0) return
  throw new ConfigurationError(
    'BUS_OPERATION_NOT_FOUND',
    `There is no replay ${describe(operationId)} in this database`,
  )
}

async function readPage(
  executor: Executor,
  operationId: string,
  { subscription, ...conditions }: StoredFilter,
  limit: number,
): Promise<readonly DeadLetterRow[]> {
  const { rows } = await executor.query<DeadLetterRow>(
    `select f.event_id, f.subscription_name as subscription, f.job_id, f.attempts::int as attempts, f.failed_at as dead_at, f.tenant_id, f.state, f.fingerprint,
       case when k.state in ('blocked', 'parked') then k.ordering_key end as ordering_key,
       case when k.state in ('blocked', 'parked') then k.state end as key_state,
       coalesce((
         select jsonb_agg(jsonb_strip_nulls(jsonb_build_object('attempt', a.attempt, 'at', to_jsonb(a.ended_at),
           'name', a.error_name, 'message', a.error_message, 'code', a.error_code, 'stack', a.error_stack)) order by a.ended_at, a.attempt)
         from bus.attempts a where a.event_id = f.event_id and a.subscription_id = f.subscription_id and not a.succeeded), '[]') as failures,
       to_char(f.failed_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || '_' || f.event_id || '_' || f.subscription_id as place
     from (
       select l.*, s.name as subscription_name
       from bus.replays r
       join bus.subscriptions s on s.id = r.subscription_id
       cross join lateral bus.dead_letter_rows($2::jsonb || jsonb_build_object('subscriptionId', r.id), $3::int) l
       where r.operation_id = $1 and ($4::text is null or s.name = $4)
       order by l.failed_at, l.event_id, l.subscription_id limit $3
     ) f
     left join bus.ordered_keys k on k.id = f.key_id and k.failed_event_id = f.event_id
     order by f.failed_at, f.event_id, f.subscription_id`,
    [operationId, JSON.stringify(conditions), limit, subscription ?? null],
  )
  const types = await readTypes(
    executor,
    rows.map((row) => row.event_id),
  )
  return rows.map((row) => ({ ...row, type: types.get(row.event_id) ?? null }))
}

async function readTypes(executor: Executor, ids: readonly string[]): Promise<ReadonlyMap<string, string>> {
  if (ids.length === 0) return new Map()
  const { rows } = await executor.query<{ id: string; type: string }>(
    'select e.id, e.type from bus.events e where e.id = any ($1::uuid[])',
    [ids],
  )
  return new Map(rows.map(({ id, type }) => [id, type]))
}
