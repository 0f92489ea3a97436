import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, type TestDatabase } from '../support/database.ts'
import { createLogin, outcomesOf } from '../support/roles.ts'

/** How each view is read, with the conditions that it needs. */
const reads: Readonly<Record<string, string>> = {
  v_active: 'select * from bus.v_active',
  v_blocked_keys: 'select * from bus.v_blocked_keys',
  v_dead_by_error: 'select * from bus.v_dead_by_error',
  v_depth: 'select * from bus.v_depth',
  v_events_by_key: `select * from bus.v_events_by_key where tenant_id = 'tenant-3' and key = 'pay_3'`,
  read_events_by_key: `select * from bus.read_events_by_key('flow 3', 'tenant-3')`,
  v_instances: 'select * from bus.v_instances',
  v_lag: 'select * from bus.v_lag',
  v_latency: `select * from bus.v_latency where time > now() - interval '1 hour'`,
  v_recent_failures: 'select * from bus.v_recent_failures',
  v_retries: 'select * from bus.v_retries',
  v_scheduled: 'select * from bus.v_scheduled',
  v_storage: 'select * from bus.v_storage',
  v_subscription_state: 'select * from bus.v_subscription_state',
  v_tenants: 'select * from bus.v_tenants',
  v_throughput: `select * from bus.v_throughput where time > now() - interval '1 hour'`,
}

/** Subscriptions with their queues, and partitions of three years. */
async function makeDatabase(subscriptionCount: number): Promise<TestDatabase> {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  for (let n = 0; n < subscriptionCount; n += 1)
    bus.subscribe({ name: `s${n}`, events: ['note'], handler: () => {} })
  await bus.start()
  await bus.stop()
  await database.rows(`do $$ declare month timestamp; parent text; begin
    for month in select generate_series(date_trunc('month', now() at time zone 'utc') - interval '36 months',
      date_trunc('month', now() at time zone 'utc') - interval '2 months', interval '1 month') loop
      foreach parent in array array['events', 'attempts'] loop
        execute format('create table bus.%I partition of bus.%I for values from (%L) to (%L)', parent || to_char(month, '_YYYY_MM'), parent,
          bus.uuid_v7_floor(month at time zone 'utc'), bus.uuid_v7_floor((month + interval '1 month') at time zone 'utc'));
      end loop;
    end loop; end $$`)
  return database
}

/** A client of the test's own, for settings of a session. */
async function connect(url: string): Promise<pg.Client> {
  const client = new pg.Client(url)
  await client.connect()
  onTestFinished(async () => client.end())
  return client
}

/** Events of three months, and what has become of the last ones: enough that reading a table in full would cost more than its index. */
async function fill(client: pg.Client): Promise<void> {
  await client.query('set session_replication_role = replica; set synchronous_commit = off')
  await client.query(
    `create unlogged table public.ids as
     select n, (substr(bus.uuid_v7_floor(now() - (60000 - n) * interval '2 minutes')::text, 1, 14) || '7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid as id
     from generate_series(1, 60000) n`,
  )
  const statements = [
    `insert into bus.events (id, tenant_id, type, source, payload, correlation_id, subject)
     select id, 'tenant-' || n % 100, 'note', 'psql', '1', 'flow ' || n, 'subject ' || n from public.ids`,
    `insert into bus.event_keys (tenant_id, kind, key, event_id) select 'tenant-' || n % 100, 'event_id', 'pay_' || n, id from public.ids`,
    // Most jobs of the queue are done: what waits is a small part.
    `insert into pgboss.job (name, data, state, policy, start_after, started_on, completed_on, singleton_key)
     select 'bus.s0', jsonb_build_object('eventIds', jsonb_build_array(id)), case when n > 59000 then 'created' when n > 58990 then 'active' else 'completed' end::pgboss.job_state,
       'standard', now() - interval '1 minute', now() - interval '1 minute', case when n <= 58990 then now() end, '*'
     from public.ids`,
    `insert into bus.attempts (event_id, subscription_id, attempt, ended_at, duration_ms, succeeded, error_name, error_message, fingerprint)
     select id, 1 + n % 3, 1, now() - (60000 - n) * interval '2 minutes', 5, n % 5 = 0, 'Error', 'no answer ' || n % 9, 'f' || n % 9 from public.ids`,
    `insert into bus.failing (subscription_id, event_id, state, attempts, tenant_id, fingerprint, error_name, job_id, failed_at, next_attempt_at)
     select 1, id, case when n % 2 = 0 then 'dead' else 'retrying' end, 1, 'tenant-' || n % 100, 'f' || n % 9, 'Error', gen_random_uuid(),
       now() - (60000 - n) * interval '1 second', case when n % 2 = 1 then now() + n * interval '1 second' end
     from public.ids where n > 10000`,
    `insert into bus.outbox (position, event_id, tenant_id, type, available_at) overriding system value
     select case when n % 2 = 0 then n else 4611686018427387904 + n end, id, 'tenant-' || n % 100, 'note', case when n % 2 = 1 then now() + n * interval '1 second' end
     from public.ids where n > 10000`,
    `insert into bus.ordered_keys (id, subscription_id, key_hash, tenant_id, ordering_key, state, failed_event_id, attempts, failed_at)
     select n, 1, gen_random_uuid(), 'tenant-' || n % 100, 'k' || n, case when n % 50 = 0 then 'blocked' else 'active' end,
       case when n % 50 = 0 then id end, case when n % 50 = 0 then 1 end, case when n % 50 = 0 then now() end
     from public.ids where n > 40000`,
    `insert into bus.ordered_events (key_id, event_id, payload_bytes) select n, id, 2 from public.ids where n > 40000`,
    `insert into bus.rollups (minute, subscription_id, instance_id, delivered, wait_bins, run_bins)
     select date_trunc('minute', now()) - m * interval '1 minute', s, gen_random_uuid(), 5, '{0,5}', '{5}'
     from generate_series(1, 20000) m, generate_series(0, 2) s`,
  ]
  for (const statement of statements) await client.query(statement)
  await client.query('drop table public.ids')
  await client.query('reset session_replication_role')
  await client.query('vacuum analyze')
}

test('no view reads a table of the log, the ledger or the queues in full', async () => {
  const { url, rows } = await makeDatabase(3)
  await fill(await connect(url))
  // The functions switch it off, for tables without statistics. Here the planner has a choice.
  for (const { name } of await rows(
    `select oid::regprocedure::text as name from pg_proc
     where pronamespace = 'bus'::regnamespace and 'enable_seqscan=off' = any (proconfig) and proname like 'read\\_%'`,
  ))
    await rows(`alter function ${String(name)} reset enable_seqscan`)
  const found: Record<string, unknown> = {}
  // An empty table proves nothing.
  const empty: string[] = []
  for (const [name, read] of Object.entries(reads)) {
    const client = await connect(url)
    await client.query('begin')
    const { rowCount } = await client.query(read)
    const { rows: scans } = await client.query<{ relname: string; seq_tup_read: string }>(
      `select relname, seq_tup_read from pg_stat_xact_all_tables where schemaname in ('bus', 'pgboss') and seq_tup_read > 200`,
    )
    await client.query('rollback')
    found[name] = scans
    if (rowCount === 0) empty.push(name)
  }
  expect(empty).toEqual(['v_instances'])
  expect(found).toEqual(Object.fromEntries(Object.keys(reads).map((name) => [name, []])))
  // What it would look like.
  const client = await connect(url)
  await client.query(`begin; select count(*) from bus.attempts where error_name = 'none'`)
  expect(
    (
      await client.query(
        `select from pg_stat_xact_all_tables where schemaname = 'bus' and relname like 'attempts%' and seq_tup_read > 200`,
      )
    ).rowCount,
  ).toBeGreaterThan(0)
})

test('counts stop at their caps, and say so', async () => {
  const { url, rows } = await makeDatabase(1)
  const client = await connect(url)
  await client.query('set session_replication_role = replica')
  const batch = `jsonb_build_object('eventIds', (select jsonb_agg(gen_random_uuid()) from generate_series(1, 100 + 0 * n)))`
  await client.query(
    `insert into pgboss.job (name, data, policy, singleton_key) select 'bus.s0', ${batch}, 'standard', '*' from generate_series(1, 2500) n`,
  )
  const { queries } = testBus(url)
  const [batches] = await queries.depth()
  // Of the last 500, one event each.
  expect(batches).toMatchObject({ readyJobs: 2500, readyEvents: 200_500, isPartial: true })
  await rows('delete from pgboss.job')
  await client.query(
    `insert into pgboss.job (name, data, policy) select 'bus.s0', jsonb_build_object('eventIds', jsonb_build_array(gen_random_uuid())), 'standard' from generate_series(1, 9000) n`,
  )
  expect(await queries.depth({ subscription: 's0' })).toMatchObject([
    { readyJobs: 9000, readyEvents: 9000, isPartial: false },
  ])
  await client.query(
    `insert into pgboss.job (name, data, policy) select 'bus.s0', '{"eventIds": 7}', 'standard' from generate_series(1, 2000) n`,
  )
  expect(await queries.depth({ subscription: 's0' })).toMatchObject([{ readyJobs: 10_000, isPartial: true }])
  expect(await queries.tenants()).toEqual([])
  await client.query(
    `insert into bus.ordered_keys (id, subscription_id, key_hash, tenant_id, ordering_key, state, failed_event_id, failed_at)
     select 1, id, gen_random_uuid(), 'acme', 'k', 'blocked', gen_random_uuid(), now() from bus.subscriptions;
     insert into bus.ordered_events (key_id, event_id, payload_bytes) select 1, gen_random_uuid(), 2 from generate_series(1, 12000)`,
  )
  expect(await queries.blockedKeys()).toMatchObject([{ behindEvents: 10_000, isPartial: true }])
})

test('with many subscriptions and months no view holds more than 64 locks', async () => {
  const { url, rows } = await makeDatabase(40)
  const { queries } = testBus(url)
  // Each queue has a job, and three months have failures.
  await rows(
    `insert into pgboss.job (name, data, policy, singleton_key)
     select 'bus.' || name, jsonb_build_object('eventIds', jsonb_build_array(bus.uuid_v7())), 'standard', '*' from bus.subscriptions`,
  )
  await rows(
    `insert into bus.failing (subscription_id, event_id, state, attempts, fingerprint, job_id)
     select s.id, bus.uuid_v7_floor(now() - m * interval '1 month'), 'dead', 1, 'f' || m, gen_random_uuid() from bus.subscriptions s, generate_series(0, 30) m`,
  )
  await rows(
    `insert into bus.attempts (event_id, subscription_id, attempt, ended_at, succeeded, error_message, fingerprint)
     select event_id, subscription_id, 1, now(), false, 'no answer', fingerprint from bus.failing`,
  )
  // Counts the locks of the transaction within read_each, where it has the most, and once more when the statement is done.
  const [source] = await rows(`select pg_get_functiondef('bus.read_each'::regproc) as text`)
  const measured = String(source?.['text'])
    .replace('at_once constant int := 3;', 'at_once constant int := 3; locks int;')
    .replace(
      'raise exception using',
      `locks := (select count(*) from pg_locks where pid = pg_backend_pid() and locktype = 'relation'); raise exception using`,
    )
    .replace(
      'return query',
      `perform set_config('test.locks', greatest(current_setting('test.locks', true)::int, locks)::text, false); return query`,
    )
  await rows(measured)
  const most: Record<string, number> = {}
  for (const [name, read] of Object.entries(reads)) {
    const client = await connect(url)
    await client.query(`set test.locks = 0`)
    await client.query('begin')
    await client.query(read)
    const { rows: counted } = await client.query<{ within: string; after: number }>(
      `select current_setting('test.locks') as within,
         (select count(*)::int from pg_locks where pid = pg_backend_pid() and locktype = 'relation') as after`,
    )
    await client.query('rollback')
    most[name] = Math.max(Number(counted[0]?.within), counted[0]?.after ?? Number.NaN)
  }
  expect(Object.entries(most).filter(([, locks]) => !(locks <= 64))).toEqual([])
  // It did count those of queues.
  expect(most['v_depth']).toBeGreaterThan(40)
  expect(await queries.depth()).toHaveLength(41)
  expect((await queries.deadByError()).every(({ errorMessage }) => errorMessage === 'no answer')).toBe(true)
})

test('bus_operator reads every view, and no other role of the bus does', async () => {
  const database = await makeDatabase(1)
  const operator = await createLogin(database, ['bus_operator'])
  for (const read of Object.values(reads)) await operator.rows(read)
  const { queries } = testBus(operator.url)
  expect(await queries.depth()).toHaveLength(2)
  for (const role of ['bus_tenant', 'bus_publisher', 'bus_worker']) {
    const login = await createLogin(database, [role])
    expect(await outcomesOf(login, Object.values(reads))).toEqual(
      Object.fromEntries(Object.values(reads).map((read) => [read, '42501'])),
    )
  }
})

test('whoever is granted a view besides reads only the rows of the tenant that is set', async () => {
  const database = await makeDatabase(1)
  await database.rows(
    `insert into bus.outbox (event_id, tenant_id, type, available_at)
     select bus.uuid_v7(), tenant, 'note', now() + interval '1 hour' from unnest(array['acme', 'rival']) tenant;
     insert into bus.event_keys (tenant_id, kind, key, event_id)
     select tenant, 'event_id', 'pay_1', bus.uuid_v7() from unnest(array['acme', 'rival']) tenant;
     insert into bus.rollups (minute, subscription_id, instance_id, published, wait_bins, run_bins) values (now(), 0, bus.uuid_v7(), 1, '{}', '{}');
     insert into bus.rollups (minute, subscription_id, instance_id, delivered, wait_bins, run_bins) values (now(), 1, bus.uuid_v7(), 1, '{1}', '{1}')`,
  )
  const login = await createLogin(database)
  await database.rows(`grant usage on schema bus to ${login.name};
    grant select on bus.outbox, bus.v_scheduled, bus.v_events_by_key, bus.v_throughput, bus.v_latency, bus.v_tenants to ${login.name};
    grant execute on function bus.read_scheduled, bus.read_tenants to ${login.name}`)
  const client = await connect(login.url)
  const tenantsOf = async (view: string) =>
    (await client.query<{ tenant_id: string }>(`select tenant_id from bus.${view}`)).rows.map(
      (row) => row.tenant_id,
    )
  expect(await tenantsOf('v_scheduled')).toEqual([])
  expect(await tenantsOf('v_events_by_key')).toEqual([])
  await client.query(`set bus.tenant_id = 'acme'`)
  expect(await tenantsOf('v_scheduled')).toEqual(['acme'])
  expect(await tenantsOf('v_events_by_key')).toEqual(['acme'])
  for (const view of ['v_throughput', 'v_latency'])
    expect((await client.query(`select from bus.${view}`)).rowCount).toBe(0)
  // It reads other tables too, which were not granted.
  await expect(tenantsOf('v_tenants')).rejects.toMatchObject({ code: '42501' })
  // As the owner, both have rows.
  expect(await database.count('select count(*) from bus.v_throughput')).toBe(5)
  expect(await database.count('select count(*) from bus.v_latency')).toBe(2)
})
