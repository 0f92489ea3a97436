import { sql } from 'drizzle-orm'
import pg from 'pg'
import { expect, inject, onTestFinished, test, vi } from 'vitest'
import { BusClient } from '../../src/database/bus-client.ts'
import { createDatabase } from '../../src/database/database.ts'
import { sessionSettings } from '../../src/database/session-settings.ts'
import { recordingLogger, testBus } from '../support/bus.ts'
import { asAdmin } from '../../src/testing/databases.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { goodDelivery, runDeliverySuite } from '../support/delivery-suite.ts'
import { createLogin } from '../support/roles.ts'
import { locks } from '../../src/database/locks.ts'

const note = { type: 'note', tenantId: 'acme', payload: 1 } as const

async function setInDatabase(
  { url }: TestDatabase,
  settings: Readonly<Record<string, string>>,
): Promise<void> {
  await asAdmin(inject('serverUrl'), async (admin) => {
    const { rows } = await admin.query<{ name: string }>('select lower(name) as name from pg_settings')
    const known = new Set(rows.map(({ name }) => name))
    for (const [name, value] of Object.entries(settings).filter(([each]) => known.has(each)))
      await admin.query(`alter database ${new URL(url).pathname.slice(1)} set ${name} = '${value}'`)
  })
}

test('a session of the bus has the settings that it needs, and leaves what a reset gives', async () => {
  const database = await createTestDatabase()
  await setInDatabase(database, { search_path: 'public', datestyle: 'SQL, DMY', statement_timeout: '7s' })
  const own = createDatabase(database.url, recordingLogger())
  onTestFinished(async () => own.close())
  const { rows } = await own.query<{ name: string; setting: string }>(
    'select name, current_setting(name) as setting from pg_settings',
  )
  const found = Object.fromEntries(rows.map(({ name, setting }) => [name, setting]))
  const known = Object.entries(sessionSettings.bus).filter(([name]) => name in found)
  expect(Object.fromEntries(known.map(([name]) => [name, found[name]]))).toEqual(Object.fromEntries(known))
  expect(known.length).toBeGreaterThanOrEqual(12)
  expect(found).toMatchObject({ DateStyle: 'ISO, MDY', TimeZone: 'UTC', standard_conforming_strings: 'on' })
  const session = await own.openSession()
  onTestFinished(async () => session.end())
  expect((await session.query('show search_path')).rows).toEqual([{ search_path: 'pg_catalog, pg_temp' }])
  await session.query('reset search_path')
  expect((await session.query('show search_path')).rows).toEqual([{ search_path: 'public' }])
})

test('limits that the configuration of the connection names are kept', async () => {
  const { url } = await createTestDatabase()
  const own = createDatabase({ connectionString: url, statement_timeout: 12_000 }, recordingLogger())
  onTestFinished(async () => own.close())
  expect((await own.query('show statement_timeout')).rows).toEqual([{ statement_timeout: '12s' }])
  expect((await own.query('show lock_timeout')).rows).toEqual([{ lock_timeout: '0' }])
})

test.each([
  ['the URL', (url: string) => `${url}?options=${encodeURIComponent('-c default_transaction_read_only=on')}`],
  [
    'an object',
    (url: string) => ({ connectionString: url, options: '--default-transaction-read-only=true' }),
  ],
] as const)(
  'read-only transactions that %s asks for are kept: reads work, and nothing is written',
  async (_, toOption) => {
    const database = await createTestDatabase()
    const writing = testBus(database.url)
    writing.subscribe({ name: 'seen', events: ['note'], handler: () => {} })
    await writing.start()
    const id = (await writing.tryPublish(note))?.id ?? ''
    await until('it is delivered', async () => (await writing.deliveries(id))[0]?.state === 'delivered')
    await writing.stop()
    const bus = testBus(toOption(database.url), { logger: recordingLogger() })
    bus.subscribe({ name: 'other', events: ['note'], handler: () => {} })
    expect(await bus.events.find()).toMatchObject([{ id }])
    expect(await bus.tenant('acme').events.find()).toMatchObject([{ id }])
    expect(await bus.health()).toMatchObject({ database: 'up' })
    const refused = { code: 'BUS_SETTING_UNSUPPORTED', retryable: false }
    await expect(bus.subscriptions.pause('seen')).rejects.toMatchObject(refused)
    await expect(bus.subscriptions.remove('seen', { by: 'ana' })).rejects.toMatchObject(refused)
    await expect(bus.deadLetters.redrive({ subscription: 'seen' }, { by: 'ana' })).rejects.toMatchObject(
      refused,
    )
    await expect(bus.erase({ tenantId: 'acme', subject: 'x', by: 'ana' })).rejects.toMatchObject(refused)
    await expect(bus.migrate()).rejects.toMatchObject(refused)
    await expect(bus.start()).rejects.toMatchObject(refused)
    expect(await bus.tryPublish(note)).toBeUndefined()
    expect(await database.count('select count(*) from bus.events')).toBe(1)
    expect(await database.count('select count(*) from bus.subscriptions')).toBe(1)
    // What is only like it, or off, is none.
    const options = '-c default_transaction_read_only=on -c default_transaction_read_only=off'
    const off = testBus({ connectionString: database.url, options })
    expect(await off.subscriptions.pause('seen')).toBe(true)
  },
)

test('a connection that is lost while its settings are pinned fails, and the next one works', async () => {
  const { url } = await createTestDatabase()
  const lost = new BusClient({ connectionString: url })
  const connecting = lost.connect()
  const query = vi.spyOn(lost, 'query').mockImplementationOnce(() => {
    lost.cut('lost')
    throw new Error('lost')
  })
  await expect(connecting).rejects.toThrow('lost')
  query.mockRestore()
  const next = new BusClient({ connectionString: url })
  await next.connect()
  await next.end()
})

test('handlers have the search path, time zone and date style of their service, also at the commit', async () => {
  const database = await createTestDatabase()
  await database.rows('create schema app')
  await database.rows('create table app.effects (payload text, at timestamp not null default now())')
  await database.rows('create table app.checked (payload text)')
  // Runs at the commit, and finds its table by the path.
  await database.rows(`create function app.note_check() returns trigger language plpgsql as
    $$ begin insert into checked values (new.payload); return null; end $$`)
  await database.rows(`create constraint trigger at_commit after insert on app.effects deferrable initially deferred
    for each row execute function app.note_check()`)
  await setInDatabase(database, { timezone: 'Asia/Kathmandu', datestyle: 'SQL, DMY' })
  await asAdmin(inject('serverUrl'), async (admin) => {
    await admin.query(
      `alter database ${new URL(database.url).pathname.slice(1)} set search_path = app, pg_catalog`,
    )
  })
  const bus = testBus(database.url)
  let seen: unknown
  bus.subscribe({
    name: 'once',
    events: ['note'],
    mode: 'exactly-once',
    handler: async ({ payload }, { tx }) => {
      await tx.execute(sql`insert into effects (payload) values (${String(payload)})`)
      const { rows } = await tx.execute(
        sql`select current_setting('timezone') as zone, current_setting('datestyle') as style, current_setting('search_path') as path`,
      )
      ;[seen] = rows
    },
  })
  await bus.start()
  await bus.tryPublish(note)
  await until(
    'it has a receipt',
    async () => (await database.count('select count(*) from bus.deliveries')) === 1,
  )
  expect(seen).toEqual({ zone: 'Asia/Kathmandu', style: 'SQL, DMY', path: 'app, pg_catalog' })
  expect(await database.count('select count(*) from app.checked')).toBe(1)
  // A tenant's own reads find them too.
  await database.rows('grant usage on schema app to bus_tenant')
  await database.rows('grant select on app.checked to bus_tenant')
  const { rows } = await bus.tenant('acme').query(async (db) => db.execute('select payload from checked'))
  expect(rows).toEqual([{ payload: '1' }])
})

test('limits of the server on how long things may take cost no handler an attempt', async () => {
  const database = await createTestDatabase()
  await setInDatabase(database, {
    ...{ statement_timeout: '400ms', lock_timeout: '300ms', transaction_timeout: '500ms' },
    ...{ idle_in_transaction_session_timeout: '300ms', idle_session_timeout: '300ms' },
  })
  const logger = recordingLogger()
  const bus = testBus(database.url, { logger })
  let runCount = 0
  bus.subscribe({
    name: 'slow',
    events: ['note'],
    mode: 'exactly-once',
    retry: { maxAttempts: 1 },
    handler: async (_event, { tx }) => {
      runCount += 1
      await new Promise((resolve) => setTimeout(resolve, 800))
      await tx.execute(sql`select pg_sleep(0.8)`)
    },
  })
  await bus.start()
  await bus.tryPublish(note)
  await until('it has a receipt', async () =>
    (await bus.deliveries((await bus.events.find())[0]?.id ?? '')).some(({ state }) => state === 'delivered'),
  )
  expect(runCount).toBe(1)
  // The listening session outlives its idle limit.
  await until('it has been idle for longer', async () => {
    let isIdle = false
    await asAdmin(inject('serverUrl'), async (admin) => {
      const { rows } = await admin.query(
        `select from pg_locks l join pg_stat_activity a using (pid)
         where l.locktype = 'advisory' and l.classid = ${locks.namespace} and l.objid = ${locks.leader} and a.datname = $1
           and a.state = 'idle' and a.state_change < now() - interval '700 ms'`,
        [new URL(database.url).pathname.slice(1)],
      )
      isIdle = rows.length > 0
    })
    return isIdle
  })
  expect(await bus.health()).toMatchObject({ ok: true, listening: true })
  expect(logger.lines.filter(({ level }) => level === 'warn' || level === 'error')).toEqual([])
})

test('with row security off a worker that is bound by it delivers all the same', async () => {
  const database = await createTestDatabase()
  const login = await createLogin(database, ['bus_worker'])
  const owner = testBus(database.url)
  owner.subscribe({ name: 'seen', events: ['note'], handler: () => {} })
  owner.subscribe({ name: 'once', events: ['note'], mode: 'exactly-once', handler: () => {} })
  await owner.migrate()
  await setInDatabase(database, { row_security: 'off' })
  const bus = testBus(login.url)
  bus.subscribe({ name: 'seen', events: ['note'], handler: () => {} })
  bus.subscribe({ name: 'once', events: ['note'], mode: 'exactly-once', handler: () => {} })
  await bus.start()
  await bus.tryPublish(note)
  await until(
    'both have receipts',
    async () => (await database.count('select count(*) from bus.deliveries')) === 2,
  )
  expect(await bus.health()).toMatchObject({ ok: true })
})

test('where triggers do not fire, publish writes nothing and the bus does not start, each with the reason', async () => {
  const database = await createTestDatabase()
  await setInDatabase(database, { session_replication_role: 'replica' })
  const bus = testBus(database.url)
  const refusal = {
    code: 'BUS_SETTING_UNSUPPORTED',
    message: expect.stringContaining('session_replication_role') as string,
  }
  await expect(bus.start()).rejects.toMatchObject(refusal)
  const pool = new pg.Pool({ connectionString: database.url, max: 1 })
  onTestFinished(async () => pool.end())
  const { drizzle } = await import('drizzle-orm/node-postgres')
  await expect(drizzle(pool).transaction(async (tx) => bus.publish(tx, note))).rejects.toMatchObject(refusal)
  expect(await bus.tryPublish(note)).toBeUndefined()
  expect(await database.count('select count(*) from bus.events')).toBe(0)
})

test('with standard_conforming_strings off the scope of a tenant shows no other one, whatever its name spells', async () => {
  const database = await createTestDatabase()
  await setInDatabase(database, { standard_conforming_strings: 'off' })
  const bus = testBus(database.url)
  const hex = (text: string): string => Buffer.from(text, 'utf8').toString('hex')
  const names = [
    'acme',
    'ACME',
    'a',
    'é',
    '\\x61',
    "o'reilly",
    'x"y',
    '\\',
    "\\'; select 1; --",
    '61636d65',
    'a\\x',
    '$1',
  ]
  // What is left of the digits of a name where a backslash eats the first of them, and the like.
  const tenants = [
    ...new Set(
      names
        .flatMap((name) => [
          name,
          hex(name),
          hex(name).slice(1),
          `\\x${hex(name)}`,
          `x${hex(name)}`,
          `${String.fromCodePoint(Number.parseInt(hex(name).slice(0, 2), 16))}${hex(name).slice(2)}`,
        ])
        .filter((name) => name.length > 0),
    ),
  ]
  for (const tenantId of tenants) await bus.tryPublish({ type: 'note', tenantId, payload: tenantId })
  for (const tenantId of tenants) {
    const tenant = bus.tenant(tenantId)
    expect((await tenant.events.find()).map(({ payload }) => payload)).toEqual([tenantId])
    const { rows } = await tenant.query(async (db) => db.execute('select tenant_id from bus.events'))
    expect(rows).toEqual([{ tenant_id: tenantId }])
  }
  expect(tenants.length).toBeGreaterThan(40)
})

test('no statement that the bus sends while it runs has a backslash, whose meaning is a setting', async () => {
  const database = await createTestDatabase()
  const sent = new Set<string>()
  const query = vi.spyOn(pg.Client.prototype, 'query')
  onTestFinished(() => query.mockRestore())
  expect(await runDeliverySuite(database, database.url)).toEqual(goodDelivery)
  for (const [config] of query.mock.calls)
    sent.add(typeof config === 'string' ? config : String((config as { text?: unknown }).text))
  expect(sent.size).toBeGreaterThan(30)
  expect([...sent].filter((text) => text.includes('\\'))).toEqual([])
})
