/**
 * Fills a database as some months of use would: a log, three subscriptions that have received it, and a fourth with waiting events and
 * dead letters. Rows are written as the bus writes them, without its triggers, because publishing five million events takes half an hour.
 */
import type pg from 'pg'

export interface LargeDatabase {
  readonly eventCount: number
  /** The last events, published within two hours, wait for the fourth subscription. */
  readonly waitingCount: number
  /** The events before those are dead letters of it. */
  readonly deadCount: number
  /** The days over which the other events were published. */
  readonly days: number
}

/** The names of the subscriptions. They must be registered, and no process may run them. */
export const receivers = ['first', 'second', 'third'] as const
export const behind = 'behind'

/** Different errors among the dead letters. */
export const errorCount = 20

/** Tenants, called `tenant-0` and so on. */
export const tenantCount = 1000

/** Events in one statement. */
const sliceSize = 100_000

const backlogSeconds = 7200

/**
 * Fills the tables. The ids of the events are in `public.ids` afterwards, by number from 0 in the order of publishing.
 *
 * @param client - a session of the owner of the schema, which is migrated
 */
export async function fillLargeDatabase(client: pg.Client, size: LargeDatabase): Promise<void> {
  const { eventCount, waitingCount, deadCount, days } = size
  const settledCount = eventCount - waitingCount
  await client.query(`set session_replication_role = replica; set synchronous_commit = off`)
  await createPartitions(client, days)
  const secondsAgo = `case
    when n < ${settledCount} then ${backlogSeconds} + (${settledCount} - n) * ${(days * 86_400) / settledCount}
    else (${eventCount} - n) * ${backlogSeconds / Math.max(1, waitingCount)} end`
  await client.query(
    `create unlogged table public.ids as
     select n, overlay(overlay(bus.uuid_v7_floor(now() - ${secondsAgo} * interval '1 second')::text placing '7' from 15)
       placing lpad(to_hex(n % 4096), 3, '0') || '-8000-' || lpad(to_hex(n), 12, '0') from 16)::uuid as id
     from generate_series(0, ${eventCount - 1}) n`,
  )
  await client.query('create index on public.ids (n)')
  await client.query('vacuum analyze public.ids')
  for (let from = 0; from < eventCount; from += sliceSize) {
    const to = Math.min(eventCount, from + sliceSize) - 1
    await insertReceived(client, from, to)
  }
  await insertWaiting(client, settledCount)
  await insertDead(client, settledCount - deadCount, settledCount)
  await insertRollups(client)
  await client.query('reset session_replication_role')
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
    `insert into bus.events (id, tenant_id, type, source, subject, event_id, correlation_id, payload, created_at)
     select id, 'tenant-' || n % ${tenantCount}, 'order.placed', 'measure', 'customer-' || n % 50000, 'order-' || n, 'request-' || n / 3,
       jsonb_build_object('n', n, 'customerId', 'customer-' || n % 50000), to_timestamp(bus.uuid_ms(id) / 1000.0)
     from public.ids where n between ${from} and ${to}`,
  )
  await client.query(
    `insert into bus.event_keys (tenant_id, kind, key, event_id, created_at)
     select 'tenant-' || n % ${tenantCount}, 'event_id', 'order-' || n, id, to_timestamp(bus.uuid_ms(id) / 1000.0)
     from public.ids where n between ${from} and ${to}`,
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
       select d.subscription_id, d.event_id, 'dead', 1, 'tenant-' || d.n % ${tenantCount}, md5((d.n % ${errorCount})::text), 'Error', d.job_id, now() - interval '1 hour' + d.n * interval '1 millisecond'
       from dead d
     )
     insert into pgboss.job (name, data, policy, source_name, source_id, source_root_id, source_retry_count)
     select 'bus.${behind}.dead', jsonb_build_object('eventIds', jsonb_build_array(d.event_id)), 'standard', 'bus.${behind}', d.job_id, d.job_id, 0 from dead d`,
  )
}

/** Of the last thirty days, by one process. */
async function insertRollups(client: pg.Client): Promise<void> {
  await client.query(
    `insert into bus.rollups (minute, subscription_id, instance_id, published, delivered, failed, dead, expired, wait_bins, run_bins)
     select m, s.id, '01900000-0000-7000-8000-000000000001', 0, 20, 1, 0, 0, array_fill(1, array[48]), array_fill(1, array[48])
     from generate_series(date_trunc('minute', now() - interval '30 days'), date_trunc('minute', now()), interval '1 minute') m
     cross join bus.subscriptions s`,
  )
}
