import { expect, test } from 'vitest'
import { recordingLogger, testBus } from '../../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'
import { migrateTo, shippedMigrationCount } from '../../support/migrations.ts'
import { createLogin } from '../../support/roles.ts'
import { openSession } from '../../support/session.ts'

const repaired = 'sequences were behind their tables and have been advanced'

/** What a logical replica has, or a table that came out of a dump alone: rows without the values of the sequences. */
async function loseSequences({ rows }: TestDatabase): Promise<void> {
  const sequences = await rows(
    `select oid::regclass::text as name from pg_class where relnamespace = 'bus'::regnamespace and relkind = 'S'`,
  )
  for (const { name } of sequences) await rows(`alter sequence ${String(name)} restart`)
}

const names = (fields: Readonly<Record<string, unknown>> | undefined): string[] =>
  ((fields?.['sequences'] ?? []) as { name: string }[]).map(({ name }) => name)

test('a copy without the values of its sequences is repaired at start, which names them, and keys keep their order', async () => {
  const database = await createTestDatabase()
  const { rows, db, count } = database
  const first = testBus(database.url)
  const seen: string[] = []
  const subscribe = (bus: typeof first): void => {
    bus.subscribe({ name: 'other', events: ['payment.*'], handler: () => {} })
    bus.subscribe({
      name: 'lines',
      events: ['note'],
      ordered: true,
      handler: ({ payload }) => void seen.push(String(payload)),
    })
  }
  const publish = async (bus: typeof first, payloads: readonly string[]) =>
    db.transaction(async (tx) =>
      bus.publishMany(
        tx,
        payloads.map((payload) => ({
          type: 'note',
          tenantId: 'acme',
          orderingKey: payload[0] ?? '',
          payload,
        })),
      ),
    )
  subscribe(first)
  await first.start()
  await first.subscriptions.pause('lines')
  for (let n = 1; n <= 3; n += 1) await publish(first, [`a${n}`, `b${n}`])
  await until(
    'they stand in line',
    async () => (await count('select count(*) from bus.ordered_events')) === 6,
  )
  await first.stop()
  // And some that are not handed over yet, of each kind.
  await publish(first, ['a4', 'b4'])
  await db.transaction(async (tx) =>
    first.publishMany(tx, [
      { type: 'note', tenantId: 'acme', payload: 'later', availableAt: new Date(Date.now() + 3_600_000) },
      { type: 'payment.refunded', tenantId: 'acme', payload: { paymentId: 'p' } },
    ]),
  )
  await loseSequences(database)
  const logger = recordingLogger()
  const second = testBus(database.url, { logger })
  subscribe(second)
  await second.start()
  const [line, ...more] = logger.lines.filter(({ message }) => message.startsWith(repaired))
  expect(more).toEqual([])
  expect(line?.level).toBe('warn')
  expect(names(line?.fields).toSorted()).toEqual([
    'bus.declarations_id_seq',
    'bus.migrations_id_seq',
    'bus.ordered_events_seq_seq',
    'bus.outbox_position_seq',
    'bus.subscription_revision',
    'bus.subscriptions_id_seq',
  ])
  await publish(second, ['a5', 'b5', 'c5'])
  await second.subscriptions.resume('lines')
  await until('all are delivered', () => seen.length === 11)
  for (const key of ['a', 'b'])
    expect(seen.filter((payload) => payload.startsWith(key))).toEqual(
      [1, 2, 3, 4, 5].map((n) => `${key}${n}`),
    )
  expect(await second.deadLetters.list()).toEqual([])
  // Positions stay in their bands.
  expect(
    await rows(
      `select position >= 4611686018427387904 as scheduled from bus.outbox where available_at is not null`,
    ),
  ).toEqual([{ scheduled: true }])
  expect(await count('select last_value from bus.outbox_position_seq')).toBeLessThan(10_000_000)
  await second.stop()
  const third = recordingLogger()
  const again = testBus(database.url, { logger: third })
  await again.start()
  expect(third.lines.filter(({ message }) => message.startsWith(repaired))).toEqual([])
})

test('migrate repairs sequences as well, of tables that are still to come too', async () => {
  const database = await createTestDatabase()
  const { rows } = database
  await rows('create table bus.of_tomorrow (id bigint generated always as identity primary key)')
  await rows('insert into bus.of_tomorrow overriding system value values (7)')
  const logger = recordingLogger()
  const bus = testBus(database.url, { logger })
  await bus.migrate()
  expect(names(logger.lines.find(({ message }) => message.startsWith(repaired))?.fields)).toEqual([
    'bus.of_tomorrow_id_seq',
  ])
  await rows('insert into bus.of_tomorrow default values')
})

test('the id of a subscription that is gone is not given again: its receipts are still there', async () => {
  const database = await createTestDatabase()
  const { rows, count, db } = database
  await rows(
    `insert into bus.receipts (subscription_id, event_id, attempts, duration_ms) select 5, bus.uuid_v7(), 1, 1`,
  )
  const bus = testBus(database.url)
  const seen: unknown[] = []
  bus.subscribe({ name: 'new', events: ['note'], handler: ({ payload }) => void seen.push(payload) })
  await bus.start()
  expect(await count(`select id from bus.subscriptions where name = 'new'`)).toBeGreaterThan(5)
  await db.transaction(async (tx) => bus.publish(tx, { type: 'note', tenantId: 'acme', payload: 1 }))
  await until('it is delivered', () => seen.length === 1)
})

test('a key gets an id that no row can stand under, whatever the sequences say', async () => {
  const database = await createTestDatabase()
  const { rows, count } = database
  // What is left of keys that a dump came without.
  await rows(
    `insert into bus.ordered_events (key_id, event_id, payload_bytes) select n, bus.uuid_v7(), 1 from generate_series(1, 100) n`,
  )
  const bus = testBus(database.url)
  const seen: unknown[] = []
  bus.subscribe({
    name: 'lines',
    events: ['note'],
    ordered: true,
    handler: ({ payload }) => void seen.push(payload),
  })
  await bus.start()
  await database.db.transaction(async (tx) =>
    bus.publish(tx, { type: 'note', tenantId: 'acme', orderingKey: 'k', payload: 'mine' }),
  )
  await until('it is delivered', () => seen.length > 0)
  await until('the key is done', async () => (await count('select count(*) from bus.ordered_keys')) === 0)
  expect(seen).toEqual(['mine'])
  const ids = await rows('select bus.new_key_id() as id from generate_series(1, 10000)')
  expect(new Set(ids.map(({ id }) => id)).size).toBeGreaterThan(9990)
  expect(ids.every(({ id }) => BigInt(String(id)) > 2n ** 60n && BigInt(String(id)) < 2n ** 63n)).toBe(true)
})

test('the role of a worker repairs sequences that it does not own, and one that may not look does not start', async () => {
  const database = await createTestDatabase()
  const { rows } = database
  await rows(
    `insert into bus.outbox (position, event_id, tenant_id, type) overriding system value values (500, bus.uuid_v7(), 'a', 'b')`,
  )
  const login = await createLogin(database, ['bus_worker'])
  const logger = recordingLogger()
  const bus = testBus(login.url, { logger })
  await bus.start()
  expect(names(logger.lines.find(({ message }) => message.startsWith(repaired))?.fields)).toEqual([
    'bus.outbox_position_seq',
  ])
  await bus.stop()
  await rows('revoke execute on function bus.repair_sequences from bus_worker')
  await expect(testBus(login.url).start()).rejects.toMatchObject({
    code: 'BUS_PERMISSION_DENIED',
    message: expect.stringContaining('no position is given twice') as string,
  })
})

test('a running bus that finds itself on another server looks at its sequences again', async () => {
  const database = await createTestDatabase()
  const { count } = database
  const logger = recordingLogger()
  const bus = testBus(database.url, { logger })
  await bus.start()
  await until('it listens', async () => (await bus.health()).listening)
  const session = await openSession(database)
  await session.rows(`insert into bus.outbox (position, event_id, tenant_id, type, available_at) overriding system value
    values (4611686018427387904 + 500, bus.uuid_v7(), 'a', 'b', now() + interval '1 day')`)
  await session.rows(
    'select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()',
  )
  await until('it has looked', () => logger.lines.some(({ message }) => message.startsWith(repaired)))
  await until('the test has a connection again', async () => (await count('select 1').catch(() => 0)) === 1)
  expect(await count('select last_value from bus.outbox_position_seq')).toBeGreaterThan(500)
})

test('migrate repairs the sequence of its own table before it writes to it', async () => {
  const database = await createTestDatabase({ empty: true })
  const { rows, count } = database
  await migrateTo(database.url, shippedMigrationCount() - 1)
  await rows('alter sequence bus.migrations_id_seq restart')
  const logger = recordingLogger()
  await testBus(database.url, { logger }).migrate()
  expect(names(logger.lines.find(({ message }) => message.startsWith(repaired))?.fields)).toEqual([
    'bus.migrations_id_seq',
  ])
  expect(await count('select count(*) from bus.migrations')).toBe(shippedMigrationCount())
  await testBus(database.url).migrate()
})

test('nothing is changed where the sequences are right, and two at once repair once', async () => {
  const database = await createTestDatabase()
  const { rows, sql } = database
  expect(await rows('select * from bus.repair_sequences()')).toEqual([])
  await rows(
    `insert into bus.outbox (position, event_id, tenant_id, type) overriding system value values (500, bus.uuid_v7(), 'a', 'b')`,
  )
  const both = await Promise.all([1, 2].map(async () => sql`select * from bus.repair_sequences()`))
  expect(both.map((found) => found.length).toSorted((a, b) => a - b)).toEqual([0, 1])
  await rows(`insert into bus.events (tenant_id, type, source, payload) values ('a', 'b', 'c', '1')`)
})

test('what is published meanwhile does not look like a sequence that is behind', async () => {
  const database = await createTestDatabase()
  let stopped = false
  const publishing = [1, 2, 3].map(async () => {
    const { rows: publish } = await openSession(database)
    while (!stopped)
      await publish(
        `insert into bus.events (tenant_id, type, source, payload) select 'acme', 'note', 'psql', '1' from generate_series(1, 20)`,
      )
  })
  const found: unknown[] = []
  for (let n = 0; n < 150; n += 1)
    found.push(...(await database.rows('select name from bus.repair_sequences()')))
  stopped = true
  await Promise.all(publishing)
  expect(found).toEqual([])
})
