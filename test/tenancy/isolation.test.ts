import { expect, test } from 'vitest'
import { recordingLogger, testBus } from '../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { createLogin } from '../support/roles.ts'
import { openSession, type Session } from '../support/session.ts'

/** Rows of two tenants, `acme` and `rival`, in every table that can have some. */
async function fillForTwoTenants(database: TestDatabase): Promise<void> {
  const bus = testBus(database.url, { logger: recordingLogger() })
  const retry = { maxAttempts: 1 }
  // Each of its receipts has a row of its own.
  bus.subscribe({ name: 'seen', events: ['**'], mode: 'exactly-once', handler: () => {} })
  bus.subscribe({
    name: 'failing',
    events: ['note'],
    retry,
    handler: ({ tenantId }) => {
      throw new Error(`canary of ${tenantId}`)
    },
  })
  bus.subscribe({
    ...{ name: 'in-order', events: ['note'], ordered: true, onKeyFailure: 'park', retry },
    handler: ({ tenantId }) => {
      throw new Error(`canary of ${tenantId}`)
    },
  })
  await bus.start()
  const later = new Date(Date.now() + 3_600_000)
  for (const tenantId of ['acme', 'rival']) {
    await database.db.transaction(async (tx) => {
      const note = { type: 'note', tenantId, payload: `canary of ${tenantId}` } as const
      await bus.publishMany(tx, [
        { ...note, eventId: 'one', idempotencyKey: 'key', correlationId: 'flow', orderingKey: 'line' },
        { ...note, orderingKey: 'line' },
        { ...note, availableAt: later },
      ])
      const { id } = await bus.publish(tx, { ...note, availableAt: later })
      await bus.cancel(tx, id)
    })
  }
  await database.rows(
    `insert into bus.erasures (tenant_id, subject, erased_by) values ('acme', 'of acme', 'x'), ('rival', 'of rival', 'x')`,
  )
  await until('both have failed', async () => (await bus.deadLetters.list()).length === 8)
  await bus.stop()
}

/** Tables without tenant data: what they hold is the service's own. */
const withoutTenants = [
  'bus.catalogue',
  'bus.declarations',
  'bus.instances',
  'bus.migrations',
  'bus.removed_subscriptions',
  'bus.source_rules',
  'bus.subscriptions',
  'bus.v_instances',
  'bus.v_subscription_state',
]

/** Views for operators: what they show of the tables depends on the time of day too. */
const isDashboardView = ({ name }: Pick<Relation, 'name'>): boolean => name.startsWith('bus.v_')

/** Those that also need the functions behind them, which a grant on all tables does not include, and those of all tenants together. */
const closedViews = [
  ...['active', 'blocked_keys', 'dead_by_error', 'depth', 'lag', 'latency', 'recent_failures', 'retries'],
  ...['scheduled', 'storage', 'tenants', 'throughput'],
].map((name) => `bus.v_${name}`)

/** Tables whose rows are about several tenants, or say what only operators read. */
const closedToTenants = [
  ...['bus.attempts', 'bus.audit', 'bus.operations', 'bus.receipt_batches', 'bus.rollups'],
  ...closedViews,
  'bus.attempts',
  'bus.audit',
  'bus.dead_letter_alerts',
  'bus.dead_letter_calls',
  'bus.event_copies',
  'bus.quarantined_messages',
  'bus.operations',
  'bus.receipt_batches',
  'bus.attempts',
  'bus.audit',
  'bus.catch_up_dispatched',
  'bus.operations',
  'bus.receipt_batches',
  'bus.replay_outcomes',
  'bus.replays',
  'bus.archive_erasures',
  'bus.archive_files',
  'bus.archives',
  'bus.attempts',
  'bus.audit',
  'bus.operations',
  'bus.partition_spans',
  'bus.receipt_batches',
  'bus.retention_policies',
  'bus.retention_state',
  'bus.attempts',
  'bus.audit',
  'bus.canaries',
  'bus.hourly_rollups',
  'bus.operations',
  'bus.receipt_batches',
  'bus.rollups',
]

interface Relation {
  readonly name: string
  readonly kind: string
  readonly columns: readonly string[]
  readonly isPartition: boolean
}

async function relationsOf({ rows }: TestDatabase): Promise<readonly Relation[]> {
  const found = await rows(
    `select n.nspname || '.' || c.relname as name, c.relkind::text as kind, c.relispartition as partition,
       array(select a.attname::text from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' and a.attidentity <> 'a' order by a.attnum) as columns
     from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname in ('bus', 'pgboss') and c.relkind not in ('i', 'I', 't', 'c') order by 1`,
  )
  return found.map(({ name, kind, columns, partition }) => ({
    name: String(name),
    kind: String(kind),
    columns: columns as string[],
    isPartition: partition === true,
  }))
}

/** Everything in a table, as the owner sees it, and the tenants that its rows are of. */
async function contentsOf({ rows }: TestDatabase, { name, kind }: Relation): Promise<string> {
  const [found] = await rows(
    kind === 'S'
      ? `select last_value::text as text from ${name}`
      : `select coalesce(json_agg(t order by t::text), '[]')::text as text from ${name} t`,
  )
  return String(found?.['text'])
}

/** Which tenants the rows of a table are of, by the tenant they name or the event they are about. */
function tenantsOf({ name, columns }: Relation): string {
  const tenant = columns.includes('tenant_id')
    ? 't.tenant_id'
    : name.startsWith('bus.ordered_events')
      ? '(select k.tenant_id from bus.ordered_keys k where k.id = t.key_id)'
      : '(select e.tenant_id from bus.events e where e.id = t.event_id)'
  return `select distinct ${tenant} as tenant from ${name} t order by 1`
}

/** The four commands on a relation, each undone. `update` of a sequence is `setval`. */
function commandsOn({ name, kind, columns: [first = 'x'] }: Relation): Readonly<Record<string, string>> {
  if (kind === 'S')
    return {
      select: `select * from ${name}`,
      nextval: `select nextval('${name}')`,
      setval: `select setval('${name}', 1)`,
    }
  return {
    select: `select * from ${name}`,
    insert: `insert into ${name} default values`,
    update: `update ${name} set "${first}" = "${first}"`,
    delete: `delete from ${name}`,
    truncate: `truncate ${name}`,
  }
}

/** Runs a statement in a transaction that is rolled back. Gives its rows, its row count, or its SQLSTATE. */
async function attempt(
  { client }: Session,
  tenantId: string,
  statement: string,
): Promise<{ rows: Record<string, unknown>[]; count: number; code: string | undefined }> {
  await client.query('begin')
  try {
    await client.query(`select set_config('bus.tenant_id', $1, true)`, [tenantId])
    const { rows, rowCount } = await client.query<Record<string, unknown>>(statement)
    return { rows, count: rowCount ?? 0, code: undefined }
  } catch (error) {
    return { rows: [], count: 0, code: (error as { code?: string }).code }
  } finally {
    await client.query('rollback')
  }
}

test('as bus_tenant, no statement over any table of the two schemas sees or changes a row of another tenant', async () => {
  const database = await createTestDatabase()
  await fillForTwoTenants(database)
  const relations = await relationsOf(database)
  const before = new Map<Relation, string>()
  for (const relation of relations)
    if (!isDashboardView(relation)) before.set(relation, await contentsOf(database, relation))
  const session = await openSession(database)
  await session.rows('set role bus_tenant')
  const denied: string[] = []
  const readable: Relation[] = []
  for (const relation of relations) {
    for (const [command, statement] of Object.entries(commandsOn(relation))) {
      const { code } = await attempt(session, 'acme', statement)
      // A view of more than one table cannot be changed by anybody.
      if (['42501', '55000', '42809'].includes(code ?? '')) denied.push(`${command} ${relation.name}`)
      else if (command === 'select' && code === undefined) readable.push(relation)
    }
  }
  const all = relations.flatMap((relation) =>
    Object.keys(commandsOn(relation)).map((command) => `${command} ${relation.name}`),
  )
  expect(all.filter((tried) => !denied.includes(tried))).toEqual(readable.map(({ name }) => `select ${name}`))
  for (const relation of readable) {
    // It holds rows of both, and shows the one's.
    expect(await database.rows(tenantsOf(relation))).toEqual([{ tenant: 'acme' }, { tenant: 'rival' }])
    const acme = (await attempt(session, 'acme', tenantsOf(relation))).rows
    expect([relation.name, acme]).toEqual([relation.name, [{ tenant: 'acme' }]])
    const select = `select * from ${relation.name}`
    const { rows } = await attempt(session, 'acme', select)
    const rival = (await attempt(session, 'rival', select)).rows
    expect(rows.length).toBeGreaterThan(0)
    expect([relation.name, JSON.stringify(rows).includes('rival')]).toEqual([relation.name, false])
    expect(rival.length).toBe(rows.length)
    expect(rival.map(identity).filter((id) => rows.map(identity).includes(id))).toEqual([])
    expect((await attempt(session, '', select)).rows).toEqual([])
    expect((await attempt(session, 'nobody', select)).rows).toEqual([])
  }
  expect(readable.map(({ name }) => name)).toEqual([
    'bus.cancellations',
    'bus.deliveries',
    'bus.event_keys',
    'bus.events',
    'bus.tenant_rollups',
  ])
  expect(relations.length).toBeGreaterThan(30)
  for (const [relation, contents] of before)
    expect([relation.name, await contentsOf(database, relation)]).toEqual([relation.name, contents])
})

/** The id of the event that a row is, or is about; of counts the tenant. */
function identity(row: Record<string, unknown>): unknown {
  return 'payload' in row ? row['id'] : (row['event_id'] ?? row['tenant_id'])
}

test('a role that was granted everything on the tables of the bus still sees one tenant, and changes nothing', async () => {
  const database = await createTestDatabase()
  await fillForTwoTenants(database)
  const relations = (await relationsOf(database)).filter(
    ({ name, kind }) => name.startsWith('bus.') && kind !== 'S' && !withoutTenants.includes(name),
  )
  const login = await createLogin(database)
  await database.rows(`grant usage on schema bus to ${login.name}`)
  await database.rows(`grant select, insert, update, delete on all tables in schema bus to ${login.name}`)
  const session = await openSession({ ...database, url: login.url })
  const shown: Record<string, unknown> = {}
  for (const relation of relations) {
    const { select = '', update = '', delete: remove = '' } = commandsOn(relation)
    const seen = await attempt(session, 'acme', select)
    shown[relation.name.replace(/\d{4}_\d{2}$/, 'YYYY_MM')] = seen.rows.length
    expect([relation.name, JSON.stringify(seen.rows).includes('rival')]).toEqual([relation.name, false])
    expect([relation.name, (await attempt(session, '', select)).rows.length]).toEqual([relation.name, 0])
    expect([relation.name, (await attempt(session, 'acme', update)).count]).toEqual([relation.name, 0])
    expect([relation.name, (await attempt(session, 'acme', remove)).count]).toEqual([relation.name, 0])
    if (relation.isPartition || closedToTenants.includes(relation.name)) continue
    expect([relation.name, await database.rows(tenantsOf(relation))]).toEqual([
      relation.name,
      [{ tenant: 'acme' }, { tenant: 'rival' }],
    ])
    expect([relation.name, (await attempt(session, 'acme', tenantsOf(relation))).rows]).toEqual([
      relation.name,
      [{ tenant: 'acme' }],
    ])
  }
  // Partitions have no policy: reached by themselves they show nothing.
  expect(shown).toEqual({
    'bus.archive_erasures': 0,
    'bus.archive_files': 0,
    'bus.archives': 0,
    'bus.partition_spans': 0,
    'bus.retention_policies': 0,
    'bus.retention_state': 0,
    'bus.attempts': 0,
    'bus.audit': 0,
    'bus.attempts_default': 0,
    'bus.attempts_YYYY_MM': 0,
    'bus.cancellations': 1,
    'bus.dead_letter_alerts': 0,
    'bus.dead_letter_calls': 0,
    'bus.catch_up_dispatched': 0,
    'bus.deliveries': 2,
    'bus.erasures': 1,
    'bus.event_copies': 0,
    'bus.event_keys': 2,
    'bus.events': 4,
    'bus.events_default': 0,
    'bus.events_YYYY_MM': 0,
    'bus.failing': 3,
    'bus.operations': 0,
    'bus.ordered_events': 2,
    'bus.ordered_keys': 1,
    'bus.outbox': 1,
    'bus.quarantined_messages': 0,
    'bus.receipt_batches': 0,
    'bus.receipt_batches_default': 0,
    'bus.receipt_batches_YYYY_MM': 0,
    'bus.receipts': 2,
    'bus.receipts_default': 0,
    'bus.receipts_YYYY_MM': 0,
    'bus.replay_outcomes': 0,
    'bus.replays': 0,
    'bus.rollups': 0,
    'bus.v_events_by_key': 2,
    ...Object.fromEntries(closedViews.map((name) => [name, 0])),
    'bus.tenant_rollups': 1,
    'bus.canaries': 0,
    'bus.hourly_rollups': 0,
  })
})

test('a partition that is made later is as closed as those before it', async () => {
  const database = await createTestDatabase()
  const { rows, count } = database
  const before = (await relationsOf(database)).map(({ name }) => name)
  await rows('alter default privileges in schema bus grant select on tables to bus_tenant')
  await rows('select bus.create_partitions(6)')
  const added = (await relationsOf(database)).filter(({ name }) => !before.includes(name))
  expect(added.length).toBe(12)
  const session = await openSession(database)
  for (const { name } of added) {
    const [month = ''] = /\d{4}_\d{2}$/.exec(name) ?? []
    if (!name.startsWith('bus.events_')) continue
    await rows(
      `insert into bus.events (id, tenant_id, type, source, payload, created_at)
       select overlay(bus.uuid_v7_floor(m)::text placing '7' from 15)::uuid, 'acme', 'note', 'sql', '1', m
       from (values ('${month.replace('_', '-')}-02T00:00:00Z'::timestamptz)) v (m)`,
    )
    expect(await count(`select count(*) from ${name}`)).toBe(1)
    await session.rows('set role bus_tenant')
    expect((await attempt(session, 'acme', `select * from ${name}`)).rows).toEqual([])
    expect(
      (await attempt(session, 'acme', `select * from bus.events where tableoid = '${name}'::regclass`)).rows,
    ).toHaveLength(1)
    await session.rows('reset role')
  }
})
