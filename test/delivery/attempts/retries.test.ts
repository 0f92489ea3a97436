import { expect, test } from 'vitest'
import { NonRetryableError } from '../../../src/index.ts'
import { recordingLogger, testBus, type PaymentBus } from '../../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'
import { openBoss, takeAndDie } from '../../support/queues.ts'

const paid = (paymentId: string) =>
  ({ type: 'payment.paid', tenantId: 'acme', payload: { paymentId, amountCents: 100 } }) as const

const quick = { maxAttempts: 3, delaySeconds: 0, backoff: false }

async function publish(bus: PaymentBus, { db }: TestDatabase, ids: readonly string[]): Promise<string[]> {
  const published = await db.transaction(async (tx) => bus.publishMany(tx, ids.map(paid)))
  return published.map(({ id }) => id)
}

const receipts = async ({ count }: TestDatabase): Promise<number> =>
  count('select count(*) from bus.deliveries')

test('a failed event is tried again alone; its batch runs once', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const attempts = new Map<string, number[]>()
  bus.subscribe({
    name: 'flaky',
    events: ['payment.paid'],
    retry: quick,
    handler: ({ payload }, { attempt }) => {
      attempts.set(payload.paymentId, [...(attempts.get(payload.paymentId) ?? []), attempt])
      if (payload.paymentId === 'p7' && attempt < 3) throw new Error('not yet')
    },
  })
  await publish(
    bus,
    database,
    Array.from({ length: 20 }, (_, i) => `p${i}`),
  )
  await bus.start()
  await until('every event has its receipt', async () => (await receipts(database)) === 20)
  expect(attempts.get('p7')).toEqual([1, 2, 3])
  const others = [...attempts].filter(([id]) => id !== 'p7')
  expect(others).toHaveLength(19)
  expect(others.filter(([, seen]) => seen.length !== 1)).toEqual([])
  const [receipt] = await database.rows(
    `select d.attempts from bus.deliveries d join bus.events e on e.id = d.event_id where e.payload->>'paymentId' = 'p7'`,
  )
  expect(receipt).toEqual({ attempts: 3 })
})

test.each(['alone', 'in a batch'])(
  'an event that fails every attempt, %s, becomes a dead letter with each error',
  async (how) => {
    const database = await createTestDatabase()
    const logger = recordingLogger()
    const bus = testBus(database.url, { logger })
    bus.subscribe({
      name: 'hopeless',
      events: ['payment.paid'],
      retry: quick,
      handler: ({ payload }, { attempt }) => {
        if (payload.paymentId === 'bad')
          throw Object.assign(new TypeError(`failure ${attempt}`), { code: 'E_BAD' })
      },
    })
    const [badId] = await publish(bus, database, how === 'alone' ? ['bad'] : ['bad', 'good'])
    await bus.start()
    await until('the dead letter is there', async () => (await bus.deadLetters.list()).length === 1)
    const [letter] = await bus.deadLetters.list({ subscription: 'hopeless' })
    expect(letter).toMatchObject({ subscription: 'hopeless', id: badId, attempts: 3 })
    expect(
      letter?.failures.map(({ attempt, name, message, code }) => ({ attempt, name, message, code })),
    ).toEqual(
      [1, 2, 3].map((attempt) => ({
        attempt,
        name: 'TypeError',
        message: `failure ${attempt}`,
        code: 'E_BAD',
      })),
    )
    expect(await receipts(database)).toBe(how === 'alone' ? 0 : 1)
    await expect(bus.deadLetters.list({ subscription: 'another' })).rejects.toMatchObject({
      code: 'BUS_SUBSCRIPTION_NOT_FOUND',
    })
    expect(
      logger.lines.filter(({ message }) => message === 'an event went to the dead letters'),
    ).toMatchObject([
      { level: 'error', fields: { subscription: 'hopeless', id: badId, type: 'payment.paid', attempts: 3 } },
    ])
  },
)

test.each(['alone', 'in a batch', 'after a retry'])(
  'a NonRetryableError, %s, goes to the dead letters at once',
  async (when) => {
    const database = await createTestDatabase()
    const bus = testBus(database.url)
    const seen: string[] = []
    bus.subscribe({
      name: 'strict',
      events: ['payment.paid'],
      retry: { ...quick, maxAttempts: 5 },
      handler: ({ payload }, { attempt }) => {
        seen.push(`${payload.paymentId} ${attempt}`)
        if (payload.paymentId !== 'bad') return
        if (when === 'after a retry' && attempt === 1) throw new Error('once more')
        throw new NonRetryableError('never', { cause: new Error('because') })
      },
    })
    const [badId] = await publish(bus, database, when === 'alone' ? ['bad'] : ['bad', 'good'])
    await bus.start()
    await until('the dead letter is there', async () => (await bus.deadLetters.list()).length === 1)
    const attempts = when === 'after a retry' ? 2 : 1
    const [letter] = await bus.deadLetters.list()
    expect(letter).toMatchObject({ id: badId, attempts })
    expect(letter?.failures.at(-1)).toMatchObject({
      attempt: attempts,
      name: 'NonRetryableError',
      code: 'BUS_NON_RETRYABLE',
    })
    expect(seen.filter((entry) => entry.startsWith('bad'))).toHaveLength(attempts)
  },
)

test('whatever a handler throws becomes a readable, bounded record', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const thrown: Record<string, unknown> = {
    undefined: undefined,
    null: null,
    text: 'just text',
    symbol: Symbol('s'),
    object: { message: 'in an object', secret: 1 },
    nul: new Error('with a \u0000 in it'),
    surrogate: new Error('half \ud800 a pair'),
    huge: new Error('x'.repeat(5_000_000)),
    hostile: Object.defineProperty(new Error('hidden'), 'message', {
      get() {
        throw new Error('no message for you')
      },
    }),
  }
  bus.subscribe({
    name: 'thrower',
    events: ['payment.paid'],
    retry: { maxAttempts: 2, delaySeconds: 0, backoff: false },
    handler: ({ payload }) => {
      throw thrown[payload.paymentId]
    },
  })
  const names = Object.keys(thrown)
  const ids = await publish(bus, database, names)
  await bus.start()
  await until('all are dead', async () => (await bus.deadLetters.list()).length === names.length)
  const letters = await bus.deadLetters.list()
  const message = (name: string): string =>
    letters.find(({ id }) => id === ids[names.indexOf(name)])?.failures.at(-1)?.message ?? ''
  expect(message('undefined')).toBe('undefined was thrown')
  expect(message('null')).toBe('null was thrown')
  expect(message('text')).toBe('just text')
  expect(message('symbol')).toBe('a symbol was thrown')
  expect(message('object')).toBe('in an object')
  expect(message('nul')).toBe('with a \\0 in it')
  expect(message('surrogate')).toBe('half \ufffd a pair')
  expect(message('huge')).toMatch(/^x{2000}… \(5000000 characters\)$/)
  expect(message('hostile')).toBe('The thrown value could not be read')
  const size = await database.count(
    `select max(octet_length(source_output::text)) from pgboss.job where source_output is not null`,
  )
  expect(size).toBeLessThan(20_000)
  expect(new Set(letters.map(({ failures, attempts }) => `${failures.length} of ${attempts}`))).toEqual(
    new Set(['2 of 2']),
  )
})

test('an attempt that outlives its timeout has failed, and its signal is aborted', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const reasons: unknown[] = []
  bus.subscribe({
    name: 'slow',
    events: ['payment.paid'],
    timeoutSeconds: 1,
    retry: { maxAttempts: 2, delaySeconds: 0, backoff: false },
    handler: async (_event, { signal, attempt }) => {
      if (attempt > 1) return
      await new Promise<void>((resolve) =>
        signal.addEventListener('abort', () => {
          reasons.push((signal.reason as { code?: string }).code)
          resolve()
        }),
      )
    },
  })
  await publish(bus, database, ['p1'])
  await bus.start()
  await until('the second attempt succeeded', async () => (await receipts(database)) === 1)
  expect(reasons).toEqual(['BUS_HANDLER_TIMEOUT'])
  expect(await database.rows('select attempts from bus.deliveries')).toEqual([{ attempts: 2 }])
})

test("one subscription's failures neither delay nor repeat another's deliveries", async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const delivered: string[] = []
  bus.subscribe({
    name: 'failing',
    events: ['payment.paid'],
    retry: { maxAttempts: 100, delaySeconds: 0, backoff: false },
    handler: () => {
      throw new Error('always')
    },
  })
  bus.subscribe({
    name: 'healthy',
    events: ['payment.paid'],
    handler: ({ payload }) => void delivered.push(payload.paymentId),
  })
  await bus.start()
  const ids = Array.from({ length: 50 }, (_, i) => `p${i}`)
  for (const id of ids) await publish(bus, database, [id])
  await until('the healthy one has all', () => delivered.length >= ids.length)
  expect(delivered.toSorted()).toEqual(ids.toSorted())
  expect(
    await database.count(
      `select count(*) from bus.deliveries d join bus.subscriptions s on s.id = d.subscription_id where s.name = 'healthy'`,
    ),
  ).toBeLessThanOrEqual(50)
  expect(
    await database.count(
      `select count(*) from bus.deliveries d join bus.subscriptions s on s.id = d.subscription_id where s.name = 'failing'`,
    ),
  ).toBe(0)
})

test('retries back off exponentially with jitter, up to the maximum', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({
    name: 'patient',
    events: ['payment.paid'],
    retry: { maxAttempts: 10, delaySeconds: 40, maxDelaySeconds: 100 },
    handler: () => {
      throw new Error('always')
    },
  })
  await bus.start()
  const [eventId] = await publish(bus, database, ['p1', 'p2'])
  const waiting = async () =>
    database.rows(
      `select retry_count, extract(epoch from start_after - now())::float as seconds, retry_limit, state
       from pgboss.job where name = 'bus.patient' and data->'eventIds' = $1::jsonb and state < 'active'`,
      [JSON.stringify([eventId])],
    )
  await until('the retry is queued', async () => (await waiting()).length === 1)
  const [second] = await waiting()
  expect(second).toMatchObject({ state: 'created', retry_limit: 1_000_008 })
  expect(second?.['seconds']).toBeGreaterThan(37)
  expect(second?.['seconds']).toBeLessThan(81)
  // The third attempt comes later, but never later than the maximum: bring the second one forward.
  await database.rows(
    `update pgboss.job set start_after = now() where name = 'bus.patient' and data->'eventIds' = $1::jsonb`,
    [JSON.stringify([eventId])],
  )
  await until('the second retry is queued', async () => (await waiting())[0]?.['state'] === 'retry')
  const [third] = await waiting()
  expect(third?.['seconds']).toBeGreaterThan(76)
  expect(third?.['seconds']).toBeLessThan(101)
})

test('changed retry options take effect at the next start', async () => {
  const database = await createTestDatabase()
  const subscribeWith = async (maxAttempts: number): Promise<PaymentBus> => {
    const bus = testBus(database.url)
    bus.subscribe({
      name: 'changing',
      events: ['payment.paid'],
      retry: { maxAttempts, delaySeconds: 0, backoff: false },
      handler: () => {
        throw new Error('always')
      },
    })
    await bus.start()
    return bus
  }
  const before = await subscribeWith(1)
  await publish(before, database, ['p1'])
  await until('the first is dead', async () => (await before.deadLetters.list()).length === 1)
  await before.stop()
  const after = await subscribeWith(3)
  await publish(after, database, ['p2'])
  await until('the second is dead', async () => (await after.deadLetters.list()).length === 2)
  expect((await after.deadLetters.list()).map(({ attempts }) => attempts)).toEqual([1, 3])
  const queue = await (await openBoss(database.url)).getQueue('bus.changing')
  expect(queue).toMatchObject({
    // Beyond the subscription's own, those of lost workers.
    retryLimit: 1_000_002,
    retryBackoff: false,
    partition: true,
    deadLetter: 'bus.changing.dead',
  })
})

test('events of a worker that died are delivered by another one, a batch one by one', async () => {
  const database = await createTestDatabase()
  const first = testBus(database.url)
  first.subscribe({ name: 'heir', events: ['payment.paid'], handler: () => {} })
  await first.start()
  await first.stop()
  const publisher = testBus(database.url)
  await publish(publisher, database, ['p1', 'p2', 'p3'])
  // Somebody relays, nobody works: then the job is taken by a worker that dies.
  const relayOnly = testBus(database.url)
  await relayOnly.start()
  await until(
    'the job is there',
    async () => (await database.count(`select count(*) from pgboss.job where name = 'bus.heir'`)) === 1,
  )
  const [taken] = await takeAndDie(database.url, 'bus.heir')
  expect(taken?.eventIds).toHaveLength(3)
  const attempts: number[] = []
  const heir = testBus(database.url)
  heir.subscribe({
    name: 'heir',
    events: ['payment.paid'],
    handler: (_event, { attempt }) => void attempts.push(attempt),
  })
  await heir.start()
  await until('all three are delivered', async () => (await receipts(database)) === 3)
  expect(attempts).toEqual([2, 2, 2])
})

test('an event with one attempt runs again when its worker died, which is no fault of its own', async () => {
  const database = await createTestDatabase()
  const first = testBus(database.url)
  const retry = { ...quick, maxAttempts: 1 }
  first.subscribe({ name: 'heir', events: ['payment.paid'], retry, handler: () => {} })
  await first.start()
  await first.stop()
  await publish(testBus(database.url), database, ['p1'])
  const relayOnly = testBus(database.url)
  await relayOnly.start()
  await until(
    'the job is there',
    async () => (await database.count(`select count(*) from pgboss.job where name = 'bus.heir'`)) === 1,
  )
  await takeAndDie(database.url, 'bus.heir')
  const attempts: number[] = []
  const heir = testBus(database.url)
  heir.subscribe({
    name: 'heir',
    events: ['payment.paid'],
    retry,
    handler: (_event, { attempt }) => {
      attempts.push(attempt)
      throw new Error('its own fault')
    },
  })
  await heir.start()
  await until('it is dead', async () => (await heir.deadLetters.list()).length === 1)
  expect(attempts).toEqual([2])
  expect((await heir.deadLetters.list())[0]).toMatchObject({
    attempts: 2,
    failures: [{ code: 'BUS_HANDLER_TIMEOUT' }, { message: 'its own fault' }],
  })
})

test("pg-boss's redrive brings a dead letter back to its handler", async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  let healed = false
  const handled: string[] = []
  bus.subscribe({
    name: 'healed',
    events: ['payment.paid'],
    retry: { maxAttempts: 1 },
    handler: (event) => {
      if (!healed) throw new Error('not yet')
      handled.push(event.id)
    },
  })
  await bus.start()
  const ids = await publish(bus, database, ['p1', 'p2'])
  await until('both are dead', async () => (await bus.deadLetters.list()).length === 2)
  healed = true
  expect(await (await openBoss(database.url)).redrive('bus.healed.dead')).toBe(2)
  await until('both have their receipts', async () => (await receipts(database)) === 2)
  expect(new Set(handled)).toEqual(new Set(ids))
  expect(await bus.deadLetters.list()).toEqual([])
})
