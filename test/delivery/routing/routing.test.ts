import { expect, test } from 'vitest'
import { testBus } from '../../support/bus.ts'
import { createTestDatabase, until } from '../../support/database.ts'

test('events go to the subscriptions whose patterns match, and to each of them once', async () => {
  const { url, db, count } = await createTestDatabase()
  const bus = testBus(url)
  const seen: Record<string, string[]> = { exact: [], segment: [], rest: [], two: [] }
  bus.subscribe({
    name: 'exact',
    events: ['payment.paid'],
    handler: ({ type }) => void seen['exact']?.push(type),
  })
  bus.subscribe({
    name: 'segment',
    events: ['payment.*'],
    handler: ({ type }) => void seen['segment']?.push(type),
  })
  bus.subscribe({ name: 'rest', events: ['**'], handler: ({ type }) => void seen['rest']?.push(type) })
  bus.subscribe({
    name: 'two',
    events: ['payment.paid', '*.paid'],
    handler: ({ type }) => void seen['two']?.push(type),
  })
  await bus.start()
  await db.transaction(async (tx) => {
    await bus.publish(tx, {
      type: 'payment.paid',
      tenantId: 'a',
      payload: { paymentId: 'p', amountCents: 1 },
    })
    await bus.publish(tx, { type: 'payment.refunded', tenantId: 'a', payload: { paymentId: 'p' } })
    await bus.publish(tx, { type: 'note', tenantId: 'a', payload: 'n' })
  })
  await until(
    'every receipt is there',
    async () => (await count('select count(*) from bus.deliveries')) === 7,
  )
  expect(seen['exact']).toEqual(['payment.paid'])
  expect(seen['segment']?.toSorted()).toEqual(['payment.paid', 'payment.refunded'])
  expect(seen['rest']?.toSorted()).toEqual(['note', 'payment.paid', 'payment.refunded'])
  expect(seen['two']).toEqual(['payment.paid'])
})

test('a where predicate is evaluated by PostgreSQL; what errs in it does not match', async () => {
  const { url, db, count } = await createTestDatabase()
  const bus = testBus(url)
  const large: number[] = []
  const tagged: unknown[] = []
  bus.subscribe({
    name: 'large',
    events: ['payment.paid'],
    where: '$.amountCents > 1000',
    handler: ({ payload }) => void large.push(payload.amountCents),
  })
  bus.subscribe({
    name: 'tagged',
    events: ['note'],
    where: `exists($.tags[*] ? (@ == "urgent"))`,
    handler: ({ payload }) => void tagged.push(payload),
  })
  await bus.start()
  await db.transaction(async (tx) => {
    for (const amountCents of [1000, 1001, 5000]) {
      await bus.publish(tx, { type: 'payment.paid', tenantId: 'a', payload: { paymentId: 'p', amountCents } })
    }
    for (const payload of [{ tags: ['urgent'] }, { tags: [] }, 'no object', null]) {
      await bus.publish(tx, { type: 'note', tenantId: 'a', payload })
    }
  })
  await until(
    'every receipt is there',
    async () => (await count('select count(*) from bus.deliveries')) === 3,
  )
  expect(large.toSorted((a, b) => a - b)).toEqual([1001, 5000])
  expect(tagged).toEqual([{ tags: ['urgent'] }])
  expect(await count('select count(*) from bus.outbox')).toBe(0)
})

test.each([
  ['that PostgreSQL cannot read', '$.a >'],
  ['that selects instead of deciding', '$.amountCents'],
  ['that is a filter', '$.items[*] ? (@.qty > 5)'],
  ['that tries to break out', `$.a' ; drop table bus.events; --`],
])('start refuses a where %s before anything is written', async (_what, where) => {
  const { url, count } = await createTestDatabase()
  const bus = testBus(url)
  bus.subscribe({ name: 'bad', events: ['note'], where, handler: () => {} })
  bus.subscribe({ name: 'good', events: ['note'], handler: () => {} })
  await expect(bus.start()).rejects.toMatchObject({ code: 'BUS_INVALID_WHERE' })
  expect(await count('select count(*) from bus.subscriptions')).toBe(0)
  expect(await count(`select count(*) from pgboss.queue where name like 'bus.%'`)).toBe(0)
  const good = testBus(url)
  good.subscribe({ name: 'good', events: ['note'], handler: () => {} })
  await good.start()
  expect(await count('select count(*) from bus.subscriptions')).toBe(1)
})

test('an event nobody subscribed to stays in the log and leaves the outbox', async () => {
  const { url, db, count } = await createTestDatabase()
  const bus = testBus(url)
  await bus.start()
  await db.transaction(async (tx) => bus.publish(tx, { type: 'note', tenantId: 'a', payload: 1 }))
  await until('the outbox is empty', async () => (await count('select count(*) from bus.outbox')) === 0)
  expect(await count('select count(*) from bus.events')).toBe(1)
  expect(await count(`select count(*) from pgboss.job`)).toBe(0)
})

test('a subscription whose service is down gets its events when it comes back', async () => {
  const { url, db } = await createTestDatabase()
  const subscribed = (seen: unknown[]) => {
    const bus = testBus(url)
    bus.subscribe({ name: 'away', events: ['note'], handler: ({ payload }) => void seen.push(payload) })
    return bus
  }
  const before = subscribed([])
  await before.start()
  await before.stop()
  const other = testBus(url)
  await other.start()
  await db.transaction(async (tx) =>
    other.publish(tx, { type: 'note', tenantId: 'a', payload: 'while away' }),
  )
  const seen: unknown[] = []
  await subscribed(seen).start()
  await until('it was delivered', () => seen.length === 1)
  expect(seen).toEqual(['while away'])
})

test('a queue that somebody deleted is created again, and nothing is lost', async () => {
  const { url, db, rows } = await createTestDatabase()
  const bus = testBus(url)
  const seen: unknown[] = []
  bus.subscribe({ name: 'robust', events: ['note'], handler: ({ payload }) => void seen.push(payload) })
  await bus.start()
  await rows(`select pgboss.delete_queue('bus.robust')`)
  await db.transaction(async (tx) => bus.publish(tx, { type: 'note', tenantId: 'a', payload: 'kept' }))
  await until('it was delivered', () => seen.length === 1)
  expect(seen).toEqual(['kept'])
})
