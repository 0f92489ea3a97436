/**
 * Measures finding and explaining in a large database, by the public API.
 *
 *   node scripts/measure-find.ts [--events 5000000] [--waiting 1000000] [--dead 100000] [--database <url>]
 *
 * The log has so many events of 1,000 tenants in bursts of a hundred, evenly over six months; three subscriptions have received them, and a
 * fourth has waiting events and dead letters. With --database, that one is filled if it is empty, and kept.
 */
import { parseArgs } from 'node:util'
import pg from 'pg'
import { z } from 'zod'
import { createBus, defineEvents, type Bus } from '../src/index.ts'
import { startOwnPostgres } from '../src/testing/postgres.ts'

const { values } = parseArgs({
  options: {
    events: { type: 'string', default: '5000000' },
    waiting: { type: 'string', default: '1000000' },
    dead: { type: 'string', default: '100000' },
    database: { type: 'string' },
    only: { type: 'string', default: '' },
  },
})
const eventCount = Number(values.events)
const waitingCount = Number(values.waiting)
const deadCount = Number(values.dead)

const types = Array.from({ length: 40 }, (_, n) => `area-${n % 8}.happened-${n}`)
const events = defineEvents(
  Object.fromEntries(
    types.map((type) => [type, { schema: z.object({ n: z.number() }).loose(), redact: ['card'] as const }]),
  ),
)
const silent = { debug() {}, info() {}, warn() {}, error() {} }

/** The id of the n-th event: bursts of a hundred in half a second, evenly over six months. */
const idSql = (n: string): string =>
  `overlay(overlay(bus.uuid_v7_floor(now() - interval '180 days' + (${n} / 100) * interval '180 days' / ${eventCount / 100} + (${n} % 100) * interval '5 milliseconds')::text
     placing '7' from 15) placing lpad(to_hex(${n} % 4096), 3, '0') || '-8000-' || lpad(to_hex(${n}), 12, '0') from 16)::uuid`

async function fill(client: pg.Client, bus: Bus<typeof events>): Promise<void> {
  await bus.migrate()
  for (const name of ['first', 'second', 'third', 'behind'])
    bus.subscribe({ name, events: ['**'], handler: async () => {}, retry: { maxAttempts: 1 } })
  await bus.start()
  await bus.stop()
  await client.query(`do $body$
    declare
      month timestamptz;
      parent text;
      partition text;
    begin
      for month in select date_trunc('month', now() at time zone 'utc') at time zone 'utc' - n * interval '1 month' from generate_series(2, 7) n loop
        foreach parent in array array['events', 'receipts', 'receipt_batches', 'attempts'] loop
          partition := parent || to_char(month at time zone 'utc', '_YYYY_MM');
          execute format('create table bus.%I (like bus.%I including all)', partition, parent);
          execute format('alter table bus.%I enable row level security', partition);
          execute format('alter table bus.%I attach partition bus.%I for values from (%L) to (%L)', parent, partition,
            bus.uuid_v7_floor(month), bus.uuid_v7_floor(month + interval '1 month'));
        end loop;
      end loop;
    end $body$`)
  await client.query('set session_replication_role = replica; set synchronous_commit = off')
  await client.query(
    `create unlogged table public.ids as select n, ${idSql('n')} as id from generate_series(0, ${eventCount - 1}) n`,
  )
  await client.query('create index on public.ids (n)')
  await client.query('vacuum analyze public.ids')
  for (let from = 0; from < eventCount; from += 100_000) {
    const to = Math.min(eventCount, from + 100_000) - 1
    await client.query(
      `insert into bus.events (id, tenant_id, type, source, subject, correlation_id, causation_id, event_id, idempotency_key, payload)
       select i.id, 'tenant-' || (n / 10) % 1000, 'area-' || n % 8 || '.happened-' || n % 40, 'service-' || n % 7, 'customer-' || n / 10 % 5000,
         r.id::text, case when i.id <> r.id then r.id end, case when n % 5 = 0 then 'business-' || n end, case when n % 50 = 0 then 'key-' || n end,
         jsonb_build_object('n', n, 'order', jsonb_build_object('number', 'order-' || n / 3), 'text', repeat('x', 150))
       from public.ids i cross join lateral (select r.id from public.ids r where r.n = i.n / 10 * 10) r where n between ${from} and ${to}`,
    )
    await client.query(
      `insert into bus.event_keys (tenant_id, kind, key, event_id)
       select 'tenant-' || (n / 10) % 1000, k.kind, k.key, id from public.ids
       cross join lateral (values ('event_id', 'business-' || n), ('idempotency_key', 'key-' || n)) as k (kind, key)
       where n between ${from} and ${to} and n % case k.kind when 'event_id' then 5 else 50 end = 0`,
    )
    await client.query(
      `insert into bus.receipt_batches (subscription_id, event_id, last_event_id, event_ids, durations_ms)
       select s.id, e.ids[1], e.ids[cardinality(e.ids)], e.ids, array_fill(1.5::real, array[cardinality(e.ids)])
       from (
         select array_agg(id order by n) as ids from public.ids where n between ${from} and ${to}
         group by n / 50, bus.receipt_span_floor(id)
       ) e
       cross join (select id from bus.subscriptions where name in ('first', 'second', 'third')) s`,
    )
  }
  await client.query(
    `insert into pgboss.job (id, name, data, policy, dead_letter, singleton_key)
     select (substr(m, 1, 14) || '8' || lpad(to_hex((max(bus.uuid_ms(e.id)) - min(bus.uuid_ms(e.id))) / 4), 3, '0') || '-b' || substr(gen_random_uuid()::text, 21))::uuid,
       'bus.behind', jsonb_build_object('eventIds', jsonb_agg(e.id order by e.id)), 'standard', 'bus.behind.dead', '*'
     from (select id, n / 100 as part from public.ids where n >= ${eventCount - waitingCount}) e
     join lateral (select i.id::text as m from public.ids i where i.n = e.part * 100) f on true
     group by e.part, m`,
  )
  await client.query(
    `with dead as materialized (
       select id as event_id, gen_random_uuid() as job_id, n
       from public.ids where n between ${eventCount - waitingCount - deadCount} and ${eventCount - waitingCount - 1}
     ), attempts as (
       insert into bus.attempts (event_id, subscription_id, attempt, ended_at, duration_ms, succeeded, error_name, error_message, error_stack, fingerprint)
       select d.event_id, s.id, 1, now() - interval '1 hour' + d.n * interval '1 millisecond', 5, false, 'Error', 'the carrier answered ' || 500 + d.n % 20, repeat('at handler (file.js)', 40), md5((d.n % 20)::text)
       from dead d join bus.subscriptions s on s.name = 'behind'
     ), failing as (
       insert into bus.failing (subscription_id, event_id, state, attempts, tenant_id, fingerprint, error_name, job_id, failed_at)
       select s.id, d.event_id, 'dead', 1, 'tenant-' || (d.n / 10) % 1000, md5((d.n % 20)::text), 'Error', d.job_id, now() - interval '1 hour' + d.n * interval '1 millisecond'
       from dead d join bus.subscriptions s on s.name = 'behind'
     )
     insert into pgboss.job (name, data, policy, source_name, source_id, source_root_id, source_retry_count)
     select 'bus.behind.dead', jsonb_build_object('eventIds', jsonb_build_array(d.event_id)), 'standard', 'bus.behind', d.job_id, d.job_id, 0 from dead d`,
  )
  await client.query('reset session_replication_role')
  await client.query('vacuum analyze')
}

/** Milliseconds of some calls, sorted. */
async function time(count: number, call: (n: number) => Promise<unknown>): Promise<number[]> {
  const all: number[] = []
  for (let n = 0; n < count; n += 1) {
    const startedAt = performance.now()
    await call(n)
    all.push(performance.now() - startedAt)
  }
  return all.toSorted((a, b) => a - b)
}

const at = (sorted: readonly number[], share: number): string =>
  (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0).toFixed(1)

/** A random event of the log, with the number that its attributes are made of. */
interface Sample {
  readonly n: number
  readonly id: string
}

const any = (below: number): number => Math.floor(Math.random() * below)

async function measure(client: pg.Client, bus: Bus<typeof events>): Promise<void> {
  const firstDead = eventCount - waitingCount - deadCount
  const sample = async (from: number, to: number): Promise<Sample> => {
    const n = from + any(to - from)
    const { rows } = await client.query<{ id: string }>('select id from public.ids where n = $1', [n])
    return { n, id: rows[0]?.id ?? '' }
  }
  const anyEvent = async (): Promise<Sample> => sample(0, eventCount)
  const tenantOf = ({ n }: Sample): string => `tenant-${Math.floor(n / 10) % 1000}`
  const subjectOf = ({ n }: Sample): string => `customer-${Math.floor(n / 10) % 5000}`
  const rootOf = async ({ n }: Sample): Promise<string> => {
    const { rows } = await client.query<{ id: string }>('select id from public.ids where n = $1', [
      Math.floor(n / 10) * 10,
    ])
    return rows[0]?.id ?? ''
  }
  const searches: Record<string, () => Promise<unknown>> = {
    'find()': async () => bus.events.find(),
    'find({ tenantId })': async () => bus.events.find({ tenantId: tenantOf(await anyEvent()) }),
    'find({ type })': async () => bus.events.find({ type: types[any(40)] ?? '' }),
    'find({ type: 20 types })': async () => bus.events.find({ type: types.slice(0, 20) }),
    'find({ tenantId, type })': async () =>
      bus.events.find({ tenantId: tenantOf(await anyEvent()), type: types[any(40)] ?? '' }),
    'find({ pattern })': async () => bus.events.find({ pattern: `area-${any(8)}.*` }),
    'find({ causationId })': async () => bus.events.find({ causationId: await rootOf(await anyEvent()) }),
    'find({ tenantId, correlationId })': async () => {
      const event = await anyEvent()
      return bus.events.find({ tenantId: tenantOf(event), correlationId: await rootOf(event) })
    },
    'find({ tenantId, subject })': async () => {
      const event = await anyEvent()
      return bus.events.find({ tenantId: tenantOf(event), subject: subjectOf(event) })
    },
    'find({ tenantId, eventId })': async () => {
      const event = await sample(0, eventCount / 5)
      return bus.events.find({
        tenantId: `tenant-${Math.floor((event.n * 5) / 10) % 1000}`,
        eventId: `business-${event.n * 5}`,
      })
    },
    'find({ eventId })': async () => bus.events.find({ eventId: `business-${any(eventCount / 5) * 5}` }),
    'search({ source })': async () => bus.events.search({ source: 'service-3' }),
    'search({ payload }), found': async () =>
      bus.events.search({ payload: { n: eventCount - 1 - any(20_000) } }),
    'search({ payload }), not found': async () =>
      bus.events.search({ payload: { order: { number: 'never' } } }),
    'search({ tenantId, payload }), not found': async () =>
      bus.events.search({ tenantId: tenantOf(await anyEvent()), payload: { order: { number: 'never' } } }),
    'search({ correlationId })': async () => bus.events.search({ correlationId: 'never' }),
    'search({ subject })': async () => bus.events.search({ subject: 'customer-7' }),
    "search({ status: 'dead' })": async () => bus.events.search({ status: 'dead' }),
    "search({ status: 'dead', tenantId })": async () =>
      bus.events.search({ status: 'dead', tenantId: tenantOf(await anyEvent()) }),
    "search({ status: 'retrying' })": async () => bus.events.search({ status: 'retrying' }),
    "search({ status: 'waiting' })": async () => bus.events.search({ status: 'waiting' }),
    "search({ status: 'delivering' })": async () => bus.events.search({ status: 'delivering' }),
    "search({ status: 'delivered' })": async () => bus.events.search({ status: 'delivered' }),
    "search({ status: 'expired' })": async () => bus.events.search({ status: 'expired' }),
    'get(id)': async () => bus.events.get((await anyEvent()).id),
    'trace(id), 10 events': async () => bus.events.trace(await rootOf(await anyEvent())),
    'trace(id, { tenantId })': async () => {
      const event = await anyEvent()
      return bus.events.trace(await rootOf(event), { tenantId: tenantOf(event) })
    },
    'traceTree(event)': async () => bus.events.traceTree((await anyEvent()).id),
    'explain, delivered': async () => bus.explain((await sample(0, firstDead)).id),
    'explain, dead': async () => bus.explain((await sample(firstDead, firstDead + deadCount)).id),
    'explain, waiting': async () => bus.explain((await sample(firstDead + deadCount, eventCount)).id),
    'explain, not in the log': async () => bus.explain(crypto.randomUUID()),
    'lookup(event)': async () => bus.lookup((await anyEvent()).id),
    'lookup(business id)': async () => bus.lookup(`business-${any(eventCount / 5) * 5}`),
    'lookup(subject)': async () => bus.lookup(`customer-${any(5000)}`),
    'lookup(nothing)': async () => bus.lookup('nothing'),
    'lookup(unknown id)': async () => bus.lookup(crypto.randomUUID()),
    'tenant.find()': async () => bus.tenant(tenantOf(await anyEvent())).events.find(),
    'tenant.find({ type })': async () =>
      bus.tenant(tenantOf(await anyEvent())).events.find({ type: types[any(40)] ?? '' }),
    'tenant.search({ payload })': async () =>
      bus.tenant(tenantOf(await anyEvent())).events.search({ payload: { order: { number: 'never' } } }),
    "tenant.search({ status: 'dead' })": async () =>
      bus.tenant(tenantOf(await anyEvent())).events.search({ status: 'dead' }),
    'tenant.explain': async () => {
      const event = await anyEvent()
      return bus.tenant(tenantOf(event)).explain(event.id)
    },
    'tenant.lookup': async () => {
      const event = await anyEvent()
      return bus.tenant(tenantOf(event)).lookup(subjectOf(event))
    },
  }
  for (const [what, call] of Object.entries(searches)) {
    if (!what.includes(values.only)) continue
    await call()
    const sorted = await time(100, call)
    console.log(`${what}: p50 ${at(sorted, 0.5)} ms, p99 ${at(sorted, 0.99)} ms`)
  }
}

const server = values.database === undefined ? await startOwnPostgres() : undefined
const url =
  values.database ?? Object.assign(new URL(server?.url ?? ''), { pathname: '/measure_find' }).toString()
const admin = new pg.Client(Object.assign(new URL(url), { pathname: '/postgres' }).toString())
await admin.connect()
const name = new URL(url).pathname.slice(1)
const { rowCount } = await admin.query('select from pg_database where datname = $1', [name])
if (rowCount === 0) await admin.query(`create database ${name}`)
await admin.end()
const client = new pg.Client(url)
await client.connect()
const newBus = (): Bus<typeof events> =>
  createBus({ database: url, events, source: 'measure', logger: silent })
const { rows: known } = await client.query<{ there: boolean }>(
  `select to_regclass('public.ids') is not null as there`,
)
if (known[0]?.there !== true) await fill(client, newBus())
const bus = newBus()
await measure(client, bus)
await bus.stop()
await client.end()
await server?.stop()
