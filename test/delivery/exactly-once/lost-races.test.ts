import { sql } from 'drizzle-orm'
import pg from 'pg'
import { expect, test, vi, onTestFinished } from 'vitest'
import { testBus } from '../../support/bus.ts'
import { createTestDatabase, until } from '../../support/database.ts'

const note = (payload: unknown) => ({ type: 'note', tenantId: 'a', payload }) as const
const once = { maxAttempts: 1, delaySeconds: 0, backoff: false } as const
const raise = (code: string) =>
  sql.raw(`do $$ begin raise exception 'lost' using errcode = '${code}'; end $$`)

test.each(['40001', '40P01'])(
  'a handler whose transaction loses with %s runs again with no attempt counted',
  async (code) => {
    const database = await createTestDatabase()
    const bus = testBus(database.url)
    const runs = new Map<unknown, number>()
    bus.subscribe({
      name: 'once',
      events: ['note'],
      mode: 'exactly-once',
      retry: once,
      handler: async ({ payload }, { tx, attempt }) => {
        const run = (runs.get(payload) ?? 0) + 1
        runs.set(payload, run)
        expect(attempt).toBe(1)
        if (payload === 'loses' && run < 8) await tx.execute(raise(code))
      },
    })
    await database.db.transaction(async (tx) => bus.publishMany(tx, ['loses', 'beside', 'after'].map(note)))
    await bus.start()
    await until(
      'all have receipts',
      async () => (await database.count('select count(*) from bus.deliveries')) === 3,
    )
    expect(runs.get('loses')).toBe(8)
    expect(await database.rows('select distinct attempts from bus.deliveries')).toEqual([{ attempts: 1 }])
    expect(await bus.deadLetters.list()).toEqual([])
  },
)

test('a handler that loses each time has made one attempt after ten times, and the dead letter says so', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  let runCount = 0
  bus.subscribe({
    name: 'once',
    events: ['note'],
    mode: 'exactly-once',
    retry: { ...once, maxAttempts: 2 },
    handler: async (_event, { tx }) => {
      runCount += 1
      await tx.execute(raise('40P01'))
    },
  })
  await database.db.transaction(async (tx) => bus.publish(tx, note(1)))
  await bus.start()
  await until('it is dead', async () => (await bus.deadLetters.list()).length === 1)
  const [dead] = await bus.deadLetters.list()
  expect(runCount).toBe(20)
  expect(dead?.attempts).toBe(2)
  expect(dead?.failures.map(({ code }) => code)).toEqual([
    'BUS_HANDLER_TRANSACTION_CONFLICT',
    'BUS_HANDLER_TRANSACTION_CONFLICT',
  ])
  expect(dead?.failures[0]?.message).toContain('lost against concurrent ones 10 times in a row')
})

test('handlers that deadlock with each other all have their effect once, at their first attempt', async () => {
  const database = await createTestDatabase()
  await database.rows('create table accounts (id int primary key, balance int not null)')
  await database.rows('insert into accounts select g, 0 from generate_series(1, 4) g')
  await database.rows(
    `do $$ begin execute format('alter database %I set deadlock_timeout = ''20ms''', current_database()); end $$`,
  )
  const bus = testBus(database.url)
  bus.subscribe({
    name: 'transfers',
    events: ['note'],
    mode: 'exactly-once',
    concurrency: 8,
    retry: once,
    handler: async ({ payload }, { tx }) => {
      const { from, to } = payload as { from: number; to: number }
      await tx.execute(sql`update accounts set balance = balance - 1 where id = ${from}`)
      await new Promise((resolve) => setTimeout(resolve, 5))
      await tx.execute(sql`update accounts set balance = balance + 1 where id = ${to}`)
    },
  })
  await bus.start()
  const transfers = Array.from({ length: 80 }, (_, i) => ({
    from: 1 + (i % 4),
    to: 1 + ((i + 1 + (i % 3)) % 4),
  }))
  await Promise.all(
    transfers.map(async (transfer) => database.db.transaction(async (tx) => bus.publish(tx, note(transfer)))),
  )
  await until(
    'all are done',
    async () => (await database.count('select count(*) from bus.deliveries')) === 80,
  )
  const expected = [1, 2, 3, 4].map((id) => ({
    id,
    balance:
      transfers.filter(({ to }) => to === id).length - transfers.filter(({ from }) => from === id).length,
  }))
  expect(await database.rows('select id, balance from accounts order by id')).toEqual(expected)
  expect(await database.rows('select distinct attempts from bus.deliveries')).toEqual([{ attempts: 1 }])
  expect(await bus.deadLetters.list()).toEqual([])
})

test.each(['serializable', 'repeatable read'])(
  'where the database begins transactions as %s, handlers that meet at one row are not run in vain',
  async (level) => {
    const database = await createTestDatabase()
    await database.rows('create table counters (n int not null)')
    await database.rows('insert into counters values (0)')
    await database.rows(
      `do $$ begin execute format('alter database %I set default_transaction_isolation = ''${level}''', current_database()); end $$`,
    )
    const bus = testBus(database.url)
    let runCount = 0
    const levels = new Set<unknown>()
    const runs: string[] = []
    bus.subscribe({
      name: 'counter',
      events: ['note'],
      mode: 'exactly-once',
      concurrency: 10,
      batchSize: 5,
      retry: once,
      handler: async (_event, { tx }) => {
        runCount += 1
        const { rows } = await tx.execute(sql`select current_setting('transaction_isolation') as level`)
        levels.add(rows[0]?.['level'])
        await tx.execute(sql`update counters set n = n + 1`)
      },
    })
    bus.subscribe({
      name: 'ordered',
      events: ['payment.refunded'],
      ordered: true,
      handler: ({ payload }) => void runs.push(payload.paymentId),
    })
    await bus.start()
    const ids = Array.from({ length: 200 }, (_, i) => String(i))
    await Promise.all(
      ids.map(async (paymentId) => {
        await bus.tryPublish(note(paymentId))
        await bus.tryPublish({
          type: 'payment.refunded',
          tenantId: 'a',
          orderingKey: String(Number(paymentId) % 7),
          payload: { paymentId },
        })
      }),
    )
    await until(
      'all are done',
      async () => (await database.count('select count(*) from bus.deliveries')) === 400,
    )
    expect([...levels]).toEqual(['read committed'])
    expect(await database.count('select n from counters')).toBe(200)
    expect(runCount).toBe(200)
    expect(runs.toSorted()).toEqual(ids.toSorted())
    expect(await bus.deadLetters.list()).toEqual([])
  },
)

test('every transaction of the bus says its level and whether it writes', async () => {
  const database = await createTestDatabase({ empty: true })
  const query = vi.spyOn(pg.Client.prototype, 'query')
  onTestFinished(() => query.mockRestore())
  const bus = testBus(database.url)
  await bus.migrate()
  bus.subscribe({ name: 'plain', events: ['note'], handler: () => {} })
  bus.subscribe({ name: 'ordered', events: ['payment.refunded'], ordered: true, handler: () => {} })
  bus.subscribe({ name: 'once', events: ['note'], mode: 'exactly-once', handler: () => {} })
  await bus.start()
  await bus.tryPublish(note(1))
  await bus.tryPublish({
    type: 'payment.refunded',
    tenantId: 'a',
    orderingKey: 'k',
    payload: { paymentId: 'p' },
  })
  await until('all are done', async () => (await database.count('select count(*) from bus.deliveries')) === 3)
  await bus.tenant('a').events.find()
  await bus.tenant('a').query(async (db) => db.execute('select 1'))
  const begins = query.mock.calls
    .map(([config]) => (typeof config === 'string' ? config : String((config as { text?: unknown }).text)))
    .filter((text) => /^\s*begin\b/i.test(text))
    // pg-boss's own scripts run at the level that the session has.
    .filter((text) => !/^\s*BEGIN;/.test(text))
  expect(begins.length).toBeGreaterThan(5)
  expect(
    begins.filter((text) => !/^begin isolation level read committed read (?:write|only);/.test(text)),
  ).toEqual([])
})
