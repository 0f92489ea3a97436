import { randomUUID } from 'node:crypto'
import { expect, test } from 'vitest'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { allWith, createLogin, outcomesOf, type Login } from '../support/roles.ts'
import { openSession, type Session } from '../support/session.ts'

/**
 * A session of a role with the rights of two roles of the bus, which owns a schema in front of all others, full of things
 * that are named like what the functions of the bus use: each writes down as whom it ran.
 */
async function openHostileSession(
  database: TestDatabase,
): Promise<Session & { login: Login; caughtAs: () => Promise<string[]> }> {
  const login = await createLogin(database, ['bus_publisher', 'bus_tenant'])
  const schema = `evil_${randomUUID().slice(0, 8)}`
  await database.rows(`create schema ${schema} authorization ${login.name}`)
  await database.rows('create table public.caught (role text)')
  await database.rows('grant insert, select on public.caught to public')
  const session = await openSession({ ...database, url: login.url })
  const catchAs = `insert into public.caught values (current_user)`
  for (const statement of [
    `set search_path = ${schema}, pg_catalog, bus, pgboss`,
    ...[
      ['nextval(regclass)', 'bigint', '7'],
      ['nextval(text)', 'bigint', '7'],
      ['pg_notify(text, text)', 'void', 'null'],
      ['pg_column_size("any")', 'int', '7'],
      ['clock_timestamp()', 'timestamptz', `'2000-01-01'`],
      ['pg_has_role(name, oid, text)', 'boolean', 'true'],
      ['current_setting(text, boolean)', 'text', `'rival'`],
      ['starts_with(text, text)', 'boolean', 'true'],
      ['jsonb_array_length(jsonb)', 'int', '1'],
      ['pg_try_advisory_xact_lock_shared(int, int)', 'boolean', 'true'],
    ]
      .filter(([signature = '']) => !signature.includes('"any"'))
      .map(
        ([signature = '', type = '', value = '']) =>
          `create function ${schema}.${signature} returns ${type} language plpgsql as $$ begin ${catchAs}; return ${type === 'void' ? '' : value}; end $$`,
      ),
    `create function ${schema}.same(text, text) returns boolean language plpgsql as $$ begin ${catchAs}; return true; end $$`,
    `create operator ${schema}.= (function = ${schema}.same, leftarg = text, rightarg = text)`,
    `create operator ${schema}.|| (function = ${schema}.joined, leftarg = text, rightarg = text)`,
    `create table ${schema}.outbox (like bus.outbox)`,
    `create table ${schema}.job (id int)`,
    'create temp table outbox (position bigint, event_id uuid, tenant_id text, type text, payload_bytes int, ordering_key text, available_at timestamptz)',
    'create temp table event_keys (tenant_id text, kind text, key text, event_id uuid)',
    'create temp table events (id uuid, tenant_id text)',
    'create temp table source_rules (role text, source text, type text)',
    'create temp table pg_roles (oid oid, rolname name, rolsuper boolean)',
    'create temp table inserted (id uuid, tenant_id text)',
    'create temp table subscriptions (id int, name text)',
  ])
    await session.rows(statement).catch((error: unknown) => {
      // Some it may not even make; what it can make is enough.
      if (!['42501', '42883', '42P16'].includes((error as { code: string }).code)) throw error
    })
  return {
    ...session,
    login,
    caughtAs: async () =>
      (await database.rows('select distinct role from public.caught')).map(({ role }) => String(role)),
  }
}

test('nothing in a search_path, a temporary table or an operator of the caller runs as the owner, or changes what is done', async () => {
  const database = await createTestDatabase()
  const owner = testBus(database.url)
  const seen: unknown[] = []
  owner.subscribe({
    ...{ name: 'seen', events: ['note'], retry: { maxAttempts: 1 } },
    handler: ({ payload, tenantId }) => {
      if (tenantId === 'rival') throw new Error('canary of rival')
      seen.push(payload)
    },
  })
  await owner.start()
  const [rival] = await database.db.transaction(async (tx) =>
    owner.publishMany(tx, [{ type: 'note', tenantId: 'rival', payload: 'secret' }]),
  )
  await until('it is dead', async () => (await owner.deadLetters.list()).length === 1)
  const session = await openHostileSession(database)
  await database.rows('insert into bus.source_rules (role, source) values ($1, $2)', [
    session.login.name,
    'adapter',
  ])
  // The trap works: the same names, used by the caller itself, are caught.
  await session.rows(`select 'a'::text = 'b'::text`)
  expect(await session.caughtAs()).toEqual([session.login.name])

  const event = (source: string, more: string): string =>
    `[{"tenantId": "acme", "type": "note", "source": "${source}", "payload": 1${more}}]`
  await session.rows(
    `insert into bus.events (tenant_id, type, source, payload) values ('acme', 'note', 'adapter', '1')`,
  )
  await session.rows('select * from bus.publish($1)', [event('adapter', ', "eventId": "e"')])
  const [again] = await session.rows('select * from bus.publish($1)', [event('adapter', ', "eventId": "e"')])
  expect(again).toMatchObject({ duplicate: true })
  await expect(session.rows('select * from bus.publish($1)', [event('billing', '')])).rejects.toMatchObject({
    code: '42501',
  })
  const [scheduled] = await session.rows('select id from bus.publish($1)', [
    event('adapter', ', "availableAt": "2999-01-01T00:00:00Z"'),
  ])
  expect(await session.rows('select bus.cancel($1) as cancelled', [scheduled?.['id']])).toEqual([
    { cancelled: true },
  ])
  await until(
    'both were delivered',
    async () => (await database.count('select count(*) from bus.deliveries')) === 2,
  )
  expect(seen).toEqual([1, 1])

  await session.rows(`select pg_catalog.set_config('bus.tenant_id', 'acme', false)`)
  expect(await session.rows('select * from bus.tenant_deliveries($1)', [rival?.id])).toEqual([])
  expect(await session.rows('select * from bus.tenant_dead_letters(null, 10)')).toEqual([])
  expect(
    await session.rows(
      `select delivered, dead from bus.tenant_delivery_stats('00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff')`,
    ),
  ).toEqual([{ delivered: '2', dead: '0' }])
  expect(await session.rows('select tenant_id from bus.events order by tenant_id')).toEqual(
    Array.from({ length: 3 }, () => ({ tenant_id: 'acme' })),
  )
  // Nothing of it ever ran as anybody else.
  expect(await session.caughtAs()).toEqual([session.login.name])
  expect(await session.rows('select count(*)::int as count from pg_temp.outbox')).toEqual([{ count: 0 }])
})

test('the trigger of the outbox, and pg-boss behind it, cannot be reached by other ways', async () => {
  const database = await createTestDatabase()
  const session = await openHostileSession(database)
  await session.rows('create temp table mine (id uuid)')
  const refused = [
    `create trigger forged after insert on pg_temp.mine referencing new table as inserted for each statement execute function bus.dispatch_inserted_events()`,
    'create view bus.mine as select 1',
    'alter function bus.cancel(uuid, text) set search_path = public',
    'create or replace function bus.current_tenant() returns text language sql as $$ select null::text $$',
    'alter table bus.events disable trigger dispatch_inserted_events',
    'create rule mine as on insert to bus.events do nothing',
    'select bus.source_rule_applies(current_user::text, current_user)',
    `select pgboss.create_queue('mine', '{}')`,
    'select * from pgboss.job',
    'create statistics mine on tenant_id, type from bus.events',
    'create index on bus.events (source)',
  ]
  expect(await outcomesOf(session, refused)).toEqual(allWith('42501', refused))
})
