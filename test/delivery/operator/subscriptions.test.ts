import { expect, test } from 'vitest'
import { recordingLogger, testBus } from '../../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'

async function publish(
  { rows }: TestDatabase,
  count: number,
  tenant = 'acme',
  key: string | null = null,
): Promise<void> {
  await rows(
    `insert into bus.events (tenant_id, type, source, payload, ordering_key) select $1, 'note', 'psql', to_jsonb(n), $3 from generate_series(1, $2) n`,
    [tenant, count, key],
  )
}

const receipts = async ({ count }: TestDatabase): Promise<number> =>
  count('select count(*) from bus.deliveries')

test('a subscription is listed with its options, its state and what waits', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({
    name: 'b',
    events: ['note'],
    where: '$ > 0',
    concurrency: 3,
    retry: { maxAttempts: 2 },
    handler: () => {},
  })
  bus.subscribe({
    name: 'a',
    events: ['payment.*'],
    mode: 'exactly-once',
    circuitBreaker: false,
    handler: () => {},
  })
  await bus.start()
  const [a, b] = await bus.subscriptions.list()
  expect(a).toMatchObject({
    name: 'a',
    service: 'payment-service',
    events: ['payment.*'],
    where: undefined,
    state: 'active',
    pause: undefined,
    circuit: undefined,
    waitingCount: 0,
    isWaitingCountPartial: false,
    options: { mode: 'exactly-once', circuitBreaker: false, concurrency: 10 },
  })
  expect(b).toMatchObject({ where: '$ > 0', options: { concurrency: 3, retry: { maxAttempts: 2 } } })
  expect(b?.registeredAt).toBeInstanceOf(Date)
})

test.each(['at-least-once', 'exactly-once', 'ordered'] as const)(
  'a paused subscription begins nothing more in any process, loses nothing, and goes on when it is resumed: %s',
  async (mode) => {
    const database = await createTestDatabase()
    const seen: number[] = []
    let running = 0
    let laterCount = 0
    const logger = recordingLogger()
    const open = async () => {
      const bus = testBus(database.url, { logger })
      bus.subscribe({
        name: 'paused',
        events: ['note'],
        concurrency: 2,
        mode: mode === 'exactly-once' ? mode : 'at-least-once',
        ...(mode === 'ordered' ? { ordered: true } : {}),
        handler: async ({ payload }, { attempt }) => {
          running += 1
          await new Promise((resolve) => setTimeout(resolve, 20))
          running -= 1
          expect(attempt).toBe(1)
          seen.push(payload as number)
        },
      })
      // Whoever has got this one had jobs of the paused subscription to see before.
      bus.subscribe({
        name: 'unpaused',
        events: ['payment.refunded'],
        handler: () => void (laterCount += 1),
      })
      await bus.start()
      return bus
    }
    const [one, two] = [await open(), await open()]
    const operator = testBus(database.url)
    await publish(database, 300, 'acme', mode === 'ordered' ? 'key' : null)
    await until('it is under way', () => seen.length > 3)
    expect(await operator.subscriptions.pause('paused', { by: 'ann', reason: 'a fault' })).toBe(true)
    expect(await operator.subscriptions.pause('paused')).toBe(false)
    await until('running handlers are done', () => running === 0)
    await until(
      'what was in hand is back',
      async () =>
        (await database.count(
          `select count(*) from pgboss.job where state = 'active' and name = 'bus.paused'`,
        )) === 0,
    )
    const handled = seen.length
    expect(handled).toBeLessThan(250)
    const [listed] = await operator.subscriptions.list()
    expect(listed).toMatchObject({ state: 'paused', pause: { by: 'ann', reason: 'a fault' } })
    expect(listed?.waitingCount).toBe(300 - handled)
    const paused = logger.lines.filter(({ message }) => message === 'a subscription was paused')
    expect(paused).toMatchObject(
      [one, two].map(() => ({
        level: 'info',
        fields: { subscription: 'paused', by: 'ann', reason: 'a fault' },
      })),
    )
    await publish(database, 10, 'acme', mode === 'ordered' ? 'key' : null)
    await one.stop()
    const three = await open()
    await until(
      'the new ones wait too',
      async () => (await database.count('select count(*) from bus.outbox')) === 0,
    )
    await three.tryPublish({ type: 'payment.refunded', tenantId: 'acme', payload: { paymentId: 'p' } })
    await until('what was published later is delivered', () => laterCount === 1)
    expect(seen.length).toBe(handled)
    expect(await three.subscriptions.resume('paused')).toBe(true)
    expect(await two.subscriptions.resume('paused')).toBe(false)
    await until('everything is delivered', async () => (await receipts(database)) === 311)
    expect(seen).toHaveLength(310)
    // In order, of the key, over the pause and the three processes.
    const inOrder = Array.from({ length: 310 }, (_, n) => (n % 300) + 1)
    expect(mode === 'ordered' ? seen : inOrder).toEqual(inOrder)
    expect((await operator.subscriptions.list())[0]).toMatchObject({ state: 'active', waitingCount: 0 })
  },
)

test('what is not there cannot be paused or resumed, and options are checked', async () => {
  const bus = testBus((await createTestDatabase()).url)
  const notFound = { code: 'BUS_SUBSCRIPTION_NOT_FOUND' }
  await expect(bus.subscriptions.pause('none')).rejects.toMatchObject(notFound)
  await expect(bus.subscriptions.resume('none')).rejects.toMatchObject(notFound)
  const invalid = { code: 'BUS_INVALID_OPTION' }
  await expect(bus.subscriptions.pause(1 as never)).rejects.toMatchObject(invalid)
  await expect(bus.subscriptions.pause('a', { who: 'x' } as never)).rejects.toMatchObject(invalid)
  await expect(bus.subscriptions.pause('a', { by: 'x'.repeat(256) })).rejects.toMatchObject(invalid)
  await expect(bus.subscriptions.pause('a', { reason: 'a\u0000b' })).rejects.toMatchObject(invalid)
})

test.each(['at-least-once', 'exactly-once', 'ordered'] as const)(
  'once pause has resolved, its process begins nothing that is published after it: %s',
  async (mode) => {
    const database = await createTestDatabase()
    const bus = testBus(database.url)
    const seen: number[] = []
    bus.subscribe({
      name: 'paused',
      events: ['note'],
      ...(mode === 'ordered' ? { ordered: true } : { mode }),
      handler: ({ payload }: { payload: unknown }) => void seen.push(payload as number),
    } as never)
    await bus.start()
    for (let round = 1; round <= 20; round += 1) {
      await bus.subscriptions.pause('paused')
      await publish(database, 1, 'acme', mode === 'ordered' ? 'key' : null)
      await new Promise((resolve) => setTimeout(resolve, 15))
      expect(seen.length).toBe(round - 1)
      await bus.subscriptions.resume('paused')
      await until('it goes on', () => seen.length === round)
    }
  },
)

test('a subscription says how far it is behind, and whether that is more than it may be', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const gate = Promise.withResolvers<void>()
  const busy = { events: ['note'], concurrency: 1, batchSize: 1, handler: async () => gate.promise } as const
  bus.subscribe({ ...busy, name: 'limited', lagLimitSeconds: 1 })
  bus.subscribe({ ...busy, name: 'unlimited' })
  bus.subscribe({ name: 'idle', events: ['payment.*'], lagLimitSeconds: 1, handler: () => {} })
  await bus.start()
  const read = async () =>
    (await bus.subscriptions.list()).map(({ name, isBehind, lagSeconds, state }) => [
      ...[name, isBehind, lagSeconds > 1, state],
    ])
  expect((await read()).map(([, isBehind]) => isBehind)).toEqual([false, false, false])
  await publish(database, 20)
  await until('it is behind', async () => (await bus.subscriptions.get('limited')).isBehind)
  await until('both wait', async () => (await bus.subscriptions.get('unlimited')).lagSeconds > 1)
  expect(await read()).toEqual([
    ['idle', false, false, 'active'],
    ['limited', true, true, 'active'],
    ['unlimited', false, true, 'active'],
  ])
  const { subscriptions = [] } = await bus.health({ full: true })
  expect(subscriptions.filter(({ state }) => state === 'behind').map(({ name }) => name)).toEqual(['limited'])
  await bus.subscriptions.pause('limited')
  expect(await bus.subscriptions.get('limited')).toMatchObject({ state: 'paused', isBehind: false })
  gate.resolve()
})
