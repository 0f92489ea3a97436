import { sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/node-postgres'
import pg from 'pg'
import { expect, onTestFinished, test, vi } from 'vitest'
import { testBus, type PaymentBus } from '../../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'
import { asIfTransaction } from '../../support/transact.ts'

const inAnHour = () => new Date(Date.now() + 3_600_000)
const note = (payload: unknown, availableAt?: Date) =>
  ({ type: 'note', tenantId: 'acme', payload, availableAt }) as const

async function publish(
  bus: PaymentBus,
  { db }: TestDatabase,
  event: ReturnType<typeof note>,
): Promise<string> {
  return (await db.transaction(async (tx) => bus.publish(tx, event))).id
}

/** The event ids in the log, in the outbox, and among the cancelled. */
async function places({
  rows,
}: TestDatabase): Promise<{ log: unknown[]; outbox: unknown[]; cancelled: unknown[] }> {
  const ids = async (text: string) => (await rows(text)).map(({ id }) => id)
  return {
    log: await ids('select id from bus.events order by id'),
    outbox: await ids('select event_id as id from bus.outbox order by event_id'),
    cancelled: await ids('select event_id as id from bus.cancellations order by event_id'),
  }
}

test('a cancelled event is not delivered, stays in the log, and is written down as cancelled', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const cancelled = await publish(bus, database, note('cancelled', inAnHour()))
  const kept = await publish(bus, database, note('kept', inAnHour()))
  expect(await bus.cancel(cancelled)).toBe(true)
  expect(await bus.cancel(cancelled)).toBe(false)
  expect(await places(database)).toEqual({ log: [cancelled, kept], outbox: [kept], cancelled: [cancelled] })
  expect(
    await database.rows(
      `select tenant_id, cancelled_at between now() - interval '1 minute' and now() as "now" from bus.cancellations`,
    ),
  ).toEqual([{ tenant_id: 'acme', now: true }])
})

test('a cancellation commits and rolls back with its transaction', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const id = await publish(bus, database, note('scheduled', inAnHour()))
  const results: boolean[] = []
  await database.db
    .transaction(async (tx) => {
      results.push(await bus.cancel(tx, id))
      throw new Error('changed my mind')
    })
    .catch(() => {})
  expect(results).toEqual([true])
  expect(await places(database)).toEqual({ log: [id], outbox: [id], cancelled: [] })
  // The transaction has written before: one call. And what it has published itself.
  const own = await database.db.transaction(async (tx) => {
    const { id: ownId } = await bus.publish(tx, note('own', inAnHour()))
    expect(await bus.cancel(tx, ownId)).toBe(true)
    expect(await bus.cancel(tx, id, { tenantId: 'acme' })).toBe(true)
    expect(await bus.cancel(tx, id)).toBe(false)
    return ownId
  })
  expect(await places(database)).toEqual({ log: [id, own], outbox: [], cancelled: [id, own] })
})

test('cancelling works with Drizzle on node-postgres', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const pool = new pg.Pool({ connectionString: database.url, max: 1 })
  pool.on('error', () => {})
  onTestFinished(async () => pool.end())
  const id = await publish(bus, database, note('scheduled', inAnHour()))
  expect(await drizzle({ client: pool }).transaction(async (tx) => bus.cancel(tx, id))).toBe(true)
})

test('what is not waiting for its time cannot be cancelled', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const ready = await publish(bus, database, note('ready'))
  const past = await publish(bus, database, note('past', new Date(Date.now() - 1000)))
  const scheduled = await publish(bus, database, note('scheduled', inAnHour()))
  expect(await bus.cancel(ready)).toBe(false)
  expect(await bus.cancel(past)).toBe(false)
  expect(await bus.cancel('01900000-0000-7000-8000-000000000000')).toBe(false)
  expect(await bus.cancel(scheduled, { tenantId: 'another' })).toBe(false)
  expect((await places(database)).outbox).toHaveLength(3)
  expect(await bus.cancel(scheduled, { tenantId: 'acme' })).toBe(true)
})

test('an event that is due in the year 9999 or never can be cancelled', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const [row] = await database.rows(
    `insert into bus.events (tenant_id, type, source, payload, available_at)
     values ('acme', 'note', 'psql', '1', 'infinity') returning id`,
  )
  expect(await bus.cancel(String(row?.['id']))).toBe(true)
})

test('its keys stay used: publishing it again is a duplicate of what was cancelled', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const event = { ...note('scheduled', inAnHour()), eventId: 'e1' }
  const id = await publish(bus, database, event)
  expect(await bus.cancel(id)).toBe(true)
  expect(await database.db.transaction(async (tx) => bus.publish(tx, event))).toEqual({ id, duplicate: true })
})

test('what is no event id, no option or no transaction is refused before anything is written', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const id = await publish(bus, database, note('scheduled', inAnHour()))
  await expect(bus.cancel('42')).rejects.toMatchObject({ code: 'BUS_INVALID_OPTION' })
  await expect(bus.cancel(id, { tenant: 'acme' } as object)).rejects.toMatchObject({
    code: 'BUS_INVALID_OPTION',
    message: expect.stringMatching(/Did you mean `tenantId`/) as string,
  })
  await expect(bus.cancel(id, { tenantId: '' })).rejects.toMatchObject({ code: 'BUS_INVALID_OPTION' })
  await expect(bus.cancel(undefined as never, id)).rejects.toMatchObject({ code: 'BUS_NOT_IN_TRANSACTION' })
  await expect(bus.cancel(asIfTransaction(database.db), id)).rejects.toMatchObject({
    code: 'BUS_NOT_IN_TRANSACTION',
  })
  let ended: Parameters<Parameters<typeof database.db.transaction>[0]>[0] | undefined
  await database.db.transaction(async (tx) => {
    ended = tx
    await tx.execute(sql`select 1`)
  })
  await expect(bus.cancel(ended as never, id)).rejects.toMatchObject({
    name: /TransactionError|DatabaseError/,
  })
  expect(await places(database)).toEqual({ log: [id], outbox: [id], cancelled: [] })
})

test('of a cancellation and the delivery exactly one happens', async () => {
  const database = await createTestDatabase({ max: 10 })
  const buses = [testBus(database.url), testBus(database.url)] as const
  const [bus] = buses
  const delivered = new Set<string>()
  for (const each of buses) {
    each.subscribe({ name: 'seen', events: ['note'], handler: ({ id }) => void delivered.add(id) })
    await each.start()
  }
  // Due one after the other over half a second, each cancelled at about its time.
  const start = Date.now() + 300
  const published = await database.db.transaction(async (tx) =>
    bus.publishMany(
      tx,
      // The last one is cancelled for sure.
      Array.from({ length: 501 }, (_, i) => note(i, new Date(start + (i < 500 ? i : 3_600_000)))),
    ),
  )
  const cancelled = new Set<string>()
  await until('the first one is due', () => Date.now() >= start)
  for (const { id } of published) if (await bus.cancel(id)) cancelled.add(id)
  await until('each has had one end or the other', () => delivered.size + cancelled.size >= published.length)
  expect([...cancelled].filter((id) => delivered.has(id))).toEqual([])
  expect((await places(database)).cancelled).toEqual([...cancelled].toSorted())
  expect(cancelled.size).toBeGreaterThan(0)
})

test('a due event whose cancellation is not decided yet is waited for without turning in circles', async () => {
  const database = await createTestDatabase()
  // Before the bus connects: its connections keep the method they find.
  const queries = vi.spyOn(pg.Client.prototype, 'query')
  onTestFinished(() => queries.mockRestore())
  const bus = testBus(database.url)
  const delivered: unknown[] = []
  bus.subscribe({ name: 'seen', events: ['note'], handler: ({ payload }) => void delivered.push(payload) })
  await bus.start()
  const soon = new Date(Date.now() + 1500)
  const id = await publish(bus, database, note('undecided', soon))
  const decided = Promise.withResolvers<void>()
  const cancelling = database.db
    .transaction(async (tx) => {
      await bus.cancel(tx, id)
      await decided.promise
      throw new Error('not cancelled after all')
    })
    .catch(() => {})
  await publish(bus, database, note('another', soon))
  await until('the other one is delivered', () => delivered.length > 0)
  const countBefore = queries.mock.calls.length
  const beganAt = performance.now()
  await until('half a second is over', () => performance.now() > beganAt + 500)
  // A relay that turns in circles sends hundreds of statements a second.
  const perSecond = (queries.mock.calls.length - countBefore) / ((performance.now() - beganAt) / 1000)
  expect(perSecond).toBeGreaterThan(0)
  expect(perSecond).toBeLessThan(150)
  expect(delivered).toEqual(['another'])
  decided.resolve()
  await cancelling
  await until('it is delivered', () => delivered.length === 2)
  expect(delivered).toEqual(['another', 'undecided'])
})

test(
  'one of a hundred thousand events for the same moment is found through the index',
  { tags: ['slow'] },
  async () => {
    const database = await createTestDatabase()
    const bus = testBus(database.url)
    await database.rows(
      `insert into bus.events (tenant_id, type, source, payload, available_at)
     select 'acme', 'note', 'psql', '1', '2100-01-01' from generate_series(1, 100000)`,
    )
    const [row] = await database.rows(
      'select event_id from bus.outbox order by position offset 50000 limit 1',
    )
    const plan = await database.rows(
      `explain (analyze, buffers off, costs off, timing off, summary off)
     delete from bus.outbox where event_id = $1 and available_at = (select available_at from bus.events where id = $1)`,
      [row?.['event_id']],
    )
    expect(JSON.stringify(plan)).toMatch(/Index Scan using outbox_scheduled_idx[^}]*rows=1/)
    expect(await database.count('select count(*) from bus.outbox')).toBe(99_999)
    expect(await bus.cancel(String(row?.['event_id']))).toBe(false)
    const [next] = await database.rows(
      'select event_id from bus.outbox order by position offset 70000 limit 1',
    )
    expect(await bus.cancel(String(next?.['event_id']))).toBe(true)
  },
)
