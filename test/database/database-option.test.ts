import { expect, test } from 'vitest'
import { recordingLogger, testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { countEffects, createEffects, writeEffect } from '../support/effects.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'

const note = (payload: unknown) => ({ type: 'note', tenantId: 'a', payload }) as const

test('a bus whose database moves to another address goes on there, and loses nothing', async () => {
  const database = await createTestDatabase()
  await createEffects(database)
  const [first, second] = [await startTcpProxy(database.url), await startTcpProxy(database.url)]
  let target = first
  let askedCount = 0
  const logger = recordingLogger()
  const bus = testBus(
    async () => {
      askedCount += 1
      return { connectionString: target.url, max: 7 }
    },
    { logger },
  )
  const seen = new Set<unknown>()
  bus.subscribe({ name: 'seen', events: ['note'], handler: (event) => void seen.add(event.payload) })
  bus.subscribe({
    name: 'once',
    events: ['note'],
    mode: 'exactly-once',
    handler: async (event, { tx }) => writeEffect(tx, event),
  })
  await bus.start()
  const publish = async (payload: number): Promise<unknown> =>
    database.db.transaction(async (tx) => bus.publish(tx, note(payload)))
  for (let n = 0; n < 20; n += 1) await publish(n)
  await until('the first are delivered', () => seen.size === 20)
  expect(second.connectionCount).toBe(0)
  const askedBefore = askedCount
  // The old address does not answer from now on, and the name leads to the new one.
  first.refuseService(true)
  first.cut()
  target = second
  for (let n = 20; n < 60; n += 1) await publish(n)
  await until(
    'the rest is delivered',
    async () => seen.size === 60 && (await countEffects(database)).receipts === 120,
  )
  expect(await countEffects(database)).toMatchObject({ effects: 60, distinct: 60 })
  await until('it listens there', async () => (await bus.health()).listening)
  expect(askedCount).toBeGreaterThan(askedBefore)
  expect(second.connectionCount).toBeGreaterThan(0)
  expect(second.connectionCount).toBeLessThanOrEqual(7)
  // Connections that are at hand are not asked for.
  const askedAfter = askedCount
  for (let n = 0; n < 10; n += 1) await bus.health()
  expect(askedCount - askedAfter).toBeLessThan(10)
})

test('a function that throws, or gives nothing to connect to, is an error of that call alone', async () => {
  const database = await createTestDatabase()
  const answers: (() => unknown)[] = [
    () => {
      throw new Error('the secret store is away')
    },
    () => 42,
    () => Promise.resolve(database.url),
  ]
  const bus = testBus(() => answers.shift()?.() as string)
  await expect(bus.start()).rejects.toMatchObject({ code: 'BUS_DATABASE_UNAVAILABLE', retryable: true })
  await expect(bus.start()).rejects.toMatchObject({ code: 'BUS_INVALID_OPTION' })
  expect(await bus.tryPublish(note(1))).toMatchObject({ duplicate: false })
})
