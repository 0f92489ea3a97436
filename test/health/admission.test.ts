import { expect, test } from 'vitest'
import { BusError, OverloadError, type AdmissionOption } from '../../src/index.ts'
import { recordingLogger, testBus, type PaymentBus } from '../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { note } from '../support/health.ts'

/** Publishes some events that no relay dispatches, and a bus with limits that has measured them. */
async function overload(
  database: TestDatabase,
  admission: AdmissionOption,
  count: number,
): Promise<{ bus: PaymentBus; logger: ReturnType<typeof recordingLogger> }> {
  const filler = testBus(database.url)
  await database.db.transaction(async (tx) =>
    filler.publishMany(
      tx,
      Array.from({ length: count }, () => note),
    ),
  )
  const logger = recordingLogger()
  const bus = testBus(database.url, { admission, logger })
  return { bus, logger }
}

const waiting = 'select count(*) from bus.outbox'

test('publish and tryPublish refuse events while the outbox is deeper than allowed, and publish again afterwards', async () => {
  const database = await createTestDatabase()
  const { bus, logger } = await overload(database, { maxOutboxDepth: 5 }, 6)
  let refusal: unknown
  // The first calls find no measurement yet.
  await until('it refuses', async () => {
    refusal = await bus.admit().then(
      () => undefined,
      (error: unknown) => error,
    )
    return refusal !== undefined
  })
  expect(refusal).toBeInstanceOf(OverloadError)
  expect(refusal).toBeInstanceOf(BusError)
  expect(refusal).toMatchObject({ code: 'BUS_OVERLOADED', retryable: true, statusCode: 503 })
  const before = await database.count(waiting)
  await expect(database.db.transaction(async (tx) => bus.publish(tx, note))).rejects.toMatchObject({
    code: 'BUS_OVERLOADED',
  })
  await expect(database.db.transaction(async (tx) => bus.publishMany(tx, [note]))).rejects.toMatchObject({
    code: 'BUS_OVERLOADED',
  })
  expect(await bus.tryPublish(note)).toBeUndefined()
  expect((await bus.health()).failedTryPublishCount).toBe(1)
  expect(await database.count(waiting)).toBe(before)
  expect(
    logger.lines.filter(({ message }) => message === 'more events wait than `admission` allows'),
  ).toHaveLength(1)
  await database.rows('delete from bus.outbox where position in (select position from bus.outbox limit 1)')
  await until('it publishes', async () => (await bus.tryPublish(note)) !== undefined)
  expect(await database.count(waiting)).toBe(before)
})

test('scheduled events do not count before they are due', async () => {
  const database = await createTestDatabase()
  const { bus } = await overload(database, { maxOutboxDepth: 2 }, 2)
  await database.db.transaction(async (tx) =>
    testBus(database.url).publishMany(
      tx,
      Array.from({ length: 10 }, () => ({ ...note, availableAt: new Date(Date.now() + 3_600_000) })),
    ),
  )
  const since = performance.now()
  await until('it was measured twice', async () => {
    await bus.admit()
    return performance.now() - since > 2200
  })
  await expect(bus.admit()).resolves.toBeUndefined()
  // Its positive twin: one more that is due.
  await database.db.transaction(async (tx) => testBus(database.url).publish(tx, note))
  await until('it refuses', async () =>
    bus.admit().then(
      () => false,
      () => true,
    ),
  )
})

test('publishing is refused while a subscription is behind, but not because of one that is paused', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url, { admission: { maxLagSeconds: 1 } })
  let open: () => void = () => {}
  const gate = new Promise<void>((resolve) => (open = resolve))
  bus.subscribe({ name: 'slow', events: ['note'], concurrency: 1, batchSize: 1, handler: async () => gate })
  await bus.start()
  for (let n = 0; n < 8; n += 1) await bus.tryPublish(note)
  const refused = async (): Promise<string | undefined> =>
    bus.admit().then(
      () => undefined,
      (error: unknown) => (error as Error).message,
    )
  await until('it refuses', async () => (await refused())?.includes('`slow` is') === true)
  await bus.subscriptions.pause('slow')
  await until('it admits', async () => (await refused()) === undefined)
  await bus.subscriptions.resume('slow')
  await until('it refuses again', async () => (await refused()) !== undefined)
  open()
  await until('it has caught up', async () => (await refused()) === undefined)
  expect(await bus.tryPublish(note)).toBeDefined()
})

test('with `delay` publishing waits, in an open transaction only briefly, and goes on at once when the load is gone', async () => {
  const database = await createTestDatabase()
  const delay = { maxOutboxDepth: 5, action: 'delay' } as const
  const { bus } = await overload(database, { ...delay, maxDelayMs: 500 }, 6)
  const time = async (work: () => Promise<unknown>): Promise<number> => {
    const since = performance.now()
    await work()
    return performance.now() - since
  }
  await until('it delays', async () => (await time(async () => bus.admit())) >= 490)
  expect(await bus.tryPublish(note)).toBeDefined()
  // A transaction that is open is not held for as long, and publishes.
  const patient = testBus(database.url, { admission: { ...delay, maxDelayMs: 60_000 } })
  const publishHeld = async (): Promise<number> =>
    database.db.transaction(async (tx) => time(async () => patient.publish(tx, note)))
  let held = 0
  await until('it is held', async () => {
    held = await publishHeld()
    return held >= 90
  })
  expect(held).toBeLessThan(30_000)
  const delayed = time(async () => patient.tryPublish(note))
  await database.rows('delete from bus.outbox')
  // The next sample shows it: they are a second apart, and further on a slow machine.
  expect(await delayed).toBeLessThan(30_000)
  expect(await database.count(waiting)).toBe(1)
})

test('handlers publish whatever waits, because they work the backlog off', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url, { admission: { maxLagSeconds: 1 } })
  const refused = async (): Promise<boolean> =>
    bus.admit().then(
      () => false,
      () => true,
    )
  const published: (string | undefined)[] = []
  bus.subscribe({
    ...{ name: 'chain', events: ['note'], concurrency: 1, batchSize: 1 },
    handler: async ({ payload }, ctx) => {
      if (payload !== 'x' || published.length > 0) return
      await until('publishers are refused', refused)
      const event = { type: 'note', payload: 'from a handler' } as const
      published.push((await ctx.publish(event)).id, (await ctx.tryPublish(event))?.id)
    },
  })
  await bus.start()
  for (let n = 0; n < 8; n += 1) await bus.tryPublish(note)
  await until('both are published', () => published.length === 2)
  expect(published.every((id) => id !== undefined)).toBe(true)
})

test.each([
  [{}, '`maxOutboxDepth`, `maxLagSeconds` or both'],
  [{ maxOutboxDepth: 0 }, '`admission.maxOutboxDepth`'],
  [{ maxLagSeconds: 1.5 }, '`admission.maxLagSeconds`'],
  [{ maxOutboxDepth: 1, action: 'drop' }, '`admission.action`'],
  [{ maxOutboxDepth: 1, maxDelayMs: 5 }, "`action: 'delay'`"],
  [{ maxOutboxDepht: 1 }, 'Did you mean `maxOutboxDepth`'],
])('%j is refused', async (admission, message) => {
  expect(() => testBus('postgres://nowhere', { admission: admission as AdmissionOption })).toThrow(message)
})
