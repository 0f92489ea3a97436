import { expect, onTestFinished, test } from 'vitest'
import { publish, retryAtOnce } from '../support/ledger.ts'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { codesOf, findingOf, plant } from '../support/doctor.ts'
import { connect, note, startBus } from '../support/health.ts'

test('what bus.health() knows is found without a bus', async () => {
  const database = await createTestDatabase()
  const { url, rows } = database
  const bus = await startBus(database)
  await until('it is registered', async () => (await codesOf(url)).length === 0)
  await bus.subscriptions.pause('steady', { by: 'ana', reason: 'a look' })
  expect((await findingOf(url, 'subscription-paused')).data).toMatchObject({
    subscriptions: [{ pausedBy: 'ana' }],
  })
  await bus.subscriptions.resume('steady')
  await rows(
    `insert into bus.instances (id, service, host, pid, version, seen_at, relay, declarations) values
       (gen_random_uuid(), 'shop', 'host-1', 17, '0.0.1', now() - interval '100 seconds', 'awake', '{}'),
       (gen_random_uuid(), 'shop', 'host-2', 18, '0.0.2', now(), 'failing', '{}'),
       (gen_random_uuid(), 'shop', 'host-3', 19, '0.0.2', now(), 'polling', '{}')`,
  )
  await rows(
    `insert into bus.operations (kind, state, actor, state_reason, selection, subscription_ids)
     values ('redrive', 'stopped', 'ana', 'the first five failed again', '{}', '{}')`,
  )
  await rows(
    `insert into bus.canaries (event_id, service, is_scheduled, failed_step) values (gen_random_uuid(), 'shop', true, 'worker')`,
  )
  await rows(
    `insert into bus.failing (subscription_id, event_id, state, attempts, job_id) select id, gen_random_uuid(), 'dead', 1, gen_random_uuid() from bus.subscriptions`,
  )
  expect(await codesOf(url)).toEqual([
    'canary-failing',
    'relay-failing',
    'instance-lost',
    'operation-stopped',
    'dead-letters-growing',
    'notifications-lost',
    'versions-differ',
    'dead-letters-waiting',
  ])
  expect((await findingOf(url, 'relay-failing')).message).toContain('host-2')
  expect((await findingOf(url, 'notifications-lost')).message).toContain('host-3')
})

test('old-transaction: with the statement that ends it', async () => {
  const database = await createTestDatabase()
  const client = await connect(database, 'a report')
  await client.query('begin isolation level repeatable read; select 1')
  const { rows } = await client.query<{ pid: number }>('select pg_backend_pid() as pid')
  expect(await codesOf(database.url)).toEqual([])
  const limit = { transactionLimitSeconds: 1 }
  await until('it is old', async () => (await codesOf(database.url, limit)).includes('old-transaction'))
  const { remedy } = await findingOf(database.url, 'old-transaction', limit)
  expect(remedy).toContain(`select pg_terminate_backend(${rows[0]?.pid});`)
})

test('subscription-unserved: with the events that wait', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({ name: 'steady', events: ['note'], handler: () => {} })
  await bus.migrate()
  await bus.start()
  await bus.stop()
  const finding = await findingOf(database.url, 'subscription-unserved')
  expect(finding).toMatchObject({ severity: 'warning', data: { waiting: { steady: 0 } } })
  await database.rows(
    `insert into pgboss.job (name, data) values ('bus.steady', '{"eventIds": ["a", "b", "c"]}')`,
  )
  expect(await findingOf(database.url, 'subscription-unserved')).toMatchObject({
    severity: 'error',
    data: { waiting: { steady: 3 } },
  })
})

test('relay-behind, partitions-missing and default-partition-used', async () => {
  const { url, rows } = await createTestDatabase()
  const [month] = await rows(
    `select c.relname as name from pg_inherits i join pg_class c on c.oid = i.inhrelid
     where i.inhparent = 'bus.events'::regclass and c.relname ~ '^events_2' order by 1 desc limit 1`,
  )
  await plant(url, 'partitions-missing', async () => rows(`drop table bus.${String(month?.['name'])}`))
  await plant(url, 'default-partition-used', async () =>
    rows(
      `insert into bus.events (id, tenant_id, type, source, payload, created_at)
       select overlay(bus.uuid_v7_floor(t)::text placing '7' from 15)::uuid, 'acme', 'note', 'sql', '1', t from (select timestamptz '2020-05-05' as t) x`,
    ),
  )
  expect(await codesOf(url)).toContain('relay-behind')
})

test('registry-incomplete: a registry of an older state than its processes', async () => {
  const { url, rows } = await createTestDatabase()
  const finding = await plant(url, 'registry-incomplete', async () =>
    rows(
      `insert into bus.instances (id, service, host, pid, version, seen_at, relay, declarations)
       values (gen_random_uuid(), 'shop', 'host', 1, '0.1.0', now(), 'awake', '{42}')`,
    ),
  )
  expect(finding.severity).toBe('error')
})

test('declaration-abandoned: an earlier declaration that no process has', async () => {
  const database = await createTestDatabase()
  await startBus(database)
  const finding = await plant(database.url, 'declaration-abandoned', async () =>
    database.rows(
      `insert into bus.declarations (subscription_id, hash, patterns, options) select id, 'x', '{order.placed}', '{}' from bus.subscriptions`,
    ),
  )
  expect(finding).toMatchObject({
    severity: 'info',
    data: { declarations: [{ subscription: 'steady', events: ['order.placed'] }] },
  })
})

test('queue-missing and queue-orphaned: queues and subscriptions that have lost each other', async () => {
  const database = await createTestDatabase()
  const { url, rows } = database
  await startBus(database)
  const orphaned = await plant(url, 'queue-orphaned', async () => {
    await rows(`select pgboss.create_queue('bus.gone', '{"policy": "standard", "partition": false}')`)
    await rows(`insert into pgboss.job (name, data) values ('bus.gone', '{"eventIds": ["a"]}')`)
  })
  expect(orphaned).toMatchObject({ data: { queues: [{ name: 'bus.gone', jobCount: 1 }], jobCount: 1 } })
  expect(orphaned.remedy).toContain(`select pgboss.delete_queue('bus.gone');`)
  // While an operation removes the subscription, it has the queue.
  await rows(
    `insert into bus.operations (kind, state, actor, selection, options, subscription_ids) values ('remove', 'paused', 'ana', '{}', '{"name": "gone"}', '{}')`,
  )
  expect(await codesOf(url)).toEqual([])
  await rows(`update bus.operations set state = 'cancelled'`)
  await rows(`delete from pgboss.job where name = 'bus.gone'`)
  await rows(`select pgboss.delete_queue('bus.gone')`)
  const missing = await plant(url, 'queue-missing', async () =>
    rows(
      `insert into bus.subscriptions (name, service, patterns, options) values ('bare', 'shop', '{note}', '{}')`,
    ),
  )
  expect(missing.data).toEqual({ queues: ['bus.bare', 'bus.bare.dead'] })
})

test('sequences-behind: a copy without the values of its sequences', async () => {
  const { url, rows } = await createTestDatabase()
  await rows(
    `insert into bus.subscriptions (name, service, patterns, options) select 's' || n, 'shop', '{note}', '{}' from generate_series(1, 9) n`,
  )
  await rows(
    `insert into bus.events (tenant_id, type, source, payload) select 'acme', 'note', 'sql', '1' from generate_series(1, 20)`,
  )
  const finding = await plant(url, 'sequences-behind', async () => {
    await rows(`select setval('bus.outbox_position_seq', 3), setval('bus.subscriptions_id_seq', 1, false)`)
  })
  expect(finding.severity).toBe('error')
  expect(finding.data['sequences']).toMatchObject([
    { name: 'bus.outbox_position_seq', next: '4' },
    { name: 'bus.subscriptions_id_seq', next: '1', highest: '9' },
  ])
  await rows('select * from bus.repair_sequences()')
  expect(await codesOf(url)).not.toContain('sequences-behind')
})

test('dead-rows: what autovacuum does not keep up with', async () => {
  const { url, rows } = await createTestDatabase()
  const finding = await plant(url, 'dead-rows', async () => {
    await rows('alter table bus.source_rules set (autovacuum_enabled = off)')
    await rows('alter table bus.source_rules disable trigger check_source_rule')
    await rows(
      `insert into bus.source_rules (role, source, type) select 'nobody', 's' || n, 'note' from generate_series(1, 30000) n`,
    )
    await rows('delete from bus.source_rules')
    await until('it is counted', async () => (await codesOf(url)).includes('dead-rows'))
  })
  expect(finding.data['tables']).toMatchObject([{ name: 'bus.source_rules', dead: 30_000, live: 0 }])
  expect(finding.remedy).toContain('vacuum (analyze) bus.source_rules;')
  await rows('vacuum (analyze) bus.source_rules')
  await until('it is counted', async () => !(await codesOf(url)).includes('dead-rows'))
})

test('dead rows since a vacuum of just now are those of a busy table', async () => {
  const { url, rows, count } = await createTestDatabase()
  await rows('alter table bus.source_rules set (autovacuum_enabled = off)')
  await rows('alter table bus.source_rules disable trigger check_source_rule')
  await rows('vacuum bus.source_rules')
  await rows(
    `insert into bus.source_rules (role, source, type) select 'nobody', 's' || n, 'note' from generate_series(1, 30000) n`,
  )
  await rows('delete from bus.source_rules')
  await until(
    'they are counted',
    async () =>
      (await count(
        `select n_dead_tup from pg_stat_all_tables where relid = 'bus.source_rules'::regclass`,
      )) === 30_000,
  )
  expect(await codesOf(url)).not.toContain('dead-rows')
})

test('keys-blocked and dead-letters-waiting: what waits for a person', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  onTestFinished(async () => bus.stop())
  bus.subscribe({
    ...{ name: 'in-order', events: ['note'], ordered: true, retry: { ...retryAtOnce, maxAttempts: 1 } },
    circuitBreaker: false,
    handler: () => {
      throw new Error('refused')
    },
  })
  await bus.start()
  await publish(database, bus, { ...note, orderingKey: 'a' }, { ...note, orderingKey: 'b' })
  await until('both keys are blocked', async () => (await bus.blockedKeys.list()).length === 2)
  expect(await findingOf(database.url, 'keys-blocked')).toMatchObject({
    severity: 'warning',
    data: { count: 2, subscriptions: [{ name: 'in-order', count: 2 }] },
  })
  expect(await findingOf(database.url, 'dead-letters-waiting')).toMatchObject({
    severity: 'info',
    data: { count: 2 },
  })
})

test('operation-stalled: an operation that no process goes on with', async () => {
  const { url, rows } = await createTestDatabase()
  const finding = await plant(url, 'operation-stalled', async () =>
    rows(
      `insert into bus.operations (kind, actor, selection, subscription_ids, next_part_at) values ('replay', 'ana', '{}', '{}', now() - interval '10 minutes')`,
    ),
  )
  expect(finding.data['operations']).toMatchObject([{ kind: 'replay', actor: 'ana' }])
})

test('erasure-unfinished and archive-rewrite-overdue: without the subject', async () => {
  const { url, rows } = await createTestDatabase()
  const finding = await plant(url, 'erasure-unfinished', async () =>
    rows(
      `insert into bus.erasures (tenant_id, subject, erased_by, started_at) values ('acme', 'ada@example.com', 'ana', now() - interval '1 hour')`,
    ),
  )
  expect(JSON.stringify(finding)).not.toContain('ada@')
  await plant(url, 'archive-rewrite-overdue', async () =>
    rows(
      `insert into bus.archive_erasures (archive_id, file, tenant_id, subject, requested_at) values (gen_random_uuid(), 'events.ndjson.gz', 'acme', 'ada@example.com', now() - interval '2 days')`,
    ),
  )
  // A later call has finished the work of the earlier one.
  await rows(
    `insert into bus.erasures (tenant_id, subject, erased_by, finished_at) values ('acme', 'ada@example.com', 'ana', now())`,
  )
  await rows('update bus.archive_erasures set rewritten_at = now()')
  expect(await codesOf(url)).toEqual([])
})

test('retention-failing and retention-overdue: what the policy says should be gone', async () => {
  const { url, rows } = await createTestDatabase()
  await plant(url, 'retention-failing', async () =>
    rows(`update bus.retention_state set round_ended_at = now(), error = 'the bucket is not there'`),
  )
  await rows('update bus.retention_state set error = null')
  await rows(`insert into bus.retention_policies (service, policy) values ('shop', '{"logDays": 30}')`)
  expect(await codesOf(url)).toEqual([])
  const inSixMonths = { now: () => new Date(Date.now() + 180 * 86_400_000) }
  expect(await codesOf(url, inSixMonths)).not.toContain('retention-overdue')
  await rows(
    `create table bus.events_2020_01 partition of bus.events for values from ('016f5e66-e800-0000-0000-000000000000') to ('016ffe0c-4400-0000-0000-000000000000')`,
  )
  await rows('alter table bus.events_2020_01 enable row level security')
  const finding = await findingOf(url, 'retention-overdue')
  expect(finding.data).toMatchObject({ range: '2020_01', holds: [] })
})
