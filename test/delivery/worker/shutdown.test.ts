import { expect, test } from 'vitest'
import { testBus } from '../../support/bus.ts'
import { createTestDatabase, until } from '../../support/database.ts'

const note = (payload: unknown) => ({ type: 'note', tenantId: 'a', payload }) as const

test('stop waits for running handlers, and what was not begun goes to the next process with no attempt counted', async () => {
  const { url, db, rows } = await createTestDatabase()
  const release = Promise.withResolvers<void>()
  const begun: unknown[] = []
  const first = testBus(url)
  first.subscribe({
    name: 'slow',
    events: ['note'],
    concurrency: 2,
    handler: async ({ payload }) => {
      begun.push(payload)
      await release.promise
    },
  })
  await db.transaction(async (tx) => first.publishMany(tx, [0, 1, 2, 3, 4, 5].map(note)))
  await first.start()
  await until('two handlers run', () => begun.length === 2)
  const stopping = first.stop({ graceMs: 10_000 })
  release.resolve()
  await stopping
  expect(begun).toHaveLength(2)
  expect(await rows('select attempts from bus.deliveries')).toEqual([{ attempts: 1 }, { attempts: 1 }])

  const attempts: number[] = []
  const second = testBus(url)
  second.subscribe({
    name: 'slow',
    events: ['note'],
    handler: (_event, ctx) => void attempts.push(ctx.attempt),
  })
  await second.start()
  await until('the other four are delivered', () => attempts.length === 4)
  expect(attempts).toEqual([1, 1, 1, 1])
})

test('after the grace period the signal aborts, and the event goes back at once with its attempt unburnt', async () => {
  const { url, db, count } = await createTestDatabase()
  const aborted: unknown[] = []
  const running = Promise.withResolvers<void>()
  const first = testBus(url)
  first.subscribe({
    name: 'stuck',
    events: ['note'],
    retry: { maxAttempts: 2, delaySeconds: 0, backoff: false },
    handler: async (_event, { attempt, signal }) => {
      if (attempt === 1) throw new Error('the first attempt fails')
      running.resolve()
      await new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => {
          aborted.push(signal.reason)
          reject(signal.reason as Error)
        })
      })
    },
  })
  await db.transaction(async (tx) => first.publish(tx, note('n')))
  await first.start()
  await running.promise
  await first.stop({ graceMs: 100 })
  expect(aborted).toHaveLength(1)
  expect(await count('select count(*) from bus.deliveries')).toBe(0)

  const attempts: number[] = []
  const second = testBus(url)
  second.subscribe({
    name: 'stuck',
    events: ['note'],
    retry: { maxAttempts: 2, delaySeconds: 0, backoff: false },
    handler: (_event, ctx) => void attempts.push(ctx.attempt),
  })
  await second.start()
  await until('it is delivered', async () => (await count('select count(*) from bus.deliveries')) === 1)
  // Two attempts were allowed: the one cut short was not counted, so this is still the second.
  expect(attempts).toEqual([2])
})

test('stop waits for no grace period when nothing runs, and closes every connection', async () => {
  const { url, rows } = await createTestDatabase()
  const bus = testBus(url)
  bus.subscribe({ name: 'idle', events: ['note'], handler: () => {} })
  await bus.start()
  const connections = async () =>
    rows(
      `select pid from pg_stat_activity where application_name = 'bossbus' and datname = current_database()`,
    )
  expect((await connections()).length).toBeGreaterThan(0)
  // Longer than this test may take.
  await bus.stop({ graceMs: 600_000 })
  await until('the connections are gone', async () => (await connections()).length === 0)
})
