import { expect, test } from 'vitest'
import { RetryAfterError } from '../../../src/index.ts'
import { resolveRetry } from '../../../src/delivery/subscriptions/retry-options.ts'
import { leastDelaySeconds } from '../../../src/delivery/subscriptions/retry-delays.ts'
import { recordingLogger, testBus } from '../../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'
import { takeAndDie } from '../../support/queues.ts'

const note = (payload: string) => ({ type: 'note', tenantId: 'acme', payload }) as const

/** The seconds until the next attempt of the one job that waits for one. */
async function delay({ rows }: TestDatabase, queue: string): Promise<number | undefined> {
  const [job] = await rows(
    `select extract(epoch from start_after - now())::float8 as seconds from pgboss.job
     where name = $1 and state < 'active' and start_after > now()`,
    [queue],
  )
  return job === undefined ? undefined : Number(job['seconds'])
}

/** Lets the waiting job run now. */
async function skipWait({ rows }: TestDatabase, queue: string): Promise<void> {
  await rows(`update pgboss.job set start_after = now() where name = $1 and state < 'active'`, [queue])
}

test('the default lasts longer than an outage of an hour', () => {
  const retry = resolveRetry('`retry`', {})
  const delays = Array.from({ length: retry.maxAttempts - 1 }, (_, i) => leastDelaySeconds(retry, i + 1))
  const least = delays.reduce((sum, each) => sum + each, 0)
  const most = delays.reduce((sum, each) => sum + Math.min(retry.maxDelaySeconds, 2 * each), 0)
  expect(Math.floor(least / 60)).toBe(67)
  expect(Math.floor(most / 60)).toBe(77)
})

test.each([
  ['alone', false],
  ['in a batch', false],
  ['in a batch', true],
] as const)('an event %s (ordered: %s) is tried again by its schedule, then dead', async (how, ordered) => {
  const database = await createTestDatabase()
  const logger = recordingLogger()
  const bus = testBus(database.url, { logger })
  const seen: number[] = []
  bus.subscribe({
    name: 'hook',
    events: ['note'],
    ordered,
    retry: { delays: [500, 3000, 70] },
    handler: ({ payload }, { attempt }) => {
      if (payload !== 'bad') return
      seen.push(attempt)
      throw new Error('down')
    },
  })
  const payloads = how === 'alone' ? ['bad'] : ['bad', 'good']
  const events = payloads.map((payload) => ({ ...note(payload), ...(ordered ? { orderingKey: 'k' } : {}) }))
  await database.db.transaction(async (tx) => bus.publishMany(tx, events))
  await bus.start()
  for (const [index, seconds] of [500, 3000, 70].entries()) {
    await until(`attempt ${index + 1} was made`, () => seen.length === index + 1)
    await until('it waits', async () => (await delay(database, 'bus.hook')) !== undefined)
    const waits = await delay(database, 'bus.hook')
    expect(waits).toBeGreaterThan(seconds - 5)
    expect(waits).toBeLessThanOrEqual(seconds + 1)
    await skipWait(database, 'bus.hook')
  }
  await until('it is dead', async () => (await bus.deadLetters.list()).length === 1)
  expect(seen).toEqual([1, 2, 3, 4])
  expect(
    logger.lines
      .filter(({ message }) => message === 'an attempt to handle an event failed')
      .map(({ fields }) => fields['nextInSeconds']),
  ).toEqual([500, 3000, 70, undefined])
})

test('what a handler asks for stands in place of the schedule', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({
    name: 'hook',
    events: ['note'],
    retry: { delays: [500, 3000] },
    handler: () => {
      throw new RetryAfterError(20)
    },
  })
  await database.db.transaction(async (tx) => bus.publish(tx, note('x')))
  await bus.start()
  await until('it waits', async () => (await delay(database, 'bus.hook')) !== undefined)
  expect(await delay(database, 'bus.hook')).toBeLessThanOrEqual(21)
})

test('a lost worker takes neither an attempt nor a delay from the schedule', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const seen: number[] = []
  bus.subscribe({
    name: 'hook',
    events: ['note'],
    heartbeatSeconds: 10,
    retry: { delays: [500, 3000] },
    handler: (_event, { attempt }) => void seen.push(attempt),
  })
  const declaring = testBus(database.url)
  declaring.subscribe({
    name: 'hook',
    events: ['note'],
    heartbeatSeconds: 10,
    retry: { delays: [500, 3000] },
    handler: () => {},
  })
  await declaring.start()
  await declaring.subscriptions.pause('hook')
  await database.db.transaction(async (tx) => bus.publish(tx, note('x')))
  await until(
    'its job waits',
    async () => (await database.count(`select count(*) from pgboss.job where name = 'bus.hook'`)) === 1,
  )
  await declaring.stop()
  expect(await takeAndDie(database.url, 'bus.hook')).toHaveLength(1)
  await bus.subscriptions.resume('hook')
  await bus.start()
  await until(
    'it is delivered',
    async () => (await database.count('select count(*) from bus.deliveries')) === 1,
  )
  expect(seen).toEqual([2])
})
