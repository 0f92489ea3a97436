import { readFile } from 'node:fs/promises'
import { getRollbackPlans, PgBoss } from 'pg-boss'
import { expect, onTestFinished, test } from 'vitest'
import { bossVersion, oldestBossVersion } from '../../src/delivery/jobs/boss-version.ts'
import { quoteBossSchema } from '../../src/database/boss-schema.ts'
import { createBus, defineEvents, type BusOptions } from '../../src/index.ts'
import { recordingLogger, testBus } from '../support/bus.ts'
import { paymentEvents } from '../support/catalogue.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { openSession } from '../support/session.ts'
import { createLogin } from '../support/roles.ts'

type Options = BusOptions<typeof paymentEvents>

function busOn(database: Options['database'], bossSchema?: string, logger = recordingLogger()) {
  const bus = createBus({ database, events: paymentEvents, source: 'payment-service', logger, bossSchema })
  onTestFinished(async () => bus.stop({ graceMs: 1000 }))
  return bus
}

/** A pg-boss of somebody else's, with a queue and a job. */
async function installOther(url: string, schema = 'pgboss'): Promise<PgBoss> {
  const boss = new PgBoss({ connectionString: url, schema, schedule: false, supervise: false })
  boss.on('error', () => {})
  await boss.start()
  await boss.createQueue('mails')
  await boss.send('mails', { to: 'somebody' })
  onTestFinished(async () => boss.stop({ graceful: false }))
  return boss
}

/** Takes pg-boss's schema back, by its own means, to what an older version of it had. */
async function rollBack(
  { url, count, rows }: TestDatabase,
  version: number,
  schema = 'pgboss',
): Promise<void> {
  const session = await openSession({ url, count })
  for (let from = bossVersion; from > version; from -= 1) await session.rows(getRollbackPlans(schema, from))
  expect(await rows(`select version from ${schema}.version`)).toEqual([{ version }])
}

const schemasOf = async ({ rows }: TestDatabase): Promise<unknown[]> =>
  (
    await rows(
      `select nspname from pg_namespace where nspname !~ '^(pg_|information_schema$|public$)' order by 1`,
    )
  ).map(({ nspname }) => nspname)

test('the versions of pg-boss that are known are those of the package', async () => {
  const file = async (path: string) =>
    readFile(new URL(`../../node_modules/pg-boss/${path}`, import.meta.url), 'utf8')
  expect(bossVersion).toBe(
    (JSON.parse(await file('package.json')) as { pgboss: { schema: number } }).pgboss.schema,
  )
  const previous = [...(await file('dist/migrationStore.js')).matchAll(/^\s+previous: (\d+),$/gm)].map(
    ([, n]) => Number(n),
  )
  expect(Math.min(...previous)).toBe(oldestBossVersion)
})

test('a pg-boss 10 is refused before anything is written, and the bus lives beside it in another schema', async () => {
  const database = await createTestDatabase({ empty: true })
  // What version 10 has of it.
  await database.rows('create schema pgboss')
  await database.rows('create table pgboss.version (version int primary key, maintained_on timestamptz)')
  await database.rows('create table pgboss.job (id uuid, name text, state text)')
  await database.rows('create table pgboss.queue (name text primary key)')
  await database.rows('insert into pgboss.version (version) values (24)')
  await expect(busOn(database.url).migrate()).rejects.toMatchObject({
    code: 'BUS_BOSS_SCHEMA_TOO_OLD',
    retryable: false,
  })
  await expect(busOn(database.url).migrate({ sharedBoss: 'migrate' })).rejects.toMatchObject({
    code: 'BUS_BOSS_SCHEMA_TOO_OLD',
  })
  expect(await schemasOf(database)).toEqual(['pgboss'])
  expect(await database.rows('select version from pgboss.version')).toEqual([{ version: 24 }])
  await busOn(database.url, 'bus_jobs').migrate()
  expect(await schemasOf(database)).toEqual(['bus', 'bus_jobs', 'pgboss'])
})

test('an older pg-boss that something else uses is migrated only where that is said', async () => {
  const database = await createTestDatabase({ empty: true })
  const other = await installOther(database.url)
  await other.stop({ graceful: false })
  await rollBack(database, 26)
  await expect(busOn(database.url).migrate()).rejects.toMatchObject({
    code: 'BUS_BOSS_SCHEMA_IN_USE',
    message: expect.stringContaining('`mails`') as string,
  })
  expect(await schemasOf(database)).toEqual(['pgboss'])
  expect(await database.rows('select version from pgboss.version')).toEqual([{ version: 26 }])
  const bus = busOn(database.url)
  await bus.migrate({ sharedBoss: 'migrate' })
  expect(await database.rows('select version from pgboss.version')).toEqual([{ version: bossVersion }])
  expect(await database.count(`select count(*) from pgboss.job where name = 'mails'`)).toBe(1)
  await bus.start()
})

test('an empty older pg-boss that was there before the bus is left alone too', async () => {
  const database = await createTestDatabase({ empty: true })
  const other = await installOther(database.url)
  await other.deleteQueue('mails')
  await other.stop({ graceful: false })
  await rollBack(database, 40)
  await expect(busOn(database.url).migrate()).rejects.toMatchObject({ code: 'BUS_BOSS_SCHEMA_IN_USE' })
})

test("the bus's own pg-boss is updated without a word, and one that others came to use as well is not", async () => {
  const database = await createTestDatabase()
  await rollBack(database, 40)
  const bus = busOn(database.url)
  await expect(bus.start()).rejects.toMatchObject({ code: 'BUS_BOSS_SCHEMA_OUTDATED' })
  await bus.migrate()
  expect(await database.rows('select version from pgboss.version')).toEqual([{ version: bossVersion }])
  await bus.start()
  await bus.stop()
  await (await installOther(database.url)).stop({ graceful: false })
  // As new as the bus's: nothing is changed by using it together.
  const second = busOn(database.url)
  await second.migrate()
  await second.start()
  await second.stop()
  await rollBack(database, 40)
  await expect(busOn(database.url).migrate()).rejects.toMatchObject({ code: 'BUS_BOSS_SCHEMA_IN_USE' })
})

test('a newer pg-boss that has all that is needed is taken as it is, and one that lacks something is refused', async () => {
  const database = await createTestDatabase()
  const { rows } = database
  await rows('update pgboss.version set version = 47')
  await rows('alter table pgboss.job add column of_tomorrow text')
  const bus = busOn(database.url)
  await bus.migrate()
  const seen: unknown[] = []
  bus.subscribe({ name: 'seen', events: ['note'], handler: ({ payload }) => void seen.push(payload) })
  await bus.start()
  await database.db.transaction(async (tx) => bus.publish(tx, { type: 'note', tenantId: 'acme', payload: 1 }))
  await until('it is delivered', () => seen.length === 1)
  await bus.stop()
  expect(await rows('select version from pgboss.version')).toEqual([{ version: 47 }])
  await rows('alter table pgboss.job rename column singleton_key to unique_key')
  for (const refused of [async () => busOn(database.url).start(), async () => busOn(database.url).migrate()])
    await expect(refused()).rejects.toMatchObject({
      code: 'BUS_BOSS_SCHEMA_TOO_NEW',
      message: expect.stringContaining('singleton_key') as string,
    })
})

test('a schema that holds something else than pg-boss, or that may not be read, is refused before anything is written', async () => {
  const database = await createTestDatabase({ empty: true })
  await database.rows('create schema app create table version (version text)')
  await expect(busOn(database.url, 'app').migrate()).rejects.toMatchObject({ code: 'BUS_BOSS_SCHEMA_IN_USE' })
  expect(await schemasOf(database)).toEqual(['app'])
  await installOther(database.url)
  const login = await createLogin(database, [], 'createrole')
  await database.rows(`grant create on database ${new URL(database.url).pathname.slice(1)} to ${login.name}`)
  await expect(busOn(login.url).migrate()).rejects.toMatchObject({ code: 'BUS_BOSS_SCHEMA_IN_USE' })
  expect(await schemasOf(database)).toEqual(['app', 'pgboss'])
})

for (const bossSchema of ['bus_jobs', 'Jobs of the büs', 'order']) {
  const options = bossSchema === 'order' ? {} : { tags: ['slow'] }
  test(
    `everything works with pg-boss in the schema ${bossSchema}, beside one of somebody else's`,
    options,
    async () => {
      const database = await createTestDatabase({ empty: true })
      const { rows, count, db } = database
      const other = await installOther(database.url)
      const quoted = `"${bossSchema}"`
      const bus = busOn(database.url, bossSchema)
      await bus.migrate()
      await bus.migrate()
      const seen: string[] = []
      const retry = { maxAttempts: 2, delaySeconds: 0, backoff: false } as const
      const handler = ({ payload }: { payload: unknown }, { attempt }: { attempt: number }): void => {
        seen.push(`${String(payload)} ${attempt}`)
        if (payload === 'bad') throw new Error('bad')
      }
      bus.subscribe({ name: 'plain', events: ['note'], retry, tenantConcurrency: 1, handler })
      bus.subscribe({ name: 'once', events: ['note'], mode: 'exactly-once', retry, handler })
      bus.subscribe({
        name: 'ordered',
        events: ['note'],
        ordered: true,
        onKeyFailure: 'park',
        retry,
        handler,
      })
      await bus.start()
      const published = await db.transaction(async (tx) =>
        bus.publishMany(
          tx,
          ['good', 'bad', 'late'].map((payload) => ({
            ...{ type: 'note', tenantId: 'acme', orderingKey: 'k', subject: 's', payload },
          })),
        ),
      )
      const [good, bad] = published.map(({ id }) => id)
      await until('all is tried', async () => (await bus.deadLetters.list()).length === 4)
      expect(await count(`select count(*) from ${quoted}.job where name like 'bus.%.dead'`)).toBe(3)
      expect(await rows('select name from pgboss.queue')).toEqual([{ name: 'mails' }])
      // What tenants and operators read of jobs.
      const acme = bus.tenant('acme')
      expect((await acme.deliveries(good ?? '')).map(({ state }) => state)).toEqual([
        'delivered',
        'delivered',
        'delivered',
      ])
      expect((await bus.deliveries(bad ?? '')).map(({ state }) => state)).toEqual(['dead', 'dead', 'dead'])
      expect(await acme.deadLetters.list()).toHaveLength(4)
      expect((await acme.stats()).deliveries).toMatchObject([
        { subscription: 'once', deliveredCount: 2, deadCount: 1 },
        { subscription: 'ordered', deliveredCount: 1, deadCount: 2 },
        { subscription: 'plain', deliveredCount: 2, deadCount: 1 },
      ])
      expect(await bus.subscriptions.list()).toHaveLength(3)
      const key = { subscription: 'ordered', tenantId: 'acme', orderingKey: 'k' } as const
      expect(await bus.blockedKeys.release({ ...key, skipFailed: true })).toBe(true)
      await until('what was parked is delivered', () => seen.filter((line) => line === 'late 1').length === 3)
      expect((await bus.erase({ tenantId: 'acme', subject: 's', by: 'test' })).failureCount).toBeGreaterThan(
        0,
      )
      // A role that is bus_worker alone delivers as well.
      await bus.stop()
      const login = await createLogin(database, ['bus_worker'])
      const worker = busOn(login.url, bossSchema)
      const got: unknown[] = []
      worker.subscribe({ name: 'plain', events: ['note'], handler: ({ payload }) => void got.push(payload) })
      await worker.start()
      await worker.tryPublish({ type: 'note', tenantId: 'acme', payload: 'by the worker' })
      await until('the worker delivers', () => got.length === 1)
      expect((await other.fetch('mails')).length).toBe(1)
    },
  )
}

test('a bus that names another schema than the database was migrated with is refused, before it writes or delivers', async () => {
  const database = await createTestDatabase()
  const refused = { code: 'BUS_BOSS_SCHEMA_MISMATCH', name: 'ConfigurationError', retryable: false }
  await expect(busOn(database.url, 'bus_jobs').start()).rejects.toMatchObject(refused)
  await expect(busOn(database.url, 'bus_jobs').migrate()).rejects.toMatchObject(refused)
  expect(await schemasOf(database)).toEqual(['bus', 'pgboss'])
  const empty = await createTestDatabase({ empty: true })
  await busOn(empty.url, 'bus_jobs').migrate()
  await expect(busOn(empty.url).start()).rejects.toMatchObject(refused)
  expect(await schemasOf(empty)).toEqual(['bus', 'bus_jobs'])
})

test('names that pg-boss or PostgreSQL could not have, and schemas of others, are refused when the bus is made', () => {
  const events = defineEvents({})
  const make = (bossSchema: unknown) => () =>
    createBus({ database: 'postgres://localhost', events, source: 's', bossSchema: bossSchema as string })
  for (const name of [
    '',
    'bus',
    'public',
    'pg_jobs',
    'information_schema',
    'a"b',
    "a'b",
    'a.b',
    'a%b',
    'a$b',
    'a\\b',
    'a\nb',
    'ü'.repeat(26),
    '\ud800',
    7,
    null,
  ])
    expect(make(name)).toThrow(expect.objectContaining({ code: 'BUS_INVALID_OPTION' }))
  for (const name of [undefined, 'pgboss', 'Ünï çödé', 'select', 'a;b', '7jobs', 'ü'.repeat(25)])
    expect(make(name)).not.toThrow()
})

test('names are quoted wherever PostgreSQL says so', async () => {
  const { rows } = await createTestDatabase()
  const words = (await rows('select word from pg_get_keywords()')).map(({ word }) => String(word))
  const names = [...words, 'pgboss', 'bus_jobs', 'Jobs', 'büs', 'a b', '7jobs', '_', 'a7']
  for (const { name, quoted } of await rows(
    'select name, quote_ident(name) as quoted from unnest($1::text[]) name',
    [names],
  )) {
    // It quotes words too that are only sometimes more than a name.
    const isSometimes =
      (await rows(`select from pg_get_keywords() where word = $1 and catcode in ('C')`, [name])).length > 0
    expect([name, quoteBossSchema(String(name))]).toEqual([name, isSometimes ? name : quoted])
  }
})

test("pg-boss's own look at its schema finds nothing, whatever the name of that", async () => {
  const database = await createTestDatabase({ empty: true })
  for (const bossSchema of ['bus_jobs', '"Jobs of the büs"']) {
    await database.rows('drop schema if exists bus cascade')
    await busOn(database.url, bossSchema.replaceAll('"', '')).migrate()
    const boss = new PgBoss({
      connectionString: database.url,
      schema: bossSchema,
      migrate: false,
      supervise: false,
      schedule: false,
    })
    boss.on('error', () => {})
    await boss.start()
    expect((await boss.detectSchemaDrift()).ok).toBe(true)
    await boss.stop({ graceful: false })
  }
})

test('the schema of the bus itself is the same wherever pg-boss is, but for its name', async () => {
  const [plain, named] = [await createTestDatabase(), await createTestDatabase({ empty: true })]
  await busOn(named.url, 'bus_jobs').migrate()
  const bodies = async ({ rows }: TestDatabase): Promise<string> =>
    (
      await rows(
        `select proname, pg_get_functiondef(oid) as body from pg_proc where pronamespace = 'bus'::regnamespace and prokind = 'f' order by 1`,
      )
    )
      .map(({ body }) => String(body))
      .join('\n')
  const expected = (await bodies(plain))
    .replaceAll('pgboss.', 'bus_jobs.')
    .replaceAll("'pgboss'", "'bus_jobs'")
  expect(await bodies(named)).toBe(expected)
  expect(expected).toContain('bus_jobs.job')
  expect(testBus(named.url).state).toBe('created')
})
