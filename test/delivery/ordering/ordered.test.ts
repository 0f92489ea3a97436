import { expect, test } from 'vitest'
import { testBus, type PaymentBus } from '../../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'

const note = (orderingKey: string | undefined, payload: unknown, tenantId = 'acme') =>
  ({ type: 'note', tenantId, orderingKey, payload }) as const

const keyOf = ({ tenantId, orderingKey }: { tenantId: string; orderingKey: string | undefined }): string =>
  `${tenantId}/${orderingKey ?? ''}`

async function publish(
  bus: PaymentBus,
  { db }: TestDatabase,
  notes: readonly ReturnType<typeof note>[],
): Promise<string[]> {
  const published = await db.transaction(async (tx) => bus.publishMany(tx, notes))
  return published.map(({ id }) => id)
}

const receipts = async ({ count }: TestDatabase): Promise<number> =>
  count('select count(*) from bus.deliveries')

/** Nothing of any key is left behind. */
async function expectNoKeys({ count }: TestDatabase): Promise<void> {
  expect(await count('select count(*) from bus.ordered_keys')).toBe(0)
  expect(await count('select count(*) from bus.ordered_events')).toBe(0)
  expect(await count('select count(*) from bus.outbox')).toBe(0)
}

test("each key's events come in publish order, one at a time, whatever fails in between; keys do not wait for each other", async () => {
  const database = await createTestDatabase()
  const buses = Array.from({ length: 3 }, () => testBus(database.url))
  const delivered = new Map<string, number[]>()
  const running = new Map<string, number>()
  const failedOnce = new Set<string>()
  let atOnce = 0
  let mostAtOnce = 0
  let overlaps = 0
  for (const bus of buses) {
    bus.subscribe({
      name: 'ordered',
      events: ['note'],
      ordered: true,
      concurrency: 5,
      batchSize: 7,
      retry: { maxAttempts: 5, delaySeconds: 0, backoff: false },
      handler: async (event) => {
        const key = keyOf(event)
        const number = event.payload as number
        if ((running.get(key) ?? 0) > 0) overlaps += 1
        running.set(key, (running.get(key) ?? 0) + 1)
        atOnce += 1
        mostAtOnce = Math.max(mostAtOnce, atOnce)
        await new Promise((resolve) => setImmediate(resolve))
        atOnce -= 1
        running.set(key, (running.get(key) ?? 0) - 1)
        const attempt = `${key} ${number}`
        if (number % 10 === 3 && !failedOnce.has(attempt)) {
          failedOnce.add(attempt)
          throw new Error('not yet')
        }
        delivered.set(key, [...(delivered.get(key) ?? []), number])
      },
    })
  }
  const [publisher] = buses as [PaymentBus]
  const keys = Array.from({ length: 20 }, (_, k) => ({
    key: `k${k % 10}`,
    tenant: k < 10 ? 'acme' : 'zenith',
  }))
  const publishRound = async (from: number): Promise<string[]> =>
    publish(
      publisher,
      database,
      Array.from({ length: 10 }, (_, i) => keys.map(({ key, tenant }) => note(key, from + i, tenant))).flat(),
    )
  // Some before anybody delivers, some meanwhile.
  await publishRound(0)
  await Promise.all(buses.map(async (bus) => bus.start()))
  await publishRound(10)
  await publishRound(20)
  await until('all are delivered', async () => (await receipts(database)) === 600)
  expect(delivered.size).toBe(20)
  for (const numbers of delivered.values()) expect(numbers).toEqual(Array.from({ length: 30 }, (_, i) => i))
  expect(overlaps).toBe(0)
  expect(mostAtOnce).toBeGreaterThan(1)
  expect(failedOnce.size).toBe(60)
  await until(
    'the keys are gone',
    async () => (await database.count('select count(*) from bus.ordered_keys')) === 0,
  )
  await expectNoKeys(database)
})

test('an event without a key flows freely past a key that waits', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const seen: [key: string | undefined, payload: unknown][] = []
  const open = Promise.withResolvers<void>()
  bus.subscribe({
    name: 'ordered',
    events: ['note'],
    ordered: true,
    handler: async ({ payload, orderingKey }) => {
      if (payload === 'slow') await open.promise
      seen.push([orderingKey, payload])
    },
  })
  await publish(
    bus,
    database,
    [note('k', 'slow'), note('k', 'behind'), note(undefined, 'free'), note('', 'empty')].filter(
      ({ orderingKey }) => orderingKey !== '',
    ),
  )
  await database.rows(
    `insert into bus.events (tenant_id, type, source, ordering_key, payload) values ('acme', 'note', 'psql', '', '"empty"')`,
  )
  await bus.start()
  await until('the free one is delivered', () => seen.length === 2)
  expect(new Set(seen.map((entry) => entry.join()))).toEqual(new Set([',empty', ',free']))
  open.resolve()
  await until('all are delivered', () => seen.length === 4)
  expect(seen.slice(2)).toEqual([
    ['k', 'slow'],
    ['k', 'behind'],
  ])
})

test.each([1, 100])(
  'a key whose event fails for good is blocked, its retries delay no other key, and release goes on in order (batches of %i)',
  async (batchSize) => {
    const database = await createTestDatabase()
    const bus = testBus(database.url)
    const seen: string[] = []
    let healed = false
    bus.subscribe({
      name: 'blocking',
      events: ['note'],
      ordered: true,
      batchSize,
      retry: { maxAttempts: 3, delaySeconds: 0, backoff: false },
      handler: ({ payload, orderingKey }, { attempt }) => {
        if (payload === 2 && orderingKey === 'bad' && !healed) throw new Error(`failure ${attempt}`)
        seen.push(`${orderingKey}${payload as number}#${attempt}`)
      },
    })
    await bus.start()
    const ids = await publish(
      bus,
      database,
      [1, 2, 3, 4].flatMap((n) => [note('bad', n), note('good', n)]),
    )
    await until('the key is blocked', async () => (await bus.blockedKeys.list()).length === 1)
    await until('the other key is done', async () => (await receipts(database)) === 5)
    expect(seen.toSorted()).toEqual(['bad1#1', 'good1#1', 'good2#1', 'good3#1', 'good4#1'])
    const [blocked] = await bus.blockedKeys.list({ subscription: 'blocking' })
    expect(blocked).toMatchObject({
      subscription: 'blocking',
      tenantId: 'acme',
      orderingKey: 'bad',
      state: 'blocked',
      id: ids[2],
      attempts: 3,
      waitingCount: 2,
      failures: [{ message: 'failure 1' }, { message: 'failure 2' }, { message: 'failure 3' }],
    })
    expect(blocked?.since).toBeInstanceOf(Date)
    expect(await bus.blockedKeys.list({ tenantId: 'acme' })).toEqual([blocked])
    expect(await bus.blockedKeys.list({ tenantId: 'rival' })).toEqual([])
    await expect(bus.blockedKeys.list({ tenantId: '' })).rejects.toMatchObject({ option: 'tenantId' })
    await expect(bus.blockedKeys.list({ subscription: 'another' })).rejects.toMatchObject({
      code: 'BUS_SUBSCRIPTION_NOT_FOUND',
    })
    expect(await bus.deadLetters.list()).toMatchObject([
      {
        id: ids[2],
        attempts: 3,
        blockedKey: { tenantId: 'acme', orderingKey: 'bad', state: 'blocked' },
      },
    ])
    // What comes meanwhile waits, too.
    await publish(bus, database, [note('bad', 5), note('good', 5)])
    await until('the other key goes on', () => seen.includes('good5#1'))
    await until('it waits', async () => (await bus.blockedKeys.list())[0]?.waitingCount === 3)
    healed = true
    seen.length = 0
    const key = { subscription: 'blocking', tenantId: 'acme', orderingKey: 'bad' }
    expect(await Promise.all([bus.blockedKeys.release(key), bus.blockedKeys.release(key)])).toContain(true)
    expect(await bus.blockedKeys.release(key)).toBe(false)
    await until('all are delivered', async () => (await receipts(database)) === 10)
    expect(seen).toEqual(['bad2#4', 'bad3#1', 'bad4#1', 'bad5#1'])
    expect(await bus.deadLetters.list()).toEqual([])
    expect(await bus.blockedKeys.list()).toEqual([])
    await until(
      'the keys are gone',
      async () => (await database.count('select count(*) from bus.ordered_keys')) === 0,
    )
    await expectNoKeys(database)
  },
)

test('a parked key shows everything behind the failed event as dead letters, in order, and gives it back in order', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const seen: unknown[] = []
  let healed = false
  bus.subscribe({
    name: 'parking',
    events: ['note'],
    ordered: true,
    onKeyFailure: 'park',
    retry: { maxAttempts: 1 },
    handler: ({ payload }) => {
      if (payload === 1 && !healed) throw new Error('never')
      seen.push(payload)
    },
  })
  await bus.start()
  const ids = await publish(bus, database, [note('k', 1), note('k', 2)])
  await until('the key is parked', async () => (await bus.blockedKeys.list()).length === 1)
  ids.push(...(await publish(bus, database, [note('k', 3), note('k', 4)])))
  await until('the others are parked', async () => (await bus.deadLetters.list()).length === 4)
  const letters = await bus.deadLetters.list({ subscription: 'parking' })
  expect(letters.map(({ id, attempts }) => [id, attempts])).toEqual([
    [ids[0], 1],
    [ids[1], 0],
    [ids[2], 0],
    [ids[3], 0],
  ])
  expect(new Set(letters.map(({ blockedKey }) => blockedKey?.state))).toEqual(new Set(['parked']))
  expect(await bus.blockedKeys.list()).toMatchObject([{ state: 'parked', id: ids[0], waitingCount: 3 }])
  expect(seen).toEqual([])
  healed = true
  expect(await bus.blockedKeys.release({ subscription: 'parking', tenantId: 'acme', orderingKey: 'k' })).toBe(
    true,
  )
  await until('all are delivered', async () => (await receipts(database)) === 4)
  expect(seen).toEqual([1, 2, 3, 4])
  expect(await bus.deadLetters.list()).toEqual([])
})

test.each([1, 100])(
  'a skipped event is left behind as a dead letter and its key goes on (batches of %i)',
  async (batchSize) => {
    const database = await createTestDatabase()
    const bus = testBus(database.url)
    const seen: unknown[] = []
    bus.subscribe({
      name: 'skipping',
      events: ['note'],
      ordered: true,
      onKeyFailure: 'skip',
      batchSize,
      retry: { maxAttempts: 2, delaySeconds: 0, backoff: false },
      handler: ({ payload }, { attempt }) => {
        if (payload === 2) throw new Error(`failure ${attempt}`)
        seen.push(payload)
      },
    })
    const ids = await publish(
      bus,
      database,
      [1, 2, 3].map((n) => note('k', n)),
    )
    await bus.start()
    await until('the others are delivered', async () => (await receipts(database)) === 2)
    expect(seen).toEqual([1, 3])
    expect(await bus.deadLetters.list()).toMatchObject([{ id: ids[1], attempts: 2, blockedKey: undefined }])
    expect(await bus.blockedKeys.list()).toEqual([])
    await until(
      'the keys are gone',
      async () => (await database.count('select count(*) from bus.ordered_keys')) === 0,
    )
    await expectNoKeys(database)
  },
)
