import { expect, test } from 'vitest'
import { testBus, type PaymentBus } from '../../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'
import { refusalOf } from '../../foundation/refusal.ts'

const hour = { by: 'ana', reason: 'an incident', expiresInSeconds: 3600 }

async function publish({ rows }: TestDatabase, count: number): Promise<void> {
  await rows(
    `insert into bus.events (tenant_id, type, source, payload) select 'acme', 'note', 'psql', to_jsonb(n) from generate_series(1, $1::int) n`,
    [count],
  )
}

/** A process whose handlers run until they are let go. */
function openSlow(url: string, concurrency: number) {
  const bus = testBus(url)
  const running = new Set<() => void>()
  bus.subscribe({
    name: 'slow',
    events: ['note'],
    concurrency,
    batchSize: 1,
    retry: { maxAttempts: 4 },
    handler: async () => {
      const gate = Promise.withResolvers<void>()
      running.add(gate.resolve)
      await gate.promise
      running.delete(gate.resolve)
    },
  })
  const letGo = (): void => {
    for (const end of running) end()
  }
  return { bus, running, letGo }
}

const receipts = async ({ count }: TestDatabase): Promise<number> =>
  count('select count(*) from bus.deliveries')

async function expire({ rows }: TestDatabase): Promise<void> {
  await rows(`update bus.subscriptions set overrides_until = now() - interval '1 second'`)
}

test('the concurrency that an operator sets counts in every process until it expires, and is shown beside the code', async () => {
  const database = await createTestDatabase()
  const processes = [openSlow(database.url, 2), openSlow(database.url, 2)]
  for (const { bus } of processes) await bus.start()
  const [first, second] = processes as [(typeof processes)[0], (typeof processes)[0]]
  const perProcess = (): number[] => processes.map(({ running }) => running.size)
  await publish(database, 40)
  await until('both are full', () => perProcess().join() === '2,2')
  await first.bus.subscriptions.setOptions('slow', { concurrency: 5 }, hour)
  await until('both have more', () => perProcess().join() === '5,5')
  const info = await second.bus.subscriptions.get('slow')
  expect(info).toMatchObject({
    state: 'active',
    options: { concurrency: 2 },
    overrides: { concurrency: 5, by: 'ana', reason: 'an incident' },
  })
  expect(info.overrides).not.toHaveProperty('retry')
  const left = (info.overrides?.expiresAt.getTime() ?? 0) - Date.now()
  expect(left).toBeGreaterThan(3_500_000)
  expect(left).toBeLessThan(3_610_000)

  await first.bus.subscriptions.setOptions('slow', { concurrency: 1 }, hour)
  await until('what runs is let go', async () => {
    for (const { letGo } of processes) letGo()
    return perProcess().every((count) => count <= 1)
  })
  // The first poll after it has expired.
  await expire(database)
  await until('the code counts again', () => perProcess().join() === '2,2')
  expect((await first.bus.subscriptions.list())[0]).toMatchObject({ overrides: undefined })
  await until('all are delivered', async () => {
    for (const { letGo } of processes) letGo()
    return (await receipts(database)) === 40
  })
})

test('a pause that expires ends by itself, and resume ends it before', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({ name: 'quick', events: ['note'], handler: () => {} })
  await bus.start()
  await bus.subscriptions.setOptions('quick', { paused: true, concurrency: 3 }, hour)
  expect(await bus.subscriptions.get('quick')).toMatchObject({ state: 'paused', pause: { by: hour.by } })
  expect(await bus.queries.subscriptionState({ subscription: 'quick' })).toMatchObject([{ state: 'paused' }])
  expect((await bus.health()).findings.map(({ code }) => code)).toContain('subscription-paused')
  await publish(database, 1)
  await until('it waits', async () => (await bus.subscriptions.get('quick')).waitingCount === 1)
  await new Promise((resolve) => setTimeout(resolve, 200))
  expect(await receipts(database)).toBe(0)
  expect(await bus.subscriptions.resume('quick', { by: 'ben' })).toBe(true)
  await until('it is delivered', async () => (await receipts(database)) === 1)
  expect(await bus.subscriptions.get('quick')).toMatchObject({
    state: 'active',
    overrides: { concurrency: 3 },
  })

  await bus.subscriptions.setOptions('quick', { paused: true }, { by: 'ana', expiresInSeconds: 1 })
  await publish(database, 1)
  await until('it is delivered once the pause is over', async () => (await receipts(database)) === 2)
  expect(await bus.subscriptions.resume('quick')).toBe(false)
})

test('a pause by a person outlasts one that expires, whichever came first', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({ name: 'quick', events: ['note'], handler: () => {} })
  await bus.start()
  const paused = { state: 'paused', pause: { by: 'ben' } }
  await bus.subscriptions.pause('quick', { by: 'ben' })
  await bus.subscriptions.setOptions('quick', { paused: true, concurrency: 2 }, hour)
  await bus.subscriptions.setOptions('quick', {}, { by: 'ana' })
  expect(await bus.subscriptions.get('quick')).toMatchObject(paused)
  expect(await bus.subscriptions.resume('quick')).toBe(true)
  await bus.subscriptions.setOptions('quick', { paused: true, concurrency: 2 }, hour)
  expect(await bus.subscriptions.pause('quick', { by: 'ben' })).toBe(true)
  await bus.subscriptions.setOptions('quick', {}, { by: 'ana' })
  expect(await bus.subscriptions.get('quick')).toMatchObject(paused)
  expect(await bus.subscriptions.resume('quick')).toBe(true)
  expect(await bus.subscriptions.get('quick')).toMatchObject({ state: 'active', pause: undefined })
})

test('a pause that has expired is over for everybody, also before a process clears it', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  for (const name of ['expired', 'paused']) bus.subscribe({ name, events: ['note'], handler: () => {} })
  await bus.start()
  await bus.stop()
  const operator = testBus(database.url)
  const { subscriptions } = operator
  const findings = async (): Promise<unknown> =>
    (await operator.health({ full: true })).findings.find(({ code }) => code === 'subscription-paused')?.data[
      'subscriptions'
    ]
  for (const name of ['expired', 'paused']) await subscriptions.setOptions(name, { paused: true }, hour)
  expect((await subscriptions.list()).map(({ state }) => state)).toEqual(['paused', 'paused'])
  expect(await findings()).toMatchObject([{ name: 'expired' }, { name: 'paused' }])
  await database.rows(
    `update bus.subscriptions set overrides_until = now() - interval '1 second' where name = 'expired'`,
  )
  expect(await subscriptions.get('expired')).toMatchObject({
    state: 'unserved',
    pause: undefined,
    overrides: undefined,
  })
  expect(await subscriptions.get('paused')).toMatchObject({ state: 'paused', pause: { by: 'ana' } })
  expect(await findings()).toMatchObject([{ name: 'paused' }])
  // So is what a person does next.
  expect(await subscriptions.resume('expired')).toBe(false)
  expect(await subscriptions.pause('expired', { by: 'ben' })).toBe(true)
  expect(await subscriptions.get('expired')).toMatchObject({ state: 'paused', pause: { by: 'ben' } })
})

test('retry that an operator sets counts for new events, and {} ends it', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({
    name: 'failing',
    events: ['note'],
    retry: { delays: [3600, 3600] },
    circuitBreaker: false,
    handler: () => {
      throw new Error('down')
    },
  })
  await bus.start()
  const retry = { maxAttempts: 2, delaySeconds: 0, backoff: false }
  await bus.subscriptions.setOptions('failing', { retry }, hour)
  await publish(database, 1)
  await until('it is dead after two attempts', async () => (await bus.deadLetters.list())[0]?.attempts === 2)
  await bus.subscriptions.setOptions('failing', {}, { by: 'ana' })
  expect(await bus.subscriptions.get('failing')).toMatchObject({ overrides: undefined })
  await publish(database, 1)
  await until(
    'the schedule of the code counts',
    async () =>
      (await database.count(
        `select count(*) from pgboss.job where name = 'bus.failing' and start_after > now() + interval '50 minutes'`,
      )) === 1,
  )
})

test('a leader clears what has expired, so that relays load the options of the code', async () => {
  const database = await createTestDatabase()
  const { clearOverrides } = await import('../../../src/delivery/flow-control/overrides.ts')
  const { createDatabase } = await import('../../../src/database/database.ts')
  const { recordingLogger } = await import('../../support/bus.ts')
  const bus = testBus(database.url)
  bus.subscribe({ name: 'quick', events: ['note'], handler: () => {} })
  await bus.start()
  await bus.subscriptions.setOptions('quick', { concurrency: 3 }, hour)
  const own = createDatabase(database.url, recordingLogger())
  const revision = async (): Promise<number> => database.count('select revision from bus.subscriptions')
  const before = await revision()
  await clearOverrides(own)
  expect(await revision()).toBe(before)
  await expire(database)
  await clearOverrides(own)
  await own.close()
  expect(await revision()).toBeGreaterThan(before)
  expect(await database.count('select count(*) from bus.subscriptions where overrides is null')).toBe(1)
})

test('who set options, why, from what to what and until when is recorded', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({ name: 'quick', events: ['note'], handler: () => {} })
  await bus.start()
  await bus.subscriptions.setOptions('quick', { concurrency: 3 }, hour)
  await bus.subscriptions.setOptions('quick', {}, { by: 'ben' })
  const records = await bus.audit.list({ subscription: 'quick' })
  expect(records).toMatchObject([
    { by: 'ben', action: 'subscriptions.setOptions', change: { from: { concurrency: 3 }, to: null } },
    { by: 'ana', reason: 'an incident', change: { from: null, to: { concurrency: 3 } } },
  ])
  expect(records[1]?.change).toHaveProperty('to.expiresAt')
  expect(records[0]?.finishedAt).toBeInstanceOf(Date)
})

test('bad input is refused, and nothing is written', async () => {
  const database = await createTestDatabase()
  const bus: PaymentBus = testBus(database.url)
  bus.subscribe({ name: 'quick', events: ['note'], handler: () => {} })
  await bus.start()
  const set = async (options: unknown, change: unknown): Promise<string> =>
    (await refusalOf(async () => bus.subscriptions.setOptions('quick', options as never, change as never)))
      .message
  expect(await set({ concurrency: 0 }, hour)).toContain('`concurrency`')
  expect(await set({ retry: { delays: [] } }, hour)).toContain('`retry.delays`')
  expect(await set({ paused: false }, hour)).toContain('`resume`')
  expect(await set({ batchSize: 3 }, hour)).toContain('`batchSize`')
  expect(await set({ concurrency: 3 }, { by: 'ana' })).toContain('`expiresAt`')
  expect(await set({ concurrency: 3 }, { ...hour, expiresAt: new Date(Date.now() + 1000) })).toContain(
    'one of',
  )
  expect(await set({ concurrency: 3 }, { by: 'ana', expiresAt: new Date(0) })).toContain('`expiresAt`')
  expect(await set({ concurrency: 3 }, { by: 'ana', expiresInSeconds: 2_592_001 })).toContain(
    '`expiresInSeconds`',
  )
  expect(await set({ concurrency: 3 }, { expiresInSeconds: 1 })).toContain('`by`')
  await expect(bus.subscriptions.setOptions('another', {}, { by: 'ana' })).rejects.toMatchObject({
    code: 'BUS_SUBSCRIPTION_NOT_FOUND',
  })
  expect(await bus.audit.list()).toEqual([])
  expect(await database.count('select count(*) from bus.subscriptions where overrides is not null')).toBe(0)
})
