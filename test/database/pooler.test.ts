import { drizzle } from 'drizzle-orm/node-postgres'
import { drizzle as drizzleOnPostgresJs } from 'drizzle-orm/postgres-js'
import pg from 'pg'
import postgres from 'postgres'
import { expect, onTestFinished, test } from 'vitest'
import { createBus } from '../../src/index.ts'
import { lostCommitsError } from '../../src/bus-publishing.ts'
import { pollingWarning } from '../../src/outbox/relay/notifier.ts'
import { sessionSettings, startupSettings } from '../../src/database/session-settings.ts'
import { paymentEvents, recordingLogger, testBus } from '../support/bus.ts'
import { asAdmin } from '../../src/testing/databases.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { goodDelivery, runDeliverySuite } from '../support/delivery-suite.ts'
import { countEffects, createEffects, writeEffect } from '../support/effects.ts'
import { pgbouncerPath, startPgbouncer } from '../support/pgbouncer.ts'
import { asIfTransaction } from '../support/transact.ts'

const note = (payload: unknown) => ({ type: 'note', tenantId: 'a', payload }) as const

const sessionLocks = `select count(*) from pg_locks l join pg_stat_activity a using (pid)
  where l.locktype = 'advisory' and a.datname = current_database()`

async function deliversEverything(database: TestDatabase, url: string, logger = recordingLogger()) {
  await createEffects(database)
  const bus = testBus(url, { logger })
  const seen: unknown[] = []
  bus.subscribe({ name: 'seen', events: ['note'], handler: (event) => void seen.push(event.payload) })
  bus.subscribe({
    name: 'once',
    events: ['note'],
    mode: 'exactly-once',
    handler: async (event, { tx }) => writeEffect(tx, event),
  })
  await bus.start()
  const pool = new pg.Pool({ connectionString: url, max: 4 })
  onTestFinished(async () => pool.end())
  const db = drizzle(pool)
  // Some in one transaction, some each in its own, with other statements between, and some rolled back.
  await db.transaction(async (tx) => bus.publishMany(tx, [1, 2, 3].map(note)))
  await Promise.all(
    Array.from({ length: 40 }, async (_, i) =>
      db.transaction(async (tx) => {
        await tx.execute('select 1')
        await bus.publish(tx, note(10 + i))
        await bus.publish(tx, note(100 + i))
      }),
    ),
  )
  await db
    .transaction(async (tx) => {
      await bus.publish(tx, note('rolled back'))
      throw new Error('no')
    })
    .catch(() => {})
  await until(
    'all are delivered',
    async () => seen.length >= 83 && (await countEffects(database)).effects >= 83,
  )
  expect(new Set(seen).size).toBe(83)
  expect(await countEffects(database)).toMatchObject({ effects: 83, distinct: 83 })
  return { bus, db, logger }
}

test.skipIf(pgbouncerPath === undefined)(
  'behind PgBouncer in transaction mode everything is delivered by polling, with one warning and no session lock',
  async () => {
    const database = await createTestDatabase({ empty: true })
    const url = await startPgbouncer(database.url, 'transaction')
    const installer = createBus({
      database: url,
      events: paymentEvents,
      source: 's',
      logger: recordingLogger(),
    })
    await installer.migrate()
    await installer.migrate()
    await installer.stop()
    const { bus, db, logger } = await deliversEverything(database, url)
    await until('it polls', async () => (await bus.health()).relay === 'polling')
    expect(await bus.health()).toMatchObject({ ok: true, listening: false })
    expect(logger.lines.filter(({ message }) => message === pollingWarning)).toHaveLength(1)
    expect(await database.count(sessionLocks)).toBe(0)
    // Publishing outside a transaction is found out here too.
    await expect(bus.publish(asIfTransaction(db), note('alone'))).rejects.toMatchObject({
      code: 'BUS_NOT_IN_TRANSACTION',
    })
    const sql = postgres(url, { prepare: false, max: 3 })
    onTestFinished(async () => sql.end({ timeout: 1 }))
    const { id } = await drizzleOnPostgresJs(sql).transaction(async (tx) =>
      bus.publish(tx, note('postgres.js')),
    )
    await until(
      'it is delivered',
      async () =>
        (await database.count('select count(*) from bus.deliveries where event_id = $1', [id])) === 2,
    )
    expect(await bus.tryPublish(note('try'))).toMatchObject({ duplicate: false })
  },
)

test.skipIf(pgbouncerPath === undefined)(
  'behind PgBouncer in session mode notifications arrive, and nothing is warned about',
  async () => {
    const database = await createTestDatabase()
    const { bus, logger } = await deliversEverything(
      database,
      await startPgbouncer(database.url, 'session', ['server_reset_query = DISCARD ALL']),
    )
    await until('it listens', async () => (await bus.health()).listening)
    expect(logger.lines.filter(({ level }) => level !== 'info')).toEqual([])
  },
)

test('on a direct connection notifications arrive, and nothing is warned about', async () => {
  const database = await createTestDatabase()
  const { bus, logger } = await deliversEverything(database, database.url)
  await until('it sleeps', async () => (await bus.health()).relay === 'sleeping')
  expect(await bus.health()).toMatchObject({ ok: true, listening: true })
  expect(logger.lines.filter(({ level }) => level !== 'info')).toEqual([])
  expect(await database.count(sessionLocks)).toBe(2)
})

async function setInDatabase(
  { url }: TestDatabase,
  settings: Readonly<Record<string, string>>,
): Promise<void> {
  await asAdmin(url, async (admin) => {
    const { rows } = await admin.query<{ name: string }>('select lower(name) as name from pg_settings')
    const known = new Set(rows.map(({ name }) => name))
    for (const [name, value] of Object.entries(settings).filter(([each]) => known.has(each)))
      await admin.query(`alter database ${new URL(url).pathname.slice(1)} set ${name} = ${value}`)
  })
}

test.skipIf(pgbouncerPath === undefined).each(['transaction', 'session'] as const)(
  'behind PgBouncer in %s mode settings of the database change nothing, and none of the bus is left to other clients',
  async (mode) => {
    const database = await createTestDatabase()
    await setInDatabase(database, {
      ...{
        datestyle: `'SQL, DMY'`,
        intervalstyle: 'sql_standard',
        timezone: `'Asia/Kathmandu'`,
        bytea_output: 'escape',
      },
      ...{ standard_conforming_strings: 'off', array_nulls: 'off', extra_float_digits: '-15', jit: 'on' },
      ...{ transaction_timeout: `'3s'`, idle_in_transaction_session_timeout: `'1s'` },
    })
    const url = await startPgbouncer(database.url, mode)
    expect(await runDeliverySuite(database, url)).toEqual(goodDelivery)
    const client = new pg.Client({ connectionString: url })
    await client.connect()
    onTestFinished(async () => client.end())
    const names = [...Object.keys(sessionSettings.bus), ...Object.keys(startupSettings.bus)]
    const read = async (executor: Pick<pg.Client, 'query'>): Promise<unknown> => {
      const values: unknown[] = []
      for (const name of names)
        values.push((await executor.query('select current_setting($1, true) as value', [name])).rows[0])
      return values
    }
    let direct: unknown
    await asAdmin(database.url, async (admin) => {
      direct = await read(admin)
    })
    // Each statement may go to another server connection.
    for (let turn = 0; turn < 5; turn += 1) expect(await read(client)).toEqual(direct)
  },
)

test.skipIf(pgbouncerPath === undefined).each([
  ['default_transaction_isolation', 'serializable'],
  ['default_transaction_read_only', 'on'],
  ['row_security', 'off'],
  ['search_path', 'public, pg_catalog'],
])(
  'behind PgBouncer, where the bus cannot set it for itself, %s = %s is refused at the start',
  async (name, value) => {
    const database = await createTestDatabase()
    await setInDatabase(database, { [name]: name === 'search_path' ? value : `'${value}'` })
    const pooled = testBus(await startPgbouncer(database.url, 'transaction'))
    await expect(pooled.start()).rejects.toMatchObject({
      code: 'BUS_SETTING_UNSUPPORTED',
      message: expect.stringContaining(`\`${name}\` is \`${value}\``) as string,
    })
    await testBus(database.url).start()
  },
)

test.skipIf(pgbouncerPath === undefined)(
  'behind PgBouncer in transaction mode a postgres.js client that prepares is found out, and one that does not loses nothing',
  async () => {
    const database = await createTestDatabase()
    await database.rows('create table states (n int)')
    const url = await startPgbouncer(database.url, 'transaction')
    const publishAll = async (prepare: boolean) => {
      const logger = recordingLogger()
      const bus = testBus(database.url, { logger })
      const sql = postgres(url, { max: 4, prepare, onnotice: () => {} })
      onTestFinished(async () => sql.end({ timeout: 1 }))
      const db = drizzleOnPostgresJs(sql)
      let committedCount = 0
      for (let round = 0; round < 20; round += 1) {
        const transactions = Array.from({ length: 4 }, async (_, n) =>
          db.transaction(async (tx) => {
            await tx.execute(`insert into states values (${round * 4 + n})`)
            await bus.publish(tx, note(round * 4 + n))
          }),
        )
        for (const { status } of await Promise.allSettled(transactions))
          if (status === 'fulfilled') committedCount += 1
      }
      const found = logger.lines.filter(({ message }) => message === lostCommitsError)
      return { committedCount, storedCount: await database.count('select count(*) from states'), found }
    }
    const without = await publishAll(false)
    expect(without).toMatchObject({ committedCount: 80, storedCount: 80, found: [] })
    const { found } = await publishAll(true)
    expect(found).toMatchObject([{ level: 'error' }])
  },
)

test.skipIf(pgbouncerPath === undefined)(
  'behind PgBouncer in session mode, and on a direct connection, a postgres.js client may prepare',
  async () => {
    const database = await createTestDatabase()
    for (const url of [database.url, await startPgbouncer(database.url, 'session')]) {
      const logger = recordingLogger()
      const bus = testBus(database.url, { logger })
      const sql = postgres(url, { max: 4, idle_timeout: 1, onnotice: () => {} })
      onTestFinished(async () => sql.end({ timeout: 1 }))
      const db = drizzleOnPostgresJs(sql)
      const publish = async () =>
        Promise.all(
          Array.from({ length: 8 }, async (_, n) => db.transaction(async (tx) => bus.publish(tx, note(n)))),
        )
      await publish()
      // Connections are opened anew.
      await new Promise((resolve) => setTimeout(resolve, 1500))
      await publish()
      expect(logger.lines).toEqual([])
    }
    expect(await database.count('select count(*) from bus.events')).toBe(32)
  },
)
