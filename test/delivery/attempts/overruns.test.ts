import { expect, test } from 'vitest'
import { recordingLogger, testBus, type PaymentBus } from '../../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'
import { openBoss } from '../../support/queues.ts'

/** Handlers that the test ends, whatever their signals say. */
function openHandlers() {
  const gates = new Map<string, PromiseWithResolvers<void>>()
  const log: string[] = []
  let running = 0
  let most = 0
  return {
    log,
    most: () => most,
    running: () => running,
    end: (name: string) => gates.get(name)?.resolve(),
    endAll: () => gates.forEach(({ resolve }) => resolve()),
    async run(name: string): Promise<void> {
      log.push(`${name} begins`)
      running += 1
      most = Math.max(most, running)
      const gate = Promise.withResolvers<void>()
      gates.set(name, gate)
      await gate.promise
      running -= 1
      log.push(`${name} ends`)
    },
  }
}

const quick = { maxAttempts: 3, delaySeconds: 0, backoff: false }

async function publish(
  bus: PaymentBus,
  { db }: TestDatabase,
  payloads: readonly number[],
  orderingKey?: string,
  tenantId = 'acme',
): Promise<void> {
  const events = payloads.map((payload) => ({ type: 'note', tenantId, orderingKey, payload }) as const)
  await db.transaction(async (tx) => bus.publishMany(tx, events))
}

const receipts = async ({ count }: TestDatabase): Promise<number> =>
  count('select count(*) from bus.deliveries')

const keyState = async ({ rows }: TestDatabase, orderingKey: string): Promise<unknown> =>
  (await rows('select state, failed_at from bus.ordered_keys where ordering_key = $1', [orderingKey]))[0]

test.each([1, 100])(
  'a key waits until the handler of a timed-out attempt has ended, and others see it (batches of %i)',
  async (batchSize) => {
    const database = await createTestDatabase()
    const handlers = openHandlers()
    const logger = recordingLogger()
    const bus = testBus(database.url, { logger })
    bus.subscribe({
      name: 'stubborn',
      events: ['note'],
      ordered: true,
      batchSize,
      timeoutSeconds: 1,
      retry: quick,
      handler: async ({ payload, orderingKey }, { attempt }) => {
        if (payload === 1 && attempt === 1) return handlers.run('1')
        handlers.log.push(`${orderingKey}: ${payload as number}, attempt ${attempt}`)
      },
    })
    await bus.start()
    await publish(bus, database, [1, 2, 3], 'k')
    const other = testBus(database.url)
    const blocked = async () => other.blockedKeys.list()
    await until('another process sees it', async () => (await blocked()).length === 1)
    expect(await blocked()).toMatchObject([
      {
        subscription: 'stubborn',
        tenantId: 'acme',
        orderingKey: 'k',
        state: 'overrunning',
        attempts: 1,
        failures: [{ attempt: 1, code: 'BUS_HANDLER_TIMEOUT' }],
        waitingCount: 2,
      },
    ])
    expect(await bus.health()).toMatchObject({ ok: true, overrunningHandlerCount: 1 })
    // It waits for no person.
    expect(
      await other.blockedKeys.release({ subscription: 'stubborn', tenantId: 'acme', orderingKey: 'k' }),
    ).toBe(false)
    // Other keys go on, and whoever would have gone on with this one has had the time for it.
    await publish(bus, database, [7], 'other')
    await until('the other key is delivered', async () => (await receipts(database)) === 1)
    expect(handlers.log).toEqual(['1 begins', 'other: 7, attempt 1'])
    handlers.end('1')
    await until('the key is delivered', async () => (await receipts(database)) === 4)
    expect(handlers.log.slice(2)).toEqual(['1 ends', 'k: 1, attempt 2', 'k: 2, attempt 1', 'k: 3, attempt 1'])
    expect(await blocked()).toEqual([])
    expect(await bus.health()).toMatchObject({ overrunningHandlerCount: 0 })
    const about = logger.lines.filter(({ message }) => message.includes('ignores its signal'))
    expect(about).toMatchObject([
      {
        level: 'warn',
        fields: {
          subscription: 'stubborn',
          tenantId: 'acme',
          orderingKey: 'k',
          attempt: 1,
          timeoutSeconds: 1,
        },
      },
    ])
    expect(about[0]?.fields['id']).toEqual(expect.any(String))
  },
)

test('a key that waited for a handler is blocked when that was its last attempt', async () => {
  const database = await createTestDatabase()
  const handlers = openHandlers()
  const bus = testBus(database.url)
  bus.subscribe({
    name: 'last',
    events: ['note'],
    ordered: true,
    timeoutSeconds: 1,
    retry: { ...quick, maxAttempts: 1 },
    handler: async () => handlers.run('1'),
  })
  await bus.start()
  await publish(bus, database, [1, 2], 'k')
  const states = async () => (await bus.blockedKeys.list()).map(({ state }) => state)
  await until('it waits for the handler', async () => (await states())[0] === 'overrunning')
  handlers.end('1')
  await until('it waits for a person', async () => (await states())[0] === 'blocked')
  expect(await bus.blockedKeys.list()).toMatchObject([{ attempts: 1, waitingCount: 1 }])
  expect(handlers.log).toEqual(['1 begins', '1 ends'])
})

test('a handler that heeds its signal writes nothing more, and its key goes on at once', async () => {
  const database = await createTestDatabase()
  const logger = recordingLogger()
  const bus = testBus(database.url, { logger })
  const seen: unknown[] = []
  bus.subscribe({
    name: 'heeding',
    events: ['note'],
    ordered: true,
    timeoutSeconds: 1,
    retry: quick,
    handler: async ({ payload }, { attempt, signal }) => {
      seen.push([payload, attempt])
      if (payload !== 1 || attempt > 1) return
      await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
    },
  })
  await bus.start()
  await publish(bus, database, [1, 2], 'k')
  await until('both are delivered', async () => (await receipts(database)) === 2)
  expect(seen).toEqual([
    [1, 1],
    [1, 2],
    [2, 1],
  ])
  expect(logger.lines.filter(({ message }) => message.includes('ignores its signal'))).toEqual([])
})

test.each([
  ['is not heard of', `heartbeat_on = now() - interval '1 hour'`],
  ['has had its job for too long', `started_on = now() - interval '2 days'`],
])('a key goes to another process when the one whose handler runs on %s', async (_, change) => {
  const database = await createTestDatabase()
  const handlers = openHandlers()
  const subscribe = (bus: PaymentBus, name: string): unknown =>
    bus.subscribe({
      name: 'lapsed',
      events: ['note'],
      ordered: true,
      batchSize: 1,
      // The handler that runs on has the only slot of its process, so that the other one takes the job.
      concurrency: 1,
      timeoutSeconds: 1,
      retry: quick,
      handler: async ({ payload }, { attempt }) => {
        if (name === 'a') return handlers.run('a')
        handlers.log.push(`${name} has ${payload as number}, attempt ${attempt}`)
      },
    })
  const a = testBus(database.url)
  subscribe(a, 'a')
  await a.start()
  await publish(a, database, [1, 2], 'k')
  await until('the key waits', async () => (await a.blockedKeys.list()).length === 1)
  await database.rows(`update pgboss.job set ${change} where name = 'bus.lapsed' and state = 'active'`)
  // As the bus does every five minutes.
  await (await openBoss(database.url)).supervise('bus.lapsed')
  const b = testBus(database.url)
  subscribe(b, 'b')
  await b.start()
  await until('the other one has both', async () => (await receipts(database)) === 2)
  expect(handlers.log).toEqual(['a begins', 'b has 1, attempt 2', 'b has 2, attempt 1'])
  expect(await b.blockedKeys.list()).toEqual([])
  handlers.endAll()
})

test('at a stop the attempt that timed out counts, and the key is handed over although its handler runs on', async () => {
  const database = await createTestDatabase()
  const handlers = openHandlers()
  const bus = testBus(database.url)
  bus.subscribe({
    name: 'stopped',
    events: ['note'],
    ordered: true,
    timeoutSeconds: 1,
    retry: quick,
    handler: async () => handlers.run('first'),
  })
  await bus.start()
  await publish(bus, database, [1, 2], 'k')
  await until('the key waits', async () => (await bus.blockedKeys.list()).length === 1)
  await bus.stop({ graceMs: 100 })
  expect(handlers.log).toEqual(['first begins'])
  expect(await keyState(database, 'k')).toEqual({ state: 'active', failed_at: null })
  const next = testBus(database.url)
  const seen: unknown[] = []
  next.subscribe({
    name: 'stopped',
    events: ['note'],
    ordered: true,
    retry: quick,
    handler: ({ payload }, { attempt }) => void seen.push([payload, attempt]),
  })
  await next.start()
  await until('both are delivered', async () => (await receipts(database)) === 2)
  expect(seen).toEqual([
    [1, 2],
    [2, 1],
  ])
  handlers.endAll()
})

test.each(['at-least-once', 'exactly-once'] as const)(
  '%s: a handler that runs on keeps its place until it ends, so that no more run than the concurrency says',
  async (mode) => {
    const database = await createTestDatabase()
    const handlers = openHandlers()
    const logger = recordingLogger()
    const bus = testBus(database.url, { logger })
    const ended: unknown[] = []
    bus.subscribe({
      name: 'full',
      events: ['note'],
      mode,
      concurrency: 2,
      batchSize: 4,
      timeoutSeconds: 1,
      retry: { maxAttempts: 5, delaySeconds: 0, backoff: false },
      handler: async ({ payload }, { attempt }) => {
        if ((payload as number) <= 2 && attempt === 1) await handlers.run(`${payload as number}`)
        else ended.push(payload)
      },
    })
    await bus.start()
    await publish(bus, database, [1, 2, 3, 4, 5, 6, 7, 8])
    await until('both have timed out', async () => (await bus.health()).overrunningHandlerCount === 2)
    expect(handlers.most()).toBe(2)
    // What waited for a place here is given back: another process would have it.
    await until(
      'nothing is in hand',
      async () =>
        (await database.count(
          `select count(*) from pgboss.job where name = 'bus.full' and state = 'active'`,
        )) === 0,
    )
    const warned = () => logger.lines.filter(({ message }) => message.includes('ignores its signal'))
    await until('both are logged', () => warned().length === 2)
    const endedBefore = ended.length
    handlers.end('1')
    await until('one place is free', () => ended.length > endedBefore)
    await until('all are delivered while one runs on', async () => (await receipts(database)) === 8)
    expect(handlers.running()).toBe(1)
    handlers.endAll()
    await until('no handler runs on', async () => (await bus.health()).overrunningHandlerCount === 0)
  },
)

test(
  'a tenant at its limit waits for its handler that runs on, and another process serves it',
  { tags: ['slow'] },
  async () => {
    const database = await createTestDatabase()
    const handlers = openHandlers()
    const bus = testBus(database.url)
    const ended: string[] = []
    bus.subscribe({
      name: 'limited',
      events: ['note'],
      concurrency: 5,
      tenantConcurrency: 1,
      timeoutSeconds: 1,
      retry: { maxAttempts: 5, delaySeconds: 0, backoff: false },
      handler: async ({ payload, tenantId }, { attempt }) => {
        if (payload === 1 && attempt === 1) return handlers.run('1')
        ended.push(`${tenantId} ${payload as number}`)
      },
    })
    await bus.start()
    await publish(bus, database, [1, 2])
    await until('it runs on', async () => (await bus.health()).overrunningHandlerCount === 1)
    await publish(bus, database, [7], undefined, 'other')
    await until('the other tenant is served', () => ended.length > 0)
    expect(ended).toEqual(['other 7'])
    // What waits here for the tenant's place is given back: another process has one.
    const second = testBus(database.url)
    second.subscribe({
      name: 'limited',
      events: ['note'],
      tenantConcurrency: 1,
      handler: ({ tenantId, payload }) => void ended.push(`${tenantId} ${payload as number}, elsewhere`),
    })
    await second.start()
    // Both come for it when it is due, every few seconds: it may take some rounds.
    await until('all are delivered', async () => (await receipts(database)) === 3)
    expect(ended.some((entry) => entry.endsWith(', elsewhere'))).toBe(true)
    expect(handlers.running()).toBe(1)
    handlers.end('1')
  },
)
