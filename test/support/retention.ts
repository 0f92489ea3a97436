import type { TestDatabase } from './database.ts'

type Rows = Pick<TestDatabase, 'rows'>

/** A month of the past that has partitions. */
export interface PastMonth {
  /** As partitions have it. */
  readonly name: string
  readonly from: Date
  readonly to: Date
}

export const logTables = ['events', 'receipts', 'receipt_batches', 'attempts'] as const

/** The month so many months ago. */
export function monthAgo(months: number): PastMonth {
  const now = new Date()
  const from = new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() - months))
  const to = new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() - months + 1))
  return { name: from.toISOString().slice(0, 7).replace('-', '_'), from, to }
}

/** Makes the partitions of a month of the past, as a bus that ran then would have. */
export async function makeMonth({ rows }: Rows, month: PastMonth): Promise<void> {
  for (const table of logTables)
    await rows(`do $$ begin
      execute format('create table bus.${table}_${month.name} partition of bus.${table} for values from (%L) to (%L)',
        bus.uuid_v7_floor('${month.from.toISOString()}'), bus.uuid_v7_floor('${month.to.toISOString()}'));
      execute 'alter table bus.${table}_${month.name} enable row level security';
    end $$`)
}

/**
 * Puts events into the log, spread over a month, past the trigger that would dispatch them: they were delivered long ago. Every tenth has a
 * receipt of its own and a failed attempt, the others are packed.
 */
export async function fillMonth(
  { rows }: Rows,
  month: PastMonth,
  count: number,
  subscription = 1,
): Promise<void> {
  const step = (month.to.getTime() - month.from.getTime()) / (count + 1)
  await rows(`
    set session_replication_role = replica;
    insert into bus.events (id, tenant_id, type, source, subject, payload, metadata, event_id, created_at)
    select (left(bus.uuid_v7_floor(at)::text, 14) || '7' || substr(md5(n::text), 1, 3) || '-8' || substr(md5(n::text), 4, 3) || '-' || substr(md5(n::text), 7, 12))::uuid,
      'tenant-' || n % 5, 'payment.refunded', 'payment-service', case when n % 3 > 0 then 'customer-' || n % 40 end,
      case n % 7 when 0 then 'null' when 1 then '"a \\" \\\\ \\n ü \\u2028 😀"' when 2 then '[1.10, 12345678901234567890.000, 1e-20]'
        else jsonb_build_object('n', n, 'text', repeat('x', 100), 'of', null) end,
      case when n % 4 = 0 then '{}' else jsonb_build_object('k', 'v' || n) end, case when n % 6 = 0 then 'e' || n end, at + interval '123 microseconds'
    from generate_series(1, ${count}) n
    cross join lateral (select '${month.from.toISOString()}'::timestamptz + n * interval '1 millisecond' * ${step} as at) t;
    insert into bus.receipts (subscription_id, event_id, attempts, duration_ms, delivered_at)
    select ${subscription}, e.id, 2, 1.25, e.created_at from bus.events_${month.name} e where ('x' || right(e.id::text, 1))::bit(4)::int = 0;
    insert into bus.attempts (event_id, subscription_id, attempt, ended_at, duration_ms, succeeded, error_name, error_message, error_stack, fingerprint)
    select r.event_id, ${subscription}, 1, r.delivered_at, 0.1, false, 'Error', 'no "luck"', E'Error: no\\n  at x', 'f' from bus.receipts_${month.name} r;
    insert into bus.receipt_batches (subscription_id, event_id, last_event_id, delivered_at, event_ids, durations_ms)
    select ${subscription}, (array_agg(e.id order by e.id))[1], (array_agg(e.id order by e.id desc))[1], max(e.created_at), array_agg(e.id order by e.id),
      array_agg(0.5::real order by e.id)
    from bus.events_${month.name} e where ('x' || right(e.id::text, 1))::bit(4)::int <> 0 group by bus.receipt_span_floor(e.id);
    reset session_replication_role`)
  await rows(`analyze bus.events_${month.name}`)
}

/** Which partitions of a month are there. */
export async function partitionsOf({ rows }: Rows, { name }: PastMonth): Promise<string[]> {
  const found = await rows(
    `select c.relname::text as name from pg_class c where c.relnamespace = 'bus'::regnamespace and c.relkind = 'r' and c.relname like $1 order by 1`,
    [`%\\_${name}`],
  )
  return found.map((row) => String(row['name']))
}
