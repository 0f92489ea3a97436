import pg from 'pg'
import {
  makePayload,
  publishInBatches,
  publisherCount,
  type ThroughputResult,
  type ThroughputTask,
} from '../contestant.ts'

/**
 * The rows that any design with a log, an outbox, one job per batch and subscriber, and one receipt per event and
 * subscriber must write and delete, as plain SQL in batches: the cost of PostgreSQL itself.
 */
export async function throughput({
  url,
  eventCount,
  subscriberCount,
  payloadBytes,
}: ThroughputTask): Promise<ThroughputResult> {
  const pool = new pg.Pool({ connectionString: url, max: publisherCount })
  await pool.query(`
    create table log (id uuid primary key default gen_random_uuid(), tenant_id text not null, type text not null, payload jsonb not null, created_at timestamptz not null default now());
    create index on log (tenant_id, id desc); create index on log (type, id);
    create table outbox (position bigint generated always as identity primary key, event_id uuid not null);
    create table job (id uuid primary key default gen_random_uuid(), subscriber int not null, data jsonb not null);
    create table receipt (subscriber int not null, event_id uuid not null, delivered_at timestamptz not null default now(), primary key (subscriber, event_id));`)
  const start = performance.now()
  let publishMs = 0
  await publishInBatches(eventCount, async (from, to) => {
    const client = await pool.connect()
    const payloads = Array.from({ length: to - from }, (_, i) =>
      JSON.stringify(makePayload(from + i, payloadBytes)),
    )
    await client.query('begin')
    const { rows } = await client.query<{ id: string }>(
      `with e as (insert into log (tenant_id, type, payload) select 'tenant', 'order.placed', p::jsonb from unnest($1::text[]) p returning id)
       insert into outbox (event_id) select id from e returning event_id as id`,
      [payloads],
    )
    await client.query('commit')
    publishMs = performance.now() - start
    const ids = rows.map(({ id }) => id)
    await client.query('begin')
    await client.query('delete from outbox where event_id = any($1::uuid[])', [ids])
    const { rows: jobs } = await client.query<{ id: string }>(
      `insert into job (subscriber, data) select s, $1::jsonb from generate_series(1, $2::int) s returning id`,
      [JSON.stringify(ids), subscriberCount],
    )
    await client.query('commit')
    for (const [subscriber, { id }] of jobs.entries()) {
      await client.query('begin')
      await client.query('select id, tenant_id, type, payload from log where id = any($1::uuid[])', [ids])
      await client.query('insert into receipt (subscriber, event_id) select $1, * from unnest($2::uuid[])', [
        subscriber,
        ids,
      ])
      await client.query('delete from job where id = $1', [id])
      await client.query('commit')
    }
    client.release()
  })
  const totalMs = performance.now() - start
  await pool.end()
  return { publishMs, totalMs }
}
