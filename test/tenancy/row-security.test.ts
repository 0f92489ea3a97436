import { randomUUID } from 'node:crypto'
import pg from 'pg'
import { expect, inject, onTestFinished, test } from 'vitest'
import { testBus } from '../support/bus.ts'
import { asAdmin } from '../../src/testing/databases.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { createLogin } from '../support/roles.ts'

const note = { type: 'note', tenantId: 'acme', payload: 1 } as const

/** As some platforms have it: row security on every new table, in whatever schema. */
async function enableEverywhere({ rows }: TestDatabase, force: boolean): Promise<void> {
  await rows(`create function public.enable_row_security() returns event_trigger language plpgsql as $$
    declare made record;
    begin
      for made in select * from pg_event_trigger_ddl_commands() where object_type = 'table' loop
        execute format('alter table %s enable row level security', made.objid::regclass);
        ${force ? `execute format('alter table %s force row level security', made.objid::regclass);` : ''}
      end loop;
    end $$`)
  await rows(`create event trigger enable_row_security on ddl_command_end when tag in ('CREATE TABLE', 'CREATE TABLE AS')
    execute function public.enable_row_security()`)
}

/** An owner that row security may bind: no superuser. */
async function createOwner(database: TestDatabase): Promise<string> {
  const login = await createLogin(database, ['bus_tenant'])
  const name = new URL(database.url).pathname.slice(1)
  await asAdmin(inject('serverUrl'), async (admin) => {
    await admin.query(`alter database ${name} owner to ${login.name}`)
  })
  onTestFinished(async () =>
    asAdmin(inject('serverUrl'), async (admin) => {
      await admin.query(`alter database ${name} owner to postgres`)
    }),
  )
  return login.url
}

test('where an event trigger enables row security on every new table, workers and operators see what they are granted', async () => {
  const database = await createTestDatabase({ empty: true })
  await enableEverywhere(database, false)
  const owner = testBus(await createOwner(database))
  const declare = (bus: ReturnType<typeof testBus>): void => {
    bus.subscribe({ name: 'seen', events: ['note'], handler: () => {} })
    bus.subscribe({ name: 'ordered', events: ['note'], ordered: true, handler: () => {} })
    bus.subscribe({ name: 'once', events: ['note'], mode: 'exactly-once', handler: () => {} })
  }
  declare(owner)
  await owner.migrate()
  await owner.migrate()
  const login = await createLogin(database, ['bus_worker'])
  const worker = testBus(login.url)
  declare(worker)
  await worker.start()
  const published = await worker.tryPublish({ ...note, orderingKey: 'k' })
  const operator = testBus((await createLogin(database, ['bus_operator'])).url)
  await until(
    'it is delivered',
    async () =>
      (await operator.deliveries(published?.id ?? '')).filter(({ state }) => state === 'delivered').length ===
      3,
  )
  expect(await operator.subscriptions.list()).toHaveLength(3)
  // A tenant still sees its own alone.
  expect(await owner.tenant('acme').events.find()).toHaveLength(1)
  expect(await owner.tenant('rival').events.find()).toEqual([])
})

test('a table that row security hides is named at the start, and found again after a migrate', async () => {
  const database = await createTestDatabase()
  const declare = (bus: ReturnType<typeof testBus>): unknown =>
    bus.subscribe({ name: 'seen', events: ['note'], handler: () => {} })
  const owner = testBus(database.url)
  declare(owner)
  await owner.migrate()
  const worker = testBus((await createLogin(database, ['bus_worker'])).url)
  declare(worker)
  for (const table of ['bus.migrations', 'bus.subscriptions', 'pgboss.queue']) {
    await database.rows(`alter table ${table} enable row level security`)
    await expect(worker.start()).rejects.toMatchObject({
      code: 'BUS_PERMISSION_DENIED',
      message: expect.stringContaining(`Row security is enabled on \`${table}\``) as string,
    })
    await owner.migrate()
  }
  await worker.start()
})

test('a table of pg-boss that row security hides is named in a schema of another name too', async () => {
  const database = await createTestDatabase({ empty: true })
  const owner = testBus(database.url, { bossSchema: 'jobs' })
  await owner.migrate()
  const worker = testBus((await createLogin(database, ['bus_worker'])).url, { bossSchema: 'jobs' })
  await database.rows('alter table jobs.queue enable row level security')
  await expect(worker.start()).rejects.toMatchObject({
    code: 'BUS_PERMISSION_DENIED',
    message: expect.stringContaining('Row security is enabled on `jobs.queue`') as string,
  })
  await owner.migrate()
  await worker.start()
})

test('row security that binds the owner too is named before anything is done', async () => {
  const database = await createTestDatabase({ empty: true })
  await enableEverywhere(database, true)
  const bus = testBus(await createOwner(database))
  await bus.migrate().catch(() => {})
  await expect(bus.migrate()).rejects.toMatchObject({
    code: 'BUS_PERMISSION_DENIED',
    message: expect.stringContaining('Row security is enabled on') as string,
  })
})

test('a role that is set at the login is the one that migrates and delivers', async () => {
  const database = await createTestDatabase({ empty: true })
  const login = await createLogin(database)
  const group = `group_${randomUUID().slice(0, 8)}`
  const name = new URL(database.url).pathname.slice(1)
  await asAdmin(inject('serverUrl'), async (admin) => {
    await admin.query(`create role ${group}`)
    await admin.query(`grant ${group} to ${login.name}`)
    await admin.query(`grant bus_tenant to ${group}`)
    await admin.query(`alter database ${name} owner to ${group}`)
    await admin.query(`alter role ${login.name} set role = ${group}`)
  })
  onTestFinished(async () =>
    asAdmin(database.url, async (admin) => {
      await admin.query(`alter database ${name} owner to postgres`)
      await admin.query(`drop owned by ${group} cascade`)
      await admin.query(`drop role ${group}`)
    }),
  )
  const bus = testBus(login.url)
  await bus.migrate()
  let running = 0
  bus.subscribe({
    name: 'slow',
    events: ['note'],
    mode: 'exactly-once',
    retry: { maxAttempts: 1 },
    // Longer than the watchdog's patience: its statements are those of the role that has logged in.
    handler: async (_event, { tx }) => {
      running += 1
      await tx.execute('select pg_sleep(3.2)')
    },
  })
  await bus.start()
  const published = await bus.tryPublish(note)
  await until('it is delivered', async () =>
    (await bus.deliveries(published?.id ?? '')).some(({ state }) => state === 'delivered'),
  )
  expect(running).toBe(1)
  expect(await bus.tenant('acme').events.find()).toHaveLength(1)
  const client = new pg.Client({ connectionString: database.url })
  await client.connect()
  const { rows } = await client.query(
    `select pg_get_userbyid(nspowner) as owner from pg_namespace where nspname = 'bus'`,
  )
  await client.end()
  expect(rows).toEqual([{ owner: group }])
})
