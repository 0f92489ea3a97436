import { expect, test } from 'vitest'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'

test('a pause and a resumption are recorded with who and why; what changes nothing is not', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({ name: 'quick', events: ['note'], handler: () => {} })
  await bus.start()
  expect(await bus.subscriptions.pause('quick', { by: 'ana', reason: 'an incident' })).toBe(true)
  expect(await bus.subscriptions.pause('quick', { by: 'ben' })).toBe(false)
  expect(await bus.subscriptions.resume('quick')).toBe(true)
  expect(await bus.subscriptions.resume('quick')).toBe(false)
  await expect(bus.subscriptions.pause('another')).rejects.toMatchObject({
    code: 'BUS_SUBSCRIPTION_NOT_FOUND',
  })
  expect(await bus.audit.list({ subscription: 'quick' })).toMatchObject([
    { action: 'subscriptions.resume', by: 'payment-service', reason: undefined, change: { wasPaused: true } },
    { action: 'subscriptions.pause', by: 'ana', reason: 'an incident' },
  ])
  expect(await bus.audit.list()).toHaveLength(2)
})

test('two pauses at once: one pauses, and one is recorded', async () => {
  const database = await createTestDatabase()
  const buses = [testBus(database.url), testBus(database.url)]
  const [first] = buses
  first?.subscribe({ name: 'quick', events: ['note'], handler: () => {} })
  await first?.start()
  const paused = await Promise.all(buses.map(async (bus) => bus.subscriptions.pause('quick', { by: 'ana' })))
  expect(paused.filter((did) => did)).toHaveLength(1)
  expect(await first?.audit.list()).toHaveLength(1)
})

test('the circuit breaker, which is no person, records nothing', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({
    name: 'down',
    events: ['note'],
    circuitBreaker: { windowSize: 5, failureRatio: 0.5 },
    retry: { delaySeconds: 0, backoff: false },
    handler: () => {
      throw new Error('down')
    },
  })
  await bus.start()
  for (let i = 0; i < 6; i += 1) await bus.tryPublish({ type: 'note', tenantId: 'acme', payload: i })
  await until('it is open', async () => (await bus.subscriptions.get('down')).state === 'circuit open')
  expect(await bus.audit.list()).toEqual([])
  expect(await bus.subscriptions.resume('down', { by: 'ana' })).toBe(true)
  expect(await bus.audit.list()).toMatchObject([{ change: { wasPaused: false, wasCircuitOpen: true } }])
})

test('a release of a key is recorded with its event, who and why', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  let isDown = true
  bus.subscribe({
    name: 'in-order',
    events: ['note'],
    ordered: true,
    retry: { maxAttempts: 1 },
    handler: () => {
      if (isDown) throw new Error('down')
    },
  })
  await bus.start()
  await bus.tryPublish({ type: 'note', tenantId: 'acme', payload: 1, orderingKey: 'k' })
  await until('its key is blocked', async () => (await bus.blockedKeys.list()).length === 1)
  const [key] = await bus.blockedKeys.list()
  isDown = false
  const named = { subscription: 'in-order', tenantId: 'acme', orderingKey: 'k' }
  expect(await bus.blockedKeys.release({ ...named, by: 'ana', reason: 'mended' })).toBe(true)
  expect(await bus.blockedKeys.release(named)).toBe(false)
  expect(await bus.audit.list()).toMatchObject([
    {
      ...{
        action: 'blockedKeys.release',
        by: 'ana',
        reason: 'mended',
        subscription: 'in-order',
        tenantId: 'acme',
      },
      ...{ eventId: key?.id, selection: { orderingKey: 'k' }, change: { skipFailed: false } },
    },
  ])
  await expect(bus.blockedKeys.release({ ...named, by: '' })).rejects.toMatchObject({
    code: 'BUS_INVALID_OPTION',
  })
})

test('an erasure is recorded before it, with what came of it, and without the subject', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  await bus.tryPublish({ type: 'note', tenantId: 'acme', payload: 1, subject: 'customer-9' })
  const erasing = bus.erase({ tenantId: 'acme', subject: 'customer-9', by: 'ana', reason: 'asked for it' })
  await until('it is under way', async () => (await bus.audit.list()).length === 1)
  expect(await bus.audit.list()).toMatchObject([
    { action: 'erase', by: 'ana', outcome: undefined, finishedAt: undefined },
  ])
  const { id } = await erasing
  const [record] = await bus.audit.list()
  expect(record).toMatchObject({
    ...{ tenantId: 'acme', reason: 'asked for it', selection: { erasureId: id } },
    outcome: { eventCount: 1, failureCount: 0 },
  })
  expect(JSON.stringify(record)).not.toContain('customer-9')
})
