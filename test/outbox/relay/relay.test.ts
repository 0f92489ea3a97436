import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import { recordingLogger, testBus, type PaymentBus } from '../../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'
import { roomFor } from '../../support/slowness.ts'

const note = (payload: unknown) => ({ type: 'note', tenantId: 'a', payload }) as const

async function publishNotes(bus: PaymentBus, { db }: TestDatabase, from: number, to: number): Promise<void> {
  const notes = Array.from({ length: to - from }, (_, i) => note(from + i))
  await db.transaction(async (tx) => bus.publishMany(tx, notes))
}

/** Rings of the doorbell, as a listener of its own hears them. */
async function listenToDoorbell(url: string): Promise<{ readonly rings: () => number }> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => {})
  await client.connect()
  let rings = 0
  client.on('notification', () => {
    rings += 1
  })
  await client.query('listen bus_outbox')
  onTestFinished(async () => client.end())
  return { rings: () => rings }
}

test('several relays hand each event over once, and none is left', async () => {
  const database = await createTestDatabase({ max: 8 })
  const buses = Array.from({ length: 3 }, () => testBus(database.url))
  const seen = new Map<unknown, number>()
  for (const bus of buses) {
    bus.subscribe({
      name: 'seen',
      events: ['note'],
      handler: ({ payload }) => void seen.set(payload, (seen.get(payload) ?? 0) + 1),
    })
  }
  await Promise.all(buses.map(async (bus) => bus.start()))
  const [publisher] = buses
  await Promise.all(
    Array.from({ length: 20 }, async (_, i) =>
      publishNotes(publisher as PaymentBus, database, i * 250, (i + 1) * 250),
    ),
  )
  await until(
    'all receipts are there',
    async () => (await database.count('select count(*) from bus.deliveries')) === 5000,
  )
  expect(seen.size).toBe(5000)
  expect(new Set(seen.values())).toEqual(new Set([1]))
  expect(await database.count('select count(*) from bus.outbox')).toBe(0)
})

test('a sleeping relay is rung; publishers of a busy one stay silent', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  let seen = 0
  bus.subscribe({ name: 'seen', events: ['note'], handler: () => void (seen += 1) })
  await bus.start()
  await until('the relay sleeps', async () => (await bus.health()).relay === 'sleeping')
  const doorbell = await listenToDoorbell(database.url)
  await publishNotes(bus, database, 0, 1)
  await until('it was delivered', () => seen === 1)
  await until('the ring was heard', () => doorbell.rings() === 1)
  // Somebody holds the lock as an awake relay's publishers do: no ring, and the event is found all the same.
  await publishNotes(bus, database, 1, 2001)
  await until('all were delivered', () => seen === 2001)
  expect(doorbell.rings()).toBeLessThan(10)
  await until('the relay sleeps again', async () => (await bus.health()).relay === 'sleeping')
})

test('an event whose transaction saw the relay awake and commits late is found without a ring', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const seen: unknown[] = []
  bus.subscribe({ name: 'seen', events: ['note'], handler: ({ payload }) => void seen.push(payload) })
  // Published before any relay runs: nobody holds the lock, so the publisher takes it shared and will not ring.
  const commit = Promise.withResolvers<void>()
  const published = Promise.withResolvers<void>()
  const late = database.db.transaction(async (tx) => {
    await bus.publish(tx, note('late'))
    published.resolve()
    await commit.promise
  })
  await published.promise
  await bus.start()
  await publishNotes(bus, database, 0, 1)
  await until('the other one was delivered', () => seen.includes(0))
  expect((await bus.health()).relay).toBe('awake')
  const before = performance.now()
  commit.resolve()
  await late
  await until('the late one was delivered', () => seen.includes('late'))
  expect(performance.now() - before).toBeLessThan(roomFor(2000))
  await until('the relay sleeps', async () => (await bus.health()).relay === 'sleeping')
})

test('events that commit out of order are all delivered', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const seen: unknown[] = []
  bus.subscribe({ name: 'seen', events: ['note'], handler: ({ payload }) => void seen.push(payload) })
  await bus.start()
  const commits = Array.from({ length: 4 }, () => Promise.withResolvers<void>())
  const transactions = commits.map(async ({ promise }, i) =>
    database.db.transaction(async (tx) => {
      await bus.publish(tx, note(`held ${i}`))
      await promise
    }),
  )
  await until(
    'four positions are taken',
    async () => (await database.count('select last_value from bus.outbox_position_seq')) >= 4,
  )
  await database.sql.begin(
    async (tx) =>
      tx`insert into bus.events (tenant_id, type, source, payload) values ('a', 'note', 'sql', '"later"')`,
  )
  await until('the later one was delivered', () => seen.includes('later'))
  for (const { resolve } of commits.toReversed()) resolve()
  await Promise.all(transactions)
  await until('all were delivered', () => seen.length === 5)
  expect(new Set(seen)).toEqual(new Set(['held 0', 'held 1', 'held 2', 'held 3', 'later']))
})

test('scheduled events wait for their time, and those that are due go out', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const seen = new Map<unknown, number>()
  bus.subscribe({
    name: 'seen',
    events: ['note'],
    handler: ({ payload }) => void seen.set(payload, Date.now()),
  })
  await bus.start()
  const soon = new Date(Date.now() + 1200)
  await database.db.transaction(async (tx) => {
    await bus.publish(tx, { ...note('far'), availableAt: new Date(Date.now() + 86_400_000) })
    await bus.publish(tx, { ...note('soon'), availableAt: soon })
    await bus.publish(tx, { ...note('past'), availableAt: new Date(Date.now() - 1000) })
  })
  await until('the one of the past is there', () => seen.has('past'))
  expect(seen.has('soon')).toBe(false)
  await until('the due one is there', () => seen.has('soon'))
  expect(seen.get('soon')).toBeGreaterThanOrEqual(soon.getTime())
  expect((seen.get('soon') ?? Infinity) - soon.getTime()).toBeLessThan(roomFor(500))
  expect(await database.rows('select available_at is not null as scheduled from bus.outbox')).toEqual([
    { scheduled: true },
  ])
  expect(seen.has('far')).toBe(false)
})

test('the bus goes on after all of its connections were terminated', async () => {
  const database = await createTestDatabase()
  const logger = recordingLogger()
  const bus = testBus(database.url, { logger })
  const seen: unknown[] = []
  bus.subscribe({ name: 'seen', events: ['note'], handler: ({ payload }) => void seen.push(payload) })
  await bus.start()
  await publishNotes(bus, database, 0, 1)
  await until('the first was delivered', () => seen.length === 1)
  for (let round = 1; round <= 3; round += 1) {
    await database.rows(
      `select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'bossbus' and datname = current_database()`,
    )
    await publishNotes(bus, database, round, round + 1)
    await until(`event ${round} was delivered`, () => seen.includes(round))
  }
  await until(
    'every receipt is there',
    async () => (await database.count('select count(*) from bus.deliveries')) === 4,
  )
  await until('the bus is well', async () => (await bus.health()).ok)
  expect(logger.lines.some(({ message }) => message.startsWith('the listening connection was lost'))).toBe(
    true,
  )
})

test('another relay takes over when the one that held the bell is gone', async () => {
  const database = await createTestDatabase()
  const start = async (seen: unknown[]): Promise<PaymentBus> => {
    const bus = testBus(database.url)
    bus.subscribe({ name: 'seen', events: ['note'], handler: ({ payload }) => void seen.push(payload) })
    await bus.start()
    return bus
  }
  const seen: unknown[] = []
  const first = await start(seen)
  await until('the first leads', async () => (await first.health()).relay === 'sleeping')
  const second = await start(seen)
  await until('the second stands by', async () => (await second.health()).relay === 'standby')
  await first.stop()
  await publishNotes(second, database, 0, 1)
  await until('it was delivered', () => seen.length === 1)
  await until('the second leads', async () => (await second.health()).relay === 'sleeping')
  expect(seen).toEqual([0])
})

test('a crash in the middle of a claim leaves the outbox as it was', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const seen: unknown[] = []
  bus.subscribe({ name: 'seen', events: ['note'], handler: ({ payload }) => void seen.push(payload) })
  // The hand-over to pg-boss fails in the claiming transaction until the trigger is dropped.
  await bus.start()
  await database.rows(
    `create function public.refuse() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$`,
  )
  const [queue] = await database.rows(`select table_name from pgboss.queue where name = 'bus.seen'`)
  const table = `pgboss.${String(queue?.['table_name'])}`
  await database.rows(
    `create trigger refuse before insert on ${table} for each row execute function public.refuse()`,
  )
  await publishNotes(bus, database, 0, 10)
  await until('the relay has noticed', async () => (await bus.health()).relay === 'failing')
  expect(await database.count('select count(*) from bus.outbox')).toBe(10)
  await database.rows(`drop trigger refuse on ${table}`)
  await until('all were delivered', () => seen.length === 10)
  expect(await database.count('select count(*) from bus.outbox')).toBe(0)
})
