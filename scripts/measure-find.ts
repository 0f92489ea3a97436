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
    types.map((type) => [
      type,
      { schema: z.object({ n: z.number() }).loose(), redact: ['card'] as const },
    ]),
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
