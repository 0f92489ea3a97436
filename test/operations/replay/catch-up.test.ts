import { setTimeout as pause } from 'node:timers/promises'
import { drizzle } from 'drizzle-orm/node-postgres'
import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import { testBus, type PaymentBus } from '../../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'
import { createEffects, writeEffect } from '../../support/effects.ts'

type Mode = 'at-least-once' | 'exactly-once' | 'ordered'

/** A bus that publishes and dispatches, and has another subscription. */
async function startPublisher(database: TestDatabase): Promise<PaymentBus> {
  const bus = testBus(database.url)
  bus.subscribe({ name: 'before', events: ['**'], handler: () => {} })
  await bus.start()
  return bus
}

const receiptsOf = async ({ rows }: TestDatabase, name: string): Promise<Map<string, number>> => {
  const found = await rows(
    `select d.event_id, count(*)::int as n from bus.deliveries d join bus.subscriptions s on s.id = d.subscription_id
     where s.name = $1 group by 1`,
    [name],
  )
  return new Map(found.map(({ event_id, n }) => [String(event_id), Number(n)]))
}

const logged = async ({ rows }: TestDatabase): Promise<string[]> =>
  (await rows('select id from bus.events order by id')).map(({ id }) => String(id))

async function untilCaughtUp(bus: PaymentBus): Promise<void> {
  await until('it has caught up', async () => {
    const [operation] = await bus.operations.list({ kind: 'catch-up' })
    return operation?.state === 'done'
  })
}

/** Every event of the log exactly once in the ledger. */
async function expectEachOnce(database: TestDatabase, name: string): Promise<void> {
  const all = await logged(database)
  await until('all are delivered', async () => (await receiptsOf(database, name)).size >= all.length).catch(
    () => {},
  )
  const receipts = await receiptsOf(database, name)
  expect(all.filter((id) => !receipts.has(id))).toEqual([])
  expect([...receipts].filter(([, n]) => n !== 1)).toEqual([])
  expect(receipts.size).toBe(all.length)
}

test.for<Mode>(['at-least-once', 'exactly-once', 'ordered'])(
  'a new %s subscription from the beginning gets every event once, while publishers run and commit in any order',
  async (mode) => {
    const database = await createTestDatabase()
    await createEffects(database)
    const publisher = await startPublisher(database)
    const pool = new pg.Pool({ connectionString: database.url, max: 8 })
    onTestFinished(async () => pool.end())
    const db = drizzle(pool)
    let n = 0
    let isOver = false
    const event = () => ({
      type: 'note' as const,
      tenantId: 'acme',
      orderingKey: `k${n % 7}`,
      payload: (n += 1),
      ...(n % 23 === 0 ? { availableIn: { seconds: 1 } } : {}),
    })
    /** Transactions that stay open for up to a second after they have published. */
    async function publishSlowly(): Promise<void> {
      while (!isOver) {
        await db.transaction(async (tx) => {
          await publisher.publishMany(tx, [event(), event()])
          await pause(Math.random() < 0.2 ? 600 + Math.random() * 400 : Math.random() * 20)
          await publisher.publish(tx, event())
        })
      }
    }
    for (let batch = 0; batch < 10; batch += 1)
      await db.transaction(
        async (tx) => void (await publisher.publishMany(tx, Array.from({ length: 100 }, event))),
      )
    const publishers = Array.from({ length: 6 }, publishSlowly)
    await pause(300)
    const bus = testBus(database.url)
    const handled = new Map<string, number>()
    const replayed = new Set<boolean>()
    const turns = new Map<string, number[]>()
    const common = { name: 'late', events: ['note'], startFrom: 'beginning' } as const
    if (mode === 'exactly-once')
      bus.subscribe({
        ...common,
        mode,
        handler: async (stored, { tx, isReplay }) => {
          replayed.add(isReplay)
          await writeEffect(tx, stored)
        },
      })
    else
      bus.subscribe({
        ...common,
        ordered: mode === 'ordered',
        handler: ({ id, orderingKey = '', payload }, { isReplay }) => {
          replayed.add(isReplay)
          handled.set(id, (handled.get(id) ?? 0) + 1)
          turns.set(orderingKey, [...(turns.get(orderingKey) ?? []), Number(payload)])
        },
      })
    await bus.start()
    await pause(700)
    isOver = true
    await Promise.all(publishers)
    await untilCaughtUp(bus)
    await expectEachOnce(database, 'late')
    const all = await logged(database)
    const effects = await database.rows('select event_id, count(*)::int as n from effects group by 1')
    const counts = mode === 'exactly-once' ? effects.map(({ n }) => Number(n)) : [...handled.values()]
    expect(counts).toEqual(all.map(() => 1))
    expect([...replayed]).toEqual([false])
    expect(await database.count('select count(*) from bus.catch_up_dispatched')).toBe(0)
    expect(
      await database.count('select count(*) from bus.subscriptions where catch_up_until is not null'),
    ).toBe(0)
    await until(
      'nothing is held',
      async () => (await database.count('select count(*) from bus.outbox')) === 0,
    )
    const [operation] = await bus.operations.list({ kind: 'catch-up' })
    expect(operation).toMatchObject({
      by: 'payment-service',
      selection: { startFrom: 'beginning' },
      subscriptions: ['late'],
    })
    expect(await bus.audit.list({ action: 'subscribe.startFrom' })).toMatchObject([
      { subscription: 'late', outcome: { state: 'done' } },
    ])
  },
)

test('in an ordered subscription the events of a key come from the log before its new ones', async () => {
  const database = await createTestDatabase()
  const publisher = await startPublisher(database)
  let n = 0
  const publish = async (count: number): Promise<void> => {
    for (let i = 0; i < count; i += 1)
      await publisher.tryPublish({
        type: 'note',
        tenantId: 'acme',
        orderingKey: `k${n % 3}`,
        payload: (n += 1),
      })
  }
  await publish(300)
  await until(
    'all are dispatched',
    async () => (await database.count('select count(*) from bus.outbox')) === 0,
  )
  const bus = testBus(database.url)
  const turns = new Map<string, number[]>()
  bus.subscribe({
    name: 'late',
    events: ['note'],
    ordered: true,
    startFrom: 'beginning',
    handler: ({ orderingKey = '', payload }) =>
      void turns.set(orderingKey, [...(turns.get(orderingKey) ?? []), Number(payload)]),
  })
  const [, ,] = await Promise.all([bus.start(), publish(100)])
  await publish(50)
  await untilCaughtUp(bus)
  await publish(10)
  await expectEachOnce(database, 'late')
  for (const numbers of turns.values()) expect(numbers).toEqual(numbers.toSorted((a, b) => a - b))
  expect([...turns.values()].flat()).toHaveLength(460)
})

test('it starts at a time, only when it is new, and follows its patterns and predicate', async () => {
  const database = await createTestDatabase()
  const publisher = await startPublisher(database)
  const pay = async (amountCents: number): Promise<unknown> =>
    publisher.tryPublish({ type: 'payment.paid', tenantId: 'acme', payload: { paymentId: 'p', amountCents } })
  await pay(1000)
  await pause(20)
  const [row] = await database.rows('select clock_timestamp() as now')
  const from = row?.['now'] as Date
  await pause(20)
  for (const amount of [1, 200, 300]) await pay(amount)
  await publisher.tryPublish({ type: 'note', tenantId: 'acme', payload: 1 })
  await until(
    'all are dispatched',
    async () => (await database.count('select count(*) from bus.outbox')) === 0,
  )
  const seen: number[] = []
  const subscribe = (bus: PaymentBus): void =>
    void bus.subscribe({
      name: 'late',
      events: ['payment.*'],
      where: '$.amountCents > 100',
      startFrom: from,
      handler: ({ payload }) => void seen.push((payload as { amountCents: number }).amountCents),
    })
  const bus = testBus(database.url)
  subscribe(bus)
  await bus.start()
  await untilCaughtUp(bus)
  await pay(400)
  await until('all are delivered', () => seen.length === 3)
  expect(seen.toSorted((a, b) => a - b)).toEqual([200, 300, 400])
  await bus.stop()
  const again = testBus(database.url)
  subscribe(again)
  await again.start()
  await pay(500)
  await until('it is delivered', () => seen.length === 4)
  expect(await again.operations.list({ kind: 'catch-up' })).toHaveLength(1)
  expect(() => subscribeWith(testBus(database.url), 'yesterday')).toThrow('startFrom')
})

test('an ordered subscription gets its new events from the moment its catch-up is cancelled', async () => {
  const database = await createTestDatabase()
  const publisher = await startPublisher(database)
  for (let n = 0; n < 3; n += 1)
    await publisher.tryPublish({ type: 'note', tenantId: 'acme', orderingKey: 'k', payload: n })
  await until(
    'all are dispatched',
    async () => (await database.count('select count(*) from bus.outbox')) === 0,
  )
  // Its key is locked, so that its catch-up does not get on.
  const seen: unknown[] = []
  const bus = testBus(database.url)
  const holder = new pg.Client({ connectionString: database.url })
  await holder.connect()
  await holder.query('begin; select pg_advisory_xact_lock(1651864320, 6)')
  bus.subscribe({
    name: 'late',
    events: ['note'],
    ordered: true,
    startFrom: 'beginning',
    handler: ({ payload }) => void seen.push(payload),
  })
  await bus.start()
  await publisher.tryPublish({ type: 'note', tenantId: 'acme', payload: 'without a key' })
  await until(
    'it is held',
    async () =>
      (await database.count('select count(*) from bus.outbox where subscription_id is not null')) === 1,
  )
  const [operation] = await bus.operations.list({ kind: 'catch-up' })
  const cancelled = bus.operations.cancel(operation?.id ?? '', { by: 'ana' })
  await holder.query('rollback')
  await holder.end()
  await cancelled
  await until('it is delivered', () => seen.includes('without a key'))
  expect(
    await database.count('select count(*) from bus.subscriptions where catch_up_until is not null'),
  ).toBe(0)
})

function subscribeWith(bus: PaymentBus, startFrom: unknown): void {
  bus.subscribe({ name: 'wrong', events: ['note'], startFrom: startFrom as never, handler: () => {} })
}
