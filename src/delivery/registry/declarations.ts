import { createHash } from 'node:crypto'
import type pg from 'pg'
import { compilePatterns } from '../../events/pattern.ts'
import type { Executor } from '../../database/database.ts'
import { notifyState } from '../flow-control/subscription-state.ts'
import type { DurableOptions, Subscription } from '../subscriptions/subscription.ts'

/** What one version of a service's code declares about a subscription. */
export interface Declaration {
  /** Undefined for a subscription that was registered by hand and that no code has declared. */
  readonly id: number | undefined
  readonly patterns: readonly string[]
  readonly where: string | undefined
}

/** The ids of a subscription and of this process's declaration of it. */
export interface Registration {
  readonly subscriptionId: number
  readonly declarationId: number
}

/** What {@link writeDeclarations} has written. */
interface Written {
  readonly registrations: ReadonlyMap<string, Registration>
  /** The subscriptions that did not exist before. */
  readonly createdNames: ReadonlySet<string>
}

/** Identifies a declaration by all its contents except the name and the handler. The order of patterns is irrelevant. */
export function declarationHash(subscription: Subscription): string {
  const { patterns, where } = subscription
  const text = JSON.stringify([patterns.toSorted(), where ?? null, sortKeys(durableOptions(subscription))])
  return createHash('sha256').update(text).digest('hex').slice(0, 32)
}

function sortKeys(value: unknown): unknown {
  if (value === null || typeof value !== 'object') return value
  const entries = Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1))
  return entries.map(([key, inner]) => [key, sortKeys(inner)])
}

/** The options of a subscription as stored in `bus.declarations` and `bus.subscriptions`. */
function durableOptions(subscription: Subscription): DurableOptions {
  const { name: _name, patterns: _patterns, where: _where, startFrom: _startFrom, ...rest } = subscription
  const { handler: _handler, onDeadLetter: _onDeadLetter, deadLetterAlert: _alert, ...options } = rest
  return options
}

/** A declaration from any time, with the options of its queue. */
export interface KnownDeclaration extends Declaration {
  readonly id: number
  readonly name: string
  readonly hash: string
  readonly options: DurableOptions
  readonly isActive: boolean
  /** Whether a running process has it. */
  readonly isLive: boolean
}

/** A process without a heartbeat for this long does not count as live. */
export const liveSeconds = 60

/** All declarations of some subscriptions, including retired ones, the oldest of each first. */
export async function readDeclarations(
  executor: Executor,
  names: readonly string[],
): Promise<readonly KnownDeclaration[]> {
  const { rows } = await executor.query<Omit<KnownDeclaration, 'where'> & { where: string | null }>(
    `select d.id, s.name, d.hash, d.patterns, d."where", d.options, d.retired_at is null as "isActive",
       exists (
         select from bus.instances i where d.id = any(i.declarations)
           and i.seen_at > clock_timestamp() - ${liveSeconds} * interval '1 second') as "isLive"
     from bus.subscriptions s join bus.declarations d on d.subscription_id = s.id
     where s.name = any($1::text[]) order by d.id`,
    [names],
  )
  return rows.map((row) => ({ ...row, where: row.where ?? undefined }))
}

/**
 * Writes subscriptions and this process's declarations of them in one transaction; afterwards relays route by them. A
 * subscription's own row repeats its newest active declaration. Revisions are raised only if something changed, so that
 * relays reload the registry only then. Runs under the lock of the registry; repeating it changes nothing.
 *
 * @param knownIds - the ids of subscriptions before their rows were lost: receipts and keys refer to them
 */
export async function writeDeclarations(
  client: pg.ClientBase,
  service: string,
  subscriptions: readonly Subscription[],
  knownIds: ReadonlyMap<string, number>,
): Promise<Written> {
  const wanted = JSON.stringify(
    subscriptions.map((subscription) => ({
      id: knownIds.get(subscription.name) ?? null,
      name: subscription.name,
      hash: declarationHash(subscription),
      patterns: subscription.patterns,
      where: subscription.where ?? null,
      options: durableOptions(subscription),
    })),
  )
  const from = `jsonb_to_recordset($1::jsonb) as w (id int, name text, hash text, patterns text[], "where" text, options jsonb)`
  const { rows: created } = await client.query<{ name: string }>(
    `insert into bus.subscriptions (name, service, patterns, "where", options)
     select w.name, $2, w.patterns, w."where", w.options from ${from} where w.id is null
     on conflict (name) do nothing returning name`,
    [wanted, service],
  )
  if (knownIds.size > 0) {
    await client.query(
      `insert into bus.subscriptions (id, name, service, patterns, "where", options) overriding system value
       select w.id, w.name, $2, w.patterns, w."where", w.options from ${from} where w.id is not null
       on conflict do nothing`,
      [wanted, service],
    )
  }
  const { rows: changed } = await client.query<{ subscription_id: number }>(
    `insert into bus.declarations as d (subscription_id, hash, patterns, "where", options)
     select s.id, w.hash, w.patterns, w."where", w.options from ${from} join bus.subscriptions s on s.name = w.name
     on conflict (subscription_id, hash) do update set retired_at = null where d.retired_at is not null
     returning d.subscription_id`,
    [wanted],
  )
  const names = subscriptions.map(({ name }) => name)
  await applyNewestDeclaration(
    client,
    changed.map(({ subscription_id }) => subscription_id),
    names,
  )
  const { rows } = await client.query<{ name: string; subscription_id: number; declaration_id: number }>(
    `select w.name, s.id as subscription_id, d.id as declaration_id
     from ${from} join bus.subscriptions s on s.name = w.name
     join bus.declarations d on d.subscription_id = s.id and d.hash = w.hash`,
    [wanted],
  )
  return {
    registrations: new Map(
      rows.map((row) => [
        row.name,
        { subscriptionId: row.subscription_id, declarationId: row.declaration_id },
      ]),
    ),
    createdNames: new Set(created.map((row) => row.name)),
  }
}

/** Updates the rows of subscriptions to their newest active declarations, and raises revisions. */
async function applyNewestDeclaration(
  client: pg.ClientBase,
  changedIds: readonly number[],
  names: readonly string[],
): Promise<void> {
  const { rows } = await client.query<{ id: number }>(
    `update bus.subscriptions s set
       patterns = n.patterns, "where" = n."where", options = n.options,
       revision = nextval('bus.subscription_revision'), updated_at = now()
     from (
       select distinct on (d.subscription_id) d.subscription_id, d.patterns, d."where", d.options
       from bus.declarations d join bus.subscriptions s on s.id = d.subscription_id
       where d.retired_at is null and (s.name = any($2::text[]) or s.id = any($1::int[]))
       order by d.subscription_id, d.id desc
     ) n
     where n.subscription_id = s.id and (s.id = any($1::int[])
       or (s.patterns, s."where", s.options) is distinct from (n.patterns, n."where", n.options))
     returning s.id`,
    [changedIds, names],
  )
  const ids = rows.map(({ id }) => id)
  if (ids.length > 0) await notifyState(client, ids)
}

/** Retires declarations, and returns the subscriptions that this changed. Runs under the lock of the registry. */
export async function retireDeclarations(
  client: pg.ClientBase,
  ids: readonly number[],
): Promise<readonly { readonly name: string; readonly patterns: readonly string[] }[]> {
  const { rows } = await client.query<{ subscription_id: number; name: string; patterns: string[] }>(
    `update bus.declarations d set retired_at = clock_timestamp()
     from bus.subscriptions s where s.id = d.subscription_id and d.id = any($1::int[]) and d.retired_at is null
     returning d.subscription_id, s.name, d.patterns`,
    [ids],
  )
  await applyNewestDeclaration(
    client,
    rows.map(({ subscription_id }) => subscription_id),
    [],
  )
  return rows
}

/** Tests whether a declaration covers an event type. Only PostgreSQL can evaluate its predicate. */
export function typeMatcher({ patterns }: Pick<Declaration, 'patterns'>): (type: string) => boolean {
  return compilePatterns(patterns)
}

/** The events, among some, whose payload satisfies a predicate. PostgreSQL evaluates it; an error counts as false. */
export async function filterByPredicate(
  executor: Executor,
  eventIds: readonly string[],
  where: string,
): Promise<ReadonlySet<string>> {
  const { rows } = await executor.query<{ id: string }>(
    'select unnest(bus.matching_events($1::uuid[], $2::jsonpath)) as id',
    [eventIds, where],
  )
  return new Set(rows.map((row) => row.id))
}
