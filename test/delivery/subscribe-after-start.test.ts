import { expect, onTestFinished, test } from 'vitest'
import { createBus } from '../../src/index.ts'
import { paymentEvents, recordingLogger, testBus, type PaymentBus } from '../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'

async function publish({ rows }: TestDatabase, count: number, key: string | null = null): Promise<void> {
  await rows(
    `insert into bus.events (tenant_id, type, source, payload, ordering_key) select 'acme', 'note', 'psql', to_jsonb(n), $2 from generate_series(1, $1::int) n`,
    [count, key],
  )
}

const receipts = async ({ count }: TestDatabase): Promise<number> =>
  count('select count(*) from bus.deliveries')

const instanceCount = async (bus: PaymentBus, name: string): Promise<number> =>
  (await bus.subscriptions.get(name)).instanceCount

test.each(['at-least-once', 'exactly-once', 'ordered'] as const)(
  'a subscription that comes after the start is registered and served at once, and known to the other processes: %s',
  async (mode) => {
    const database = await createTestDatabase()
    const bus = testBus(database.url)
    const other = testBus(database.url)
    bus.subscribe({ name: 'first', events: ['payment.paid'], handler: () => {} })
    await Promise.all([bus.start(), other.start()])
    const seen: number[] = []
    const handle = bus.subscribe({
      name: 'later',
      events: ['note'],
      mode: mode === 'exactly-once' ? mode : 'at-least-once',
      ordered: mode === 'ordered',
      handler: ({ payload }) => void seen.push(payload as number),
    })
    expect(handle.name).toBe('later')
    await handle.ready()
    expect(await other.subscriptions.get('later')).toMatchObject({ instanceCount: 1, state: 'active' })
    await publish(database, 30, mode === 'ordered' ? 'k' : null)
    await until('all are delivered', async () => (await receipts(database)) === 30)
    expect(seen.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 30 }, (_, i) => i + 1))
    // It is paused and resumed like the others.
    await other.subscriptions.pause('later')
    await until('it follows', async () => (await bus.subscriptions.get('later')).state === 'paused')
    await other.subscriptions.resume('later')
    await publish(database, 1)
    await until('it goes on', async () => (await receipts(database)) === 31)
  },
)

test('what is stopped in one process is served by the others, and may come back', async () => {
  const database = await createTestDatabase()
  const seen = { a: 0, b: 0 }
  const [a, b] = [testBus(database.url), testBus(database.url)]
  const handler = (who: 'a' | 'b') => () => void (seen[who] += 1)
  const handle = a.subscribe({ name: 'shared', events: ['note'], batchSize: 1, handler: handler('a') })
  a.subscribe({ name: 'stays', events: ['payment.paid'], handler: () => {} })
  b.subscribe({ name: 'shared', events: ['note'], batchSize: 1, handler: handler('b') })
  await a.start()
  await handle.ready()
  await b.start()
  expect(await instanceCount(b, 'shared')).toBe(2)
  await handle.stop()
  await handle.stop()
  expect(await instanceCount(b, 'shared')).toBe(1)
  await publish(database, 40)
  await until('all are delivered', async () => (await receipts(database)) === 40)
  expect(seen).toEqual({ a: 0, b: 40 })
  await b.stop()
  await publish(database, 10)
  await until('they wait', async () => (await a.subscriptions.get('shared')).waitingCount === 10)
  expect(await a.subscriptions.get('shared')).toMatchObject({ state: 'unserved' })
  await a.subscribe({ name: 'shared', events: ['note'], batchSize: 1, handler: handler('a') }).ready()
  await until('they are delivered', async () => (await receipts(database)) === 50)
  expect(seen).toEqual({ a: 10, b: 40 })
})

test('a stop lets running handlers finish, aborts those beyond the grace period, and counts no attempt', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  let started = 0
  const gate = Promise.withResolvers<void>()
  const attempts: number[] = []
  const options = { name: 'slow', events: ['note'], concurrency: 2, batchSize: 1 } as const
  const handle = bus.subscribe({
    ...options,
    handler: async ({ payload }, { signal, attempt }) => {
      started += 1
      attempts.push(attempt)
      if (payload === 1) return gate.promise
      await new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('aborted'))))
    },
  })
  await bus.start()
  await publish(database, 4)
  await until('two run', () => started === 2)
  const stopping = handle.stop({ graceMs: 800 })
  gate.resolve()
  await stopping
  expect(started).toBe(2)
  expect(await receipts(database)).toBe(1)
  expect((await bus.subscriptions.get('slow')).waitingCount).toBe(3)
  await bus.subscribe({ ...options, handler: (_event, { attempt }) => void attempts.push(attempt) }).ready()
  await until('the rest is delivered', async () => (await receipts(database)) === 4)
  expect(attempts).toEqual([1, 1, 1, 1, 1])
  expect(await database.count('select count(*) from bus.attempts')).toBe(0)
})

test('subscriptions that come and go while events are published lose nothing', async () => {
  const database = await createTestDatabase()
  const buses = [testBus(database.url), testBus(database.url)]
  const seen = new Map<string, number>()
  const options = {
    name: 'restless',
    events: ['note'],
    handler: ({ id }: { readonly id: string }) => void seen.set(id, (seen.get(id) ?? 0) + 1),
  } as const
  for (const bus of buses) await bus.start()
  await buses[0]?.subscribe(options).ready()
  let published = 0
  let isPublishing = true
  const publishing = (async () => {
    while (isPublishing) {
      await publish(database, 3)
      published += 3
    }
  })()
  for (let round = 0; round < 3; round += 1) {
    const handle = buses[1]?.subscribe(options)
    await handle?.ready()
    await handle?.stop({ graceMs: 1000 })
  }
  isPublishing = false
  await publishing
  await until('all are delivered', async () => (await receipts(database)) === published)
  expect(seen.size).toBe(published)
  expect([...seen.values()].filter((times) => times > 1)).toEqual([])
})

test('a registration that fails leaves the running bus as it was, and says why', async () => {
  const database = await createTestDatabase()
  const owner = testBus(database.url, { source: 'ledger-service' })
  owner.subscribe({ name: 'taken', events: ['note'], handler: () => {} })
  await owner.start()
  const logger = recordingLogger()
  const bus = testBus(database.url, { logger })
  await bus.start()
  const taken = bus.subscribe({ name: 'taken', events: ['note'], handler: () => {} })
  await expect(taken.ready()).rejects.toMatchObject({ code: 'BUS_SUBSCRIPTION_TAKEN' })
  const bad = bus.subscribe({ name: 'bad', events: ['note'], where: '$.a ==', handler: () => {} })
  await until('it is logged', () =>
    logger.lines.some(
      ({ message, fields }) => message.includes('could not be added') && fields['subscription'] === 'bad',
    ),
  )
  await expect(bad.ready()).rejects.toMatchObject({ code: 'BUS_INVALID_WHERE' })
  await bad.stop()
  // The name is free again, and the bus works.
  let count = 0
  await bus.subscribe({ name: 'bad', events: ['note'], handler: () => void (count += 1) }).ready()
  await publish(database, 1)
  await until('it is delivered', () => count === 1)
  expect(await bus.health()).toMatchObject({ ok: true })
})

test('what cannot be added is refused: a second one of the name, to a bus that runs nothing, and after a stop', async () => {
  const database = await createTestDatabase()
  const options = { name: 'one', events: ['note'], handler: () => {} } as const
  const bus = testBus(database.url)
  const handle = bus.subscribe(options)
  await expect(handle.ready()).rejects.toMatchObject({ code: 'BUS_INVALID_STATE' })
  await bus.start()
  expect(() => bus.subscribe(options)).toThrow(
    expect.objectContaining({ code: 'BUS_DUPLICATE_SUBSCRIPTION' }) as Error,
  )
  await expect(handle.stop({ graceMs: -1 })).rejects.toMatchObject({ code: 'BUS_INVALID_OPTION' })
  await bus.stop()
  expect(() => bus.subscribe({ ...options, name: 'two' })).toThrow(/a stopped bus/)
  await handle.stop()
  const publisher = testBus(database.url)
  await publisher.start({ run: 'nothing' })
  expect(() => publisher.subscribe(options)).toThrow(/only publishes/)
})

test('an exactly-once subscription that comes late needs connections that are not divided', async () => {
  const database = await createTestDatabase()
  const bus = createBus({
    ...{
      database: { connectionString: database.url, max: 4 },
      events: paymentEvents,
      source: 'payment-service',
    },
    logger: recordingLogger(),
  })
  onTestFinished(async () => bus.stop({ graceMs: 1000 }))
  await bus.start()
  const late = bus.subscribe({ name: 'late', events: ['note'], mode: 'exactly-once', handler: () => {} })
  await expect(late.ready()).rejects.toMatchObject({
    code: 'BUS_INVALID_OPTION',
    message: expect.stringContaining('before start()') as string,
  })
  const divided = createBus({
    ...{
      database: { connectionString: database.url, max: 4 },
      events: paymentEvents,
      source: 'payment-service',
    },
    logger: recordingLogger(),
  })
  onTestFinished(async () => divided.stop({ graceMs: 1000 }))
  divided.subscribe({ name: 'early', events: ['payment.paid'], mode: 'exactly-once', handler: () => {} })
  await divided.start()
  const seen: unknown[] = []
  await divided
    .subscribe({
      name: 'late',
      events: ['note'],
      mode: 'exactly-once',
      handler: ({ payload }) => void seen.push(payload),
    })
    .ready()
  await publish(database, 5)
  await until('all are delivered', () => seen.length === 5)
})

test('a subscription that was declared and stopped before the start is not served', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const handle = bus.subscribe({ name: 'gone', events: ['note'], handler: () => {} })
  await handle.stop()
  await bus.start()
  expect(await bus.subscriptions.list()).toEqual([])
})

test('an exactly-once subscription that is stopped leaves its connection to the others', async () => {
  const database = await createTestDatabase()
  const bus = createBus({
    // Two of them are for handlers.
    ...{ database: { connectionString: database.url, max: 5 }, events: paymentEvents },
    ...{ source: 'payment-service', logger: recordingLogger() },
  })
  onTestFinished(async () => bus.stop({ graceMs: 1000 }))
  const gate = Promise.withResolvers<void>()
  let running = 0
  const options = { mode: 'exactly-once', concurrency: 4, batchSize: 1 } as const
  const leaves = bus.subscribe({ ...options, name: 'leaves', events: ['payment.paid'], handler: () => {} })
  bus.subscribe({
    ...{ ...options, name: 'stays', events: ['note'] },
    handler: async () => {
      running += 1
      await gate.promise
    },
  })
  await bus.start()
  await publish(database, 4)
  await until('one runs', () => running === 1)
  await until(
    'the others wait for a connection',
    async () =>
      (await database.count(
        `select count(*) from pgboss.job where name = 'bus.stays' and state = 'active'`,
      )) === 4,
  )
  expect(running).toBe(1)
  await leaves.stop()
  // Long before a handler times out and its event runs again.
  await until('two run', () => running === 2)
  gate.resolve()
  await until('all are delivered', async () => (await receipts(database)) === 4)
  // It comes back, and has one again.
  const seen: unknown[] = []
  await bus
    .subscribe({
      ...options,
      name: 'leaves',
      events: ['note'],
      handler: ({ payload }) => void seen.push(payload),
    })
    .ready()
  await publish(database, 2)
  await until('it is served', () => seen.length === 2)
})
