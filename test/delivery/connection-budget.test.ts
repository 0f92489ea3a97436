import { Socket } from 'node:net'
import { sql } from 'drizzle-orm'
import { expect, test } from 'vitest'
import { shareConnections } from '../../src/database/configuration/connection-shares.ts'
import { recordingLogger, testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'

const note = (payload: unknown) => ({ type: 'note', tenantId: 'a', payload }) as const

/** The connections that a bus has open at a time, counted where they are made. */
function countingStream(): { readonly stream: () => Socket; readonly mostAtOnce: () => number } {
  let open = 0
  let most = 0
  return {
    stream() {
      const socket = new Socket()
      open += 1
      most = Math.max(most, open)
      socket.once('close', () => (open -= 1))
      return socket
    },
    mostAtOnce: () => most,
  }
}

test('all that a bus may have is shared out, and every part gets one', () => {
  expect(shareConnections(undefined, false)).toEqual({ bus: 10, handlers: 0 })
  expect(shareConnections(undefined, true)).toEqual({ bus: 10, handlers: 10 })
  expect(shareConnections(1, false)).toEqual({ bus: 1, handlers: 0 })
  for (let max = 2; max <= 200; max += 1) {
    const { bus, handlers } = shareConnections(max, false)
    expect({ sum: bus + handlers + 1, handlers }).toEqual({ sum: max, handlers: 0 })
  }
  for (let max = 3; max <= 200; max += 1) {
    const { bus, handlers } = shareConnections(max, true)
    expect(bus + handlers + 1).toBe(max)
    expect(handlers).toBeGreaterThan(0)
    expect(bus - handlers).toBeGreaterThanOrEqual(0)
    expect(bus - handlers).toBeLessThanOrEqual(1)
  }
})

test.each([3, 4, 10])(
  'with `max: %i` a bus with 30 exactly-once subscriptions has no more, and delivers all, whatever its handlers ask of it',
  async (max) => {
    const database = await createTestDatabase()
    await database.rows('create table made (subscription int, payload text)')
    const { stream, mostAtOnce } = countingStream()
    const bus = testBus({ connectionString: database.url, max, stream })
    let orderedCount = 0
    let plainCount = 0
    for (let n = 0; n < 30; n += 1)
      bus.subscribe({
        name: `once-${n}`,
        events: ['note'],
        mode: 'exactly-once',
        batchSize: 1,
        handler: async (event, { tx }) => {
          await tx.execute(sql`insert into made values (${n}, ${String(event.payload)})`)
          // With a connection of the handlers' in hand it wants another one of the bus's.
          if (n % 10 === 0)
            await bus.tryPublish({ type: 'payment.refunded', tenantId: 'a', payload: { paymentId: 'p' } })
        },
      })
    bus.subscribe({
      name: 'ordered',
      events: ['note'],
      ordered: true,
      handler: () => void (orderedCount += 1),
    })
    bus.subscribe({ name: 'plain', events: ['payment.refunded'], handler: () => void (plainCount += 1) })
    // What was open before the start counts, too.
    await Promise.all([0, 1, 2, 3, 4].map(async () => bus.health()))
    await bus.start()
    for (let n = 0; n < 6; n += 1) await bus.tryPublish({ ...note(n), orderingKey: 'k' })
    await until(
      'all are delivered',
      async () =>
        orderedCount === 6 &&
        plainCount === 18 &&
        (await database.count('select count(*) from bus.deliveries')) === 30 * 6 + 6 + 18,
    )
    expect(await database.rows('select distinct subscription, payload from made')).toHaveLength(180)
    expect(await database.count('select count(*) from made')).toBe(180)
    expect(await bus.health()).toMatchObject({ ok: true, listening: true })
    await bus.stop()
    expect(mostAtOnce()).toBeLessThanOrEqual(max)
    expect(mostAtOnce()).toBeGreaterThanOrEqual(3)
  },
)

test('a bus with a single connection for all but its bell delivers to subscriptions that others declare later', async () => {
  const database = await createTestDatabase()
  const logger = recordingLogger()
  const first = testBus({ connectionString: database.url, max: 2, connectionTimeoutMillis: 1000 }, { logger })
  const got: unknown[] = []
  first.subscribe({ name: 'first', events: ['note'], handler: ({ payload }) => void got.push(payload) })
  await first.start()
  const second = testBus(database.url, { source: 'other-service' })
  second.subscribe({ name: 'second', events: ['note'], handler: ({ payload }) => void got.push(payload) })
  await second.start()
  await first.tryPublish(note('x'))
  await until('both have it', () => got.length === 2)
  expect(got).toEqual(['x', 'x'])
})

test('a bus that may have too few connections to run says so at its start, and publishes all the same', async () => {
  const database = await createTestDatabase()
  const alone = testBus({ connectionString: database.url, max: 1 })
  expect(await alone.tryPublish(note('x'))).toMatchObject({ duplicate: false })
  await expect(alone.start()).rejects.toMatchObject({
    code: 'BUS_INVALID_OPTION',
    message: expect.stringContaining('`max` is at least 2 for a bus that starts, got 1') as string,
  })
  const two = testBus(() => ({ connectionString: database.url, max: 2 }))
  two.subscribe({ name: 'once', events: ['note'], mode: 'exactly-once', handler: () => {} })
  await expect(two.start()).rejects.toMatchObject({
    code: 'BUS_INVALID_OPTION',
    message: expect.stringContaining('`max` is at least 3') as string,
  })
  expect(await database.count('select count(*) from bus.subscriptions')).toBe(0)
})
