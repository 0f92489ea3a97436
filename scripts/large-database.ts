/**
 * Fills a database as some months of use would: a log, three subscriptions that have received it, a fourth with waiting events and dead
 * letters, and a month of statistics. Rows are written as the bus writes them, without its triggers, because publishing five million events takes half an hour.
 */
import type pg from 'pg'
import { z } from 'zod'
import { createBus, defineEvents, type Bus } from '../src/index.ts'
import { createDatabase } from '../src/database/database.ts'
import { rollUpHours } from '../src/delivery/ledger/hourly-rollups.ts'

export interface LargeDatabase {
  readonly eventCount: number
  /** The last events wait for the fourth subscription. */
  readonly waitingCount: number
  /** The events before those are dead letters of it. */
  readonly deadCount: number
  /** The days over which the events were published, in bursts of a hundred. */
  readonly days: number
}

/** The names of the subscriptions. */
const receivers = ['first', 'second', 'third']
export const behind = 'behind'

/** Different errors among the dead letters. */
const errorCount = 20

export const types = Array.from({ length: 40 }, (_, n) => `area-${n % 8}.happened-${n}`)

/** The types of the events: forty of eight areas. */
export const largeEvents = defineEvents(
  Object.fromEntries(
    types.map((type) => [type, { schema: z.object({ n: z.number() }).loose(), redact: ['card'] as const }]),
  ),
)

/** What the events are made of, by their numbers. */
export const tenantOf = (n: number): string => `tenant-${Math.floor(n / 10) % 1000}`
export const subjectOf = (n: number): string => `customer-${Math.floor(n / 10) % 5000}`

const silent = { debug() {}, info() {}, warn() {}, error() {} }

/** A bus on a database of this kind. It logs nothing. */
export function openLargeBus(url: string): Bus<typeof largeEvents> {
  return createBus({ database: url, events: largeEvents, source: 'measure', logger: silent })
}

/** Events in one statement. */
const sliceSize = 100_000

/**
 * Migrates and fills a database. The ids of the events are in `public.ids` afterwards, by number from 0 in the order of publishing.
 *
 * @param client - a session of the owner
 */
export async function fillLargeDatabase(client: pg.Client, url: string, size: LargeDatabase): Promise<void> {
  const { eventCount, waitingCount, deadCount, days } = size
  const worker = openLargeBus(url)
  await worker.migrate()
  for (const name of [...receivers, behind])
    worker.subscribe({ name, events: ['**'], handler: async () => {}, retry: { maxAttempts: 1 } })
  await worker.start()
  await worker.stop()
  await client.query(`set session_replication_role = replica; set synchronous_commit = off`)
  await createPartitions(client, days)
  await client.query(
    `create unlogged table public.ids as
     select n, overlay(overlay(bus.uuid_v7_floor(now() - (${eventCount} - n / 100 * 100) * ${(days * 86_400) / eventCount} * interval '1 second' + n % 100 * interval '5 milliseconds')::text
       placing '7' from 15) placing lpad(to_hex(n % 4096), 3, '0') || '-8000-' || lpad(to_hex(n), 12, '0') from 16)::uuid as id
     from generate_series(0, ${eventCount - 1}) n`,
  )
  await client.query('create index on public.ids (n)')
  await client.query('vacuum analyze public.ids')
  for (let from = 0; from < eventCount; from += sliceSize)
    await insertReceived(client, from, Math.min(eventCount, from + sliceSize) - 1)
  const firstWaiting = eventCount - waitingCount
  await insertWaiting(client, firstWaiting)
  await insertDead(client, firstWaiting - deadCount, firstWaiting)
  await insertStatistics(client)
  await client.query('reset session_replication_role')
  const database = createDatabase(url, silent)
  while (await rollUpHours(database));
  await database.close()
  await client.query('vacuum analyze')
}

/** The months before the last one, which `bus.create_partitions` does not create. */
async function createPartitions(client: pg.Client, days: number): Promise<void> {
  for (const parent of ['events', 'receipts', 'receipt_batches', 'attempts'])
    await client.query(
      `do $body$
       declare
         month timestamp;
       begin
         for month in
           select generate_series(date_trunc('month', now() at time zone 'utc' - interval '${days + 1} days'), date_trunc('month', now() at time zone 'utc'), interval '1 month')
         loop
           continue when to_regclass('bus.${parent}' || to_char(month, '_YYYY_MM')) is not null;
           execute format('create table bus.%I partition of bus.${parent} for values from (%L) to (%L)', '${parent}' || to_char(month, '_YYYY_MM'),
             bus.uuid_v7_floor(month at time zone 'utc'), bus.uuid_v7_floor((month + interval '1 month') at time zone 'utc'));
           execute format('alter table bus.%I enable row level security', '${parent}' || to_char(month, '_YYYY_MM'));
         end loop;
       end
       $body$`,
    )
}

async function insertReceived(client: pg.Client, from: number, to: number): Promise<void> {
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
    `insert into bus.receipt_batches (subscription_id, event_id, last_event_id, event_ids, durations_ms, delivered_at)
     select s.id, e.ids[1], e.ids[cardinality(e.ids)], e.ids, array_fill(1.5::real, array[cardinality(e.ids)]), to_timestamp(bus.uuid_ms(e.ids[1]) / 1000.0)
     from (
       select array_agg(id order by n) as ids from public.ids where n between ${from} and ${to}
       group by n / 50, bus.receipt_span_floor(id)
     ) e
     cross join (select id from bus.subscriptions where name = any ('{${receivers.join()}}')) s`,
  )
}

/** Up to a hundred events in a job, as far as its id can say their times. */
async function insertWaiting(client: pg.Client, from: number): Promise<void> {
  await client.query(
    `insert into pgboss.job (id, name, data, policy, dead_letter, singleton_key)
     select (substr(min(e.id::text), 1, 14) || '8' || lpad(to_hex((max(bus.uuid_ms(e.id)) - min(bus.uuid_ms(e.id))) / 4), 3, '0') || '-b' || substr(gen_random_uuid()::text, 21))::uuid,
       'bus.${behind}', jsonb_build_object('eventIds', jsonb_agg(e.id order by e.id)), 'standard', 'bus.${behind}.dead', '*'
     from public.ids e where e.n >= ${from}
     group by e.n / 100, bus.uuid_ms(e.id) / 16000`,
  )
}

async function insertDead(client: pg.Client, from: number, to: number): Promise<void> {
  await client.query(
    `with dead as materialized (
       select id as event_id, gen_random_uuid() as job_id, n, s.subscription_id
       from public.ids cross join (select id as subscription_id from bus.subscriptions where name = '${behind}') s
       where n between ${from} and ${to - 1}
     ), attempts as (
       insert into bus.attempts (event_id, subscription_id, attempt, ended_at, duration_ms, succeeded, error_name, error_message, error_stack, fingerprint)
       select d.event_id, d.subscription_id, 1, now() - interval '1 hour' + d.n * interval '1 millisecond', 5, false, 'Error', 'the carrier answered ' || 500 + d.n % ${errorCount}, repeat('at handler (file.js)', 40), md5((d.n % ${errorCount})::text)
       from dead d
     ), failing as (
       insert into bus.failing (subscription_id, event_id, state, attempts, tenant_id, fingerprint, error_name, job_id, failed_at)
       select d.subscription_id, d.event_id, 'dead', 1, 'tenant-' || (d.n / 10) % 1000, md5((d.n % ${errorCount})::text), 'Error', d.job_id, now() - interval '1 hour' + d.n * interval '1 millisecond'
       from dead d
     )
     insert into pgboss.job (name, data, policy, source_name, source_id, source_root_id, source_retry_count)
     select 'bus.${behind}.dead', jsonb_build_object('eventIds', jsonb_build_array(d.event_id)), 'standard', 'bus.${behind}', d.job_id, d.job_id, 0 from dead d`,
  )
}

/** Thirty days of minutes, of two processes, and a thousand tenants in each hour. */
async function insertStatistics(client: pg.Client): Promise<void> {
  await client.query(
    `insert into bus.rollups (minute, subscription_id, instance_id, published, delivered, failed, wait_bins, run_bins)
     select date_trunc('minute', now()) - m * interval '1 minute', s.id, ('00000000-0000-0000-0000-00000000000' || i)::uuid, 0, 3000, 10,
       (select array_agg((m + b) % 97) from generate_series(1, 30) b), (select array_agg((m + b) % 97) from generate_series(1, 16) b)
     from generate_series(0, 30 * 1440) m, (select id from bus.subscriptions union all select 0) s, generate_series(1, 2) i
     on conflict do nothing`,
  )
  await client.query(
    `insert into bus.tenant_rollups (hour, tenant_id, published, delivered)
     select date_trunc('hour', now()) - h * interval '1 hour', 'tenant-' || t, 100 + t, 300 from generate_series(0, 30 * 24) h, generate_series(0, 999) t
     on conflict do nothing`,
  )
}
