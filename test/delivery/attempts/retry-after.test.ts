import { sql } from 'drizzle-orm'
import { expect, test } from 'vitest'
import { RetryAfterError } from '../../../src/index.ts'
import { testBus, type PaymentBus } from '../../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'
import { countEffects, createEffects, writeEffect } from '../../support/effects.ts'

const note = (payload: string) => ({ type: 'note', tenantId: 'acme', payload }) as const

/** Delays of its own that would show: the second attempt after an hour. */
const slow = { maxAttempts: 3, delaySeconds: 3600, backoff: false }

async function publish(
  bus: PaymentBus,
  { db }: TestDatabase,
  payloads: readonly string[],
): Promise<string[]> {
  const published = await db.transaction(async (tx) => bus.publishMany(tx, payloads.map(note)))
  return published.map(({ id }) => id)
}

const receipts = async ({ count }: TestDatabase): Promise<number> =>
  count('select count(*) from bus.deliveries')

/** The jobs that wait for a later attempt, with the seconds from the failure that was recorded last. */
async function waiting({ rows }: TestDatabase, queue: string) {
  return rows(
    `select id, retry_count, extract(epoch from start_after - now())::float8 as seconds
     from pgboss.job where name = $1 and state < 'active' and start_after > now()`,
    [queue],
  )
}

test.each(['alone', 'in a batch'])(
  'an event %s is not tried again before the time it asks for',
  async (how) => {
    const database = await createTestDatabase()
    const bus = testBus(database.url)
    const seen: string[] = []
    bus.subscribe({
      name: 'limited',
      events: ['note'],
      retry: { maxAttempts: 5, delaySeconds: 0, backoff: false },
      handler: ({ payload }, { attempt }) => {
        seen.push(`${String(payload)} ${attempt}`)
        if (payload === 'busy') throw new RetryAfterError(7000.5)
      },
    })
    await publish(bus, database, how === 'alone' ? ['busy'] : ['busy', 'free', 'free'])
    await bus.start()
    await until('it waits', async () => (await waiting(database, 'bus.limited')).length === 1)
    const [job] = await waiting(database, 'bus.limited')
    expect(job?.['seconds']).toBeGreaterThan(6900)
    expect(job?.['seconds']).toBeLessThanOrEqual(7000.5)
    expect(seen.filter((what) => what.startsWith('busy'))).toEqual(['busy 1'])
    expect(await receipts(database)).toBe(how === 'alone' ? 0 : 2)
  },
)

test.each(['alone', 'in a batch'])(
  'the time it asks for stands in place of the delay of the subscription: %s, also in later attempts',
  async (how) => {
    const database = await createTestDatabase()
    const bus = testBus(database.url)
    const seenAt: number[] = []
    bus.subscribe({
      name: 'limited',
      events: ['note'],
      retry: slow,
      handler: ({ payload }, { attempt }) => {
        if (payload !== 'busy') return
        seenAt.push(performance.now())
        if (attempt < 3) throw new RetryAfterError(0.4)
      },
    })
    await publish(bus, database, how === 'alone' ? ['busy'] : ['busy', 'free'])
    await bus.start()
    await until('all are delivered', async () => (await receipts(database)) === (how === 'alone' ? 1 : 2))
    const [first = 0, second = 0, third = 0] = seenAt
    expect(seenAt).toHaveLength(3)
    expect(second - first).toBeGreaterThanOrEqual(400)
    expect(third - second).toBeGreaterThanOrEqual(400)
    expect(await database.count('select max(attempts) from bus.deliveries')).toBe(3)
  },
)

test.each(['alone', 'in a batch'])('the last attempt %s goes to the dead letters', async (how) => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({
    name: 'limited',
    events: ['note'],
    retry: { ...slow, maxAttempts: 2 },
    handler: ({ payload }, { attempt }) => {
      if (payload === 'busy') throw new RetryAfterError(0, `busy ${attempt}`)
    },
  })
  const [id] = await publish(bus, database, how === 'alone' ? ['busy'] : ['busy', 'free'])
  await bus.start()
  await until('it is dead', async () => (await bus.deadLetters.list()).length === 1)
  const [letter] = await bus.deadLetters.list()
  expect(letter).toMatchObject({ id, attempts: 2 })
  expect(letter?.failures).toMatchObject([
    { attempt: 1, name: 'RetryAfterError', code: 'BUS_RETRY_AFTER', message: 'busy 1' },
    { attempt: 2, name: 'RetryAfterError', code: 'BUS_RETRY_AFTER', message: 'busy 2' },
  ])
  expect(await waiting(database, 'bus.limited')).toEqual([])
})

test.each(['alone', 'in a batch'])(
  'exactly-once: %s, nothing is written before the attempt that succeeds',
  async (how) => {
    const database = await createTestDatabase()
    await createEffects(database)
    const bus = testBus(database.url)
    bus.subscribe({
      name: 'once',
      events: ['note'],
      mode: 'exactly-once',
      retry: slow,
      handler: async (event, { tx, attempt }) => {
        await writeEffect(tx, event)
        if (event.payload === 'busy' && attempt === 1)
          await tx.transaction(async (inner) => {
            await inner.execute(sql`select 1`)
            throw new RetryAfterError(0.2)
          })
      },
    })
    await publish(bus, database, how === 'alone' ? ['busy'] : ['busy', 'free', 'free'])
    await bus.start()
    const count = how === 'alone' ? 1 : 3
    await until('all are delivered', async () => (await receipts(database)) === count)
    expect(await countEffects(database)).toEqual({ receipts: count, effects: count, distinct: count })
    expect(await database.count('select max(attempts) from bus.deliveries')).toBe(2)
  },
)

test('a due event is found however many others wait for later', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const delivered: unknown[] = []
  bus.subscribe({
    name: 'limited',
    events: ['note'],
    concurrency: 100,
    circuitBreaker: false,
    retry: slow,
    handler: ({ payload }, { attempt }) => {
      if (payload !== 'soon') throw new RetryAfterError(3600)
      if (attempt === 1) throw new RetryAfterError(3)
      delivered.push(payload)
    },
  })
  await publish(
    bus,
    database,
    Array.from({ length: 2000 }, (_, i) => `later ${i}`),
  )
  await bus.start()
  await until('the others wait', async () => (await waiting(database, 'bus.limited')).length === 2000)
  await publish(bus, database, ['soon'])
  // Without it in view, the next look for anything at all would come after 30 s.
  await until('it is delivered', () => delivered.length > 0)
  expect(delivered).toEqual(['soon'])
})

test('a time that is none is refused: it fails the attempt as any error does', async () => {
  for (const seconds of [-1, Number.NaN, Number.POSITIVE_INFINITY, 604_801, '5' as unknown as number]) {
    expect(() => new RetryAfterError(seconds)).toThrow(
      expect.objectContaining({
        code: 'BUS_INVALID_OPTION',
        message: expect.stringMatching(/seconds/) as string,
      }),
    )
  }
  expect(new RetryAfterError(604_800)).toMatchObject({
    code: 'BUS_RETRY_AFTER',
    retryable: true,
    seconds: 604_800,
  })
})
