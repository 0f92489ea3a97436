import { expect, test } from 'vitest'
import { readShippedDefinitions } from '../../src/doctor/schema/shipped-definitions.ts'
import { loadExpectedObjects } from '../../src/doctor/schema/expected.ts'
import { loadShippedSql } from '../../src/migrations/shipped-sql.ts'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { codesOf, findingOf, plant } from '../support/doctor.ts'
import { connect } from '../support/health.ts'
import { migrateTo, shippedMigrationCount } from '../support/migrations.ts'
import { oldServer, where } from '../support/old-server.ts'
import { createLogin } from '../support/roles.ts'

interface Described {
  readonly kind: string
  readonly name: string
  readonly problem: string
  readonly sql?: string
}

/** Each change, and what it is called. */
const mendable: readonly (readonly [change: string, object: string])[] = [
  ['drop index bus.outbox_scheduled_idx', 'index outbox outbox_scheduled_idx is missing'],
  ['drop index bus.events_type_idx', 'index events events_type_idx is missing'],
  [
    'alter table bus.events disable trigger dispatch_inserted_events',
    'trigger events dispatch_inserted_events differs',
  ],
  ['drop trigger check_source_rule on bus.source_rules', 'trigger source_rules check_source_rule is missing'],
  [
    'drop function bus.cancel_in_transaction(text, uuid, text)',
    'function cancel_in_transaction(text, uuid, text) is missing',
  ],
  [
    `create or replace function bus.name_transaction(proof text) returns text language plpgsql as $$ begin return 'x'; end $$`,
    'function name_transaction(text) differs',
  ],
  [
    `create or replace function bus.job_event_count(data jsonb) returns int language sql immutable parallel safe return 7`,
    'function job_event_count(jsonb) differs',
  ],
  [
    `create or replace function bus.uuid_v7() returns uuid language sql volatile parallel safe return gen_random_uuid()`,
    'function uuid_v7() differs',
  ],
  ['alter function bus.publish(jsonb) set search_path to public', 'function publish(jsonb) differs'],
  ['alter function bus.cancel(uuid, text) security invoker', 'function cancel(uuid, text) differs'],
  ['drop policy tenant_reads on bus.outbox', 'policy outbox tenant_reads is missing'],
  ['alter policy tenant_reads on bus.events using (true)', 'policy events tenant_reads differs'],
  ['alter table bus.outbox alter column ordering_key set default 7', 'column outbox ordering_key differs'],
  ['alter table bus.instances alter column host drop not null', 'column instances host differs'],
  ['alter table bus.catalogue alter column service type varchar(200)', 'column catalogue service differs'],
  ['alter table bus.erasures drop column reason', 'column erasures reason is missing'],
  [
    'alter table bus.subscriptions drop constraint subscriptions_name_unique',
    'constraint subscriptions subscriptions_name_unique is missing',
  ],
  [
    'alter table bus.operations drop constraint operations_state_check',
    'constraint operations operations_state_check is missing',
  ],
  ['drop view bus.v_instances', 'view v_instances is missing'],
  ['alter view bus.deliveries reset (security_barrier)', 'view deliveries differs'],
  ['create or replace view bus.v_depth as select * from bus.read_depth() limit 1', 'view v_depth differs'],
  ['alter view bus.v_lag rename column lag_seconds to lag', 'view v_lag differs'],
]

test('schema-changed: a change of any object is found, and its SQL mends it', async () => {
  const { url, rows } = await createTestDatabase()
  expect(await codesOf(url)).toEqual([])
  for (const [change] of mendable) await rows(change)
  const { data, severity, remedy } = await findingOf(url, 'schema-changed')
  expect(severity).toBe('error')
  const objects = data['objects'] as readonly Described[]
  expect(objects.map(({ kind, name, problem }) => `${kind} ${name} ${problem}`).toSorted()).toEqual(
    mendable.map(([, object]) => object).toSorted(),
  )
  expect(remedy).toContain('`sql` in the data')
  expect(remedy).toContain('npx bossbus migrate')
  for (const { sql = '' } of objects) for (const statement of splitStatements(sql)) await rows(statement)
  expect(await codesOf(url)).toEqual(['privileges-missing'])
  await testBus(url).migrate()
  expect(await codesOf(url)).toEqual([])
})

/** The statements of a remedy. Building an index beside writes is possible only outside of a transaction. */
function splitStatements(sql: string): readonly string[] {
  return sql.includes('$body$') ? [sql] : sql.split('; ')
}

test('schema-changed: one change has its SQL in the remedy', async () => {
  const { url, rows } = await createTestDatabase()
  const finding = await plant(url, 'schema-changed', async () =>
    rows('alter table bus.events enable replica trigger dispatch_inserted_events'),
  )
  expect(finding.message).toContain('(trigger events dispatch_inserted_events differs)')
  expect(finding.remedy).toBe(
    'As the owner of the schema: alter table bus."events" enable trigger "dispatch_inserted_events";',
  )
})

test('schema-changed: what no statement brings back', async () => {
  const { url, rows } = await createTestDatabase()
  const finding = await plant(url, 'schema-changed', async () => {
    await rows('alter table bus.outbox set unlogged')
    await rows('drop table bus.canaries')
    await rows('alter sequence bus.subscription_revision cache 5')
  })
  expect(finding.data).toMatchObject({ count: 3 })
  expect(finding.remedy).toBe(
    'No statement brings back table canaries, table outbox, sequence subscription_revision: restore a backup.',
  )
})

const additions: readonly (readonly [change: string, object: string])[] = [
  ['alter table bus.events add column extra text', 'column events extra was added'],
  [
    'alter table bus.receipts add constraint attempts_positive check (attempts > 0) not valid',
    'constraint receipts attempts_positive was added',
  ],
  ['create policy everything on bus.outbox using (true)', 'policy outbox everything was added'],
  [
    'create rule nothing as on insert to bus.event_keys do instead nothing',
    'rule event_keys nothing was added',
  ],
  [
    'create function public.mine() returns trigger language plpgsql as $$ begin return null; end $$; create trigger mine after insert on bus.events for each row execute function public.mine()',
    'trigger events mine was added',
  ],
]

test('schema-extended: what somebody has added to tables of the bus', async () => {
  const { url, rows } = await createTestDatabase()
  const finding = await plant(url, 'schema-extended', async () => {
    for (const [change] of additions) await rows(change)
  })
  expect(finding.severity).toBe('warning')
  const objects = finding.data['objects'] as readonly Described[]
  expect(objects.map(({ kind, name, problem }) => `${kind} ${name} ${problem}`).toSorted()).toEqual(
    additions.map(([, object]) => object).toSorted(),
  )
  for (const { sql = '' } of objects) await rows(sql)
  expect(await codesOf(url)).toEqual([])
})

test('objects-added and storage-changed are for information', async () => {
  const { url, rows } = await createTestDatabase()
  const added = await plant(url, 'objects-added', async () => {
    await rows('create index mine on bus.events (created_at)')
    await rows('create view bus.mine_too as select 1 as one')
    await rows('create table bus.notes (id int primary key)')
  })
  expect(added).toMatchObject({ severity: 'info', data: { count: 3 } })
  const changed = await plant(url, 'storage-changed', async () =>
    rows('alter table bus.outbox set (fillfactor = 50, autovacuum_vacuum_cost_limit = 500)'),
  )
  expect(changed.severity).toBe('info')
  const [described] = changed.data['objects'] as readonly Described[]
  for (const statement of splitStatements(described?.sql ?? '')) await rows(statement)
  expect(await codesOf(url)).toEqual(['objects-added'])
})

test('each function and view of the schema has its statement in the migrations', async () => {
  const { migrations } = await loadShippedSql()
  const { functionSql, viewSql } = readShippedDefinitions(migrations, 'pgboss')
  const expected = await loadExpectedObjects()
  const functions = Object.entries(expected.function)
  expect(functions.length).toBeGreaterThan(100)
  expect(functions.filter(([name, definition]) => functionSql(name, definition) === undefined)).toEqual([])
  expect(Object.keys(expected.view).filter((name) => viewSql(name) === undefined)).toEqual([])
})

test('a database whose pg-boss has another schema is as it should be, and a change of a function is found there too', async () => {
  const { url, rows } = await createTestDatabase({ empty: true })
  const bossSchema = 'Bus jobs'
  await testBus(url, { bossSchema }).migrate()
  expect(await codesOf(url, { bossSchema })).toEqual([])
  const body = `create or replace function bus.find_jobs(of_id uuid, max_count int) returns table (queue text, job_id uuid, state text, source_root_id uuid, event_ids jsonb, event_count int) language plpgsql as $$ begin end $$`
  await rows('drop function bus.find_jobs(uuid, int)')
  await rows(body)
  const [described] = (await findingOf(url, 'schema-changed', { bossSchema })).data[
    'objects'
  ] as readonly Described[]
  expect(described?.sql).toContain('"Bus jobs".')
})

test('a schema that is missing, older, newer, of other files, or whose pg-boss is elsewhere', async () => {
  const empty = await createTestDatabase({ empty: true })
  expect(await findingOf(empty.url, 'schema-missing')).toMatchObject({ remedy: 'npx bossbus migrate' })

  const older = await createTestDatabase({ empty: true })
  await migrateTo(older.url, shippedMigrationCount() - 1)
  expect(await findingOf(older.url, 'schema-outdated')).toMatchObject({ remedy: 'npx bossbus migrate' })
  expect(await codesOf(older.url)).not.toContain('schema-changed')

  const { url, rows } = await createTestDatabase()
  expect((await findingOf(url, 'boss-schema-mismatch', { bossSchema: 'jobs' })).message).toContain('`pgboss`')
  await plant(url, 'schema-too-new', async () =>
    rows(`insert into bus.migrations (hash, created_at) values ('x', 9999999999999)`),
  )
  await plant(url, 'schema-unknown', async () =>
    rows(`update bus.migrations set hash = 'y' where id = 3; delete from bus.migrations where hash = 'x'`),
  )
})

test('pg-boss that is missing, older, or not as the bus needs it', async () => {
  const { url, rows } = await createTestDatabase()
  expect(
    await plant(url, 'boss-schema-outdated', async () => rows('update pgboss.version set version = 40')),
  ).toMatchObject({ severity: 'error', remedy: 'npx bossbus migrate' })
  await plant(url, 'boss-schema-unsupported', async () => rows('update pgboss.version set version = 20'))
  await rows('update pgboss.version set version = 46')
  const changed: TestDatabase = await createTestDatabase()
  await plant(changed.url, 'boss-schema-unsupported', async () =>
    changed.rows('alter table pgboss.job rename column output to result'),
  )
  await plant(url, 'boss-schema-missing', async () => rows('drop schema pgboss cascade'))
})

test('boss-schema-changed: what pg-boss finds itself', async () => {
  const { url, rows } = await createTestDatabase()
  const [index] = await rows(
    `select indexname as name from pg_indexes where schemaname = 'pgboss' and tablename = 'job_common' and indexname like '%\\_i%' order by 1 limit 1`,
  )
  const finding = await plant(url, 'boss-schema-changed', async () => {
    await rows(`drop index pgboss."${String(index?.['name'])}"`)
    await rows('alter table pgboss.schedule add column mine text')
    await rows(
      'create or replace function pgboss.delete_queue(queue_name text) returns void language plpgsql as $$ begin end $$',
    )
  })
  expect(finding).toMatchObject({ severity: 'error', data: { count: 3 } })
  const objects = finding.data['objects'] as readonly Described[]
  expect(objects.map(({ name, problem }) => `${name} ${problem}`)).toEqual([
    `index ${String(index?.['name'])} is missing`,
    'function delete_queue differs',
    'column schedule.mine was added',
  ])
  for (const { sql } of objects) if (sql !== undefined) await rows(sql)
  await rows('alter table pgboss.schedule drop column mine')
  expect(await codesOf(url)).toEqual([])
})

test('boss-builds-unfinished: what pg-boss builds after an update', async () => {
  const { url, rows } = await createTestDatabase()
  const finding = await plant(url, 'boss-builds-unfinished', async () =>
    rows(
      `insert into pgboss.bam (name, version, status, table_name, command, error) values ('idx', 46, 'failed', 'job_common', 'create index concurrently x on pgboss.job_common (id)', 'deadlock')`,
    ),
  )
  expect(finding.remedy).toContain('create index concurrently x')
})

test('index-invalid: an index whose building was interrupted', async () => {
  const { url, rows } = await createTestDatabase()
  const finding = await plant(url, 'index-invalid', async () =>
    rows(`update pg_index set indisvalid = false where indexrelid = 'bus.outbox_due_idx'::regclass`),
  )
  expect(finding.remedy).toContain('reindex index concurrently bus.outbox_due_idx;')
  await rows('reindex index concurrently bus.outbox_due_idx')
  expect(await codesOf(url)).toEqual([])
})

test('an index that is being built is no finding, whoever examines', async () => {
  const database = await createTestDatabase()
  const login = await createLogin(database, ['bus_worker', 'bus_tenant'])
  const holder = await connect(database, 'a report')
  await holder.query(
    'begin isolation level repeatable read; insert into bus.source_rules (role, source, type) values (current_user, $$s$$, $$note$$)',
  )
  const building = database.rows('create index concurrently mine on bus.source_rules (type)')
  await until(
    'it waits for the transaction',
    async () => (await database.count(`select count(*) from pg_index where not indisvalid`)) === 1,
  )
  expect(await codesOf(database.url)).toEqual(['objects-added'])
  expect(await codesOf(login.url)).not.toContain('index-invalid')
  await holder.query('rollback')
  await building
})

test('index-bloated: the indexes of jobs after a backlog', async () => {
  const { url, rows } = await createTestDatabase({ empty: true })
  const bus = testBus(url)
  bus.subscribe({ name: 'steady', events: ['note'], handler: () => {} })
  await bus.migrate()
  const finding = await plant(url, 'index-bloated', async () => {
    await rows(
      `insert into pgboss.job (name, data) select 'bus.steady.dead', '{}' from generate_series(1, 30000)`,
    )
    await rows('delete from pgboss.job')
    await rows('vacuum (analyze) pgboss.job_common')
  })
  expect(finding.severity).toBe('info')
  for (const command of finding.data['commands'] as readonly string[]) await rows(command)
  expect(await codesOf(url)).not.toContain('index-bloated')
})

test.skipIf(oldServer === undefined)(`an older server has the same objects ${where}`, async () => {
  const { url, rows } = await createTestDatabase({ serverUrl: oldServer?.url, empty: true })
  await testBus(url).migrate()
  const codes = await codesOf(url)
  expect(codes.filter((code) => /^(?:schema|objects|storage|privileges|boss)/.test(code))).toEqual([])
  await rows('drop index bus.events_type_idx')
  await findingOf(url, 'schema-changed')
})
