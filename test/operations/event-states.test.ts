import { expect, test } from 'vitest'
import { limits } from '../../src/index.ts'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { publish } from '../support/ledger.ts'
import { createLogin } from '../support/roles.ts'

const note = { type: 'note', tenantId: 'acme' } as const
const once = { maxAttempts: 1, delaySeconds: 0, backoff: false } as const

test('the states of many events are those that bus.deliveries says of each, in every state', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const gate = Promise.withResolvers<void>()
  const failing = (payload: unknown, on: string): void => {
    if (payload === on) throw new Error(on)
  }
  bus.subscribe({
    ...{ name: 'one-by-one', events: ['note'], retry: once, circuitBreaker: false, batchSize: 1 },
    handler: async ({ payload }) => {
      failing(payload, 'dead')
      failing(payload, 'discard')
      if (payload === 'deliver') await gate.promise
    },
  })
  bus.subscribe({
    ...{ name: 'patient', events: ['**'], retry: { maxAttempts: 2, delaySeconds: 3600, backoff: false } },
    handler: ({ payload }) => failing(payload, 'retry'),
  })
  bus.subscribe({
    ...{ name: 'blocking', events: ['note'], ordered: true, retry: once, circuitBreaker: false },
    handler: ({ payload }) => failing(payload, 'first'),
  })
  bus.subscribe({
    ...{ name: 'parking', events: ['note'], ordered: true, onKeyFailure: 'park', retry: once },
    ...{ circuitBreaker: false, handler: ({ payload }) => failing(payload, 'first') },
  })
  bus.subscribe({ name: 'paused', events: ['note'], handler: () => {} })
  bus.subscribe({ name: 'payments', events: ['payment.*'], handler: () => {} })
  await bus.start()
  await bus.subscriptions.pause('paused')
  const ids = await publish(
    database,
    bus,
    ...['plain', 'dead', 'discard', 'deliver', 'retry'].map((payload) => ({ ...note, payload })),
    { ...note, payload: 'first', orderingKey: 'k' },
    { ...note, payload: 'second', orderingKey: 'k' },
    { ...note, payload: 'third', orderingKey: 'other' },
    { ...note, payload: 'later', availableIn: { seconds: 3600 } },
    { type: 'payment.refunded', tenantId: 'rival', payload: { paymentId: 'p' } },
  )
  await until('the dead ones are', async () => (await bus.deadLetters.list()).length === 5)
  const { id: discard } = await bus.deadLetters.discard(
    { subscription: 'one-by-one', ids: [ids[2] ?? ''] },
    { by: 'ana', reason: 'a test' },
  )
  await until('it is discarded', async () => (await bus.operations.get(discard)).state === 'done')
  const deliveries = async (): Promise<string[]> => {
    const each = await Promise.all(
      ids.map(async (id) =>
        (await bus.deliveries(id)).map(({ subscription, state }) => `${id} ${subscription} ${state}`),
      ),
    )
    return each.flat().toSorted()
  }
  const states = async (): Promise<string[]> =>
    (await bus.events.states(ids)).map(({ id, subscription, state }) => `${id} ${subscription} ${state}`)
  await until('nothing changes', async () => {
    const now = await deliveries()
    return (
      ['retrying', 'delivering', 'discarded'].every((state) =>
        now.some((line) => line.endsWith(` ${state}`)),
      ) && now.filter((line) => line.endsWith('delivered')).length >= 14
    )
  })
  const known = await deliveries()
  expect((await states()).toSorted()).toEqual(known)
  expect(new Set(known.map((line) => line.split(' ').at(-1)))).toEqual(
    new Set(['delivered', 'dead', 'discarded', 'delivering', 'retrying', 'waiting']),
  )
  // In the scope of a tenant, its own alone.
  const rivals = await bus.tenant('rival').events.states(ids)
  expect(rivals.map(({ subscription, state }) => [subscription, state])).toEqual([
    ['patient', 'delivered'],
    ['payments', 'delivered'],
  ])
  expect(await bus.tenant('acme').events.states([ids.at(-1) ?? ''])).toEqual([])
  const operator = testBus((await createLogin(database, ['bus_operator'])).url)
  expect(await operator.events.states(ids)).toEqual(await bus.events.states(ids))
  gate.resolve()
})

test('expired and erased events say so', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({ name: 'paused', events: ['note'], handler: () => {} })
  await bus.start()
  await bus.subscriptions.pause('paused')
  const ids = await publish(
    database,
    bus,
    { ...note, payload: 1, expiresAt: new Date(Date.now() + 200) },
    { ...note, payload: 2, subject: 'customer' },
  )
  await until('they wait', async () => (await bus.subscriptions.get('paused')).waitingCount === 2)
  await bus.erase({ tenantId: 'acme', subject: 'customer', by: 'ana' })
  await bus.subscriptions.resume('paused')
  await until('both are settled', async () =>
    (await bus.events.states(ids)).every(({ state }) => state !== 'waiting' && state !== 'delivering'),
  )
  expect((await bus.events.states(ids)).map(({ state }) => state)).toEqual(['expired', 'erased'])
})

test.each([
  [[]],
  ['0195c2f4-7a3e-7c11-8f00-1d2e3f4a5b6c'],
  [['x']],
  [[null]],
  [Array.from({ length: limits.stateIdCount + 1 }, () => crypto.randomUUID())],
])('ids that are none are refused: %o', async (ids) => {
  const bus = testBus('postgres://127.0.0.1:1/nowhere')
  await expect(bus.events.states(ids as never)).rejects.toMatchObject({
    code: 'BUS_INVALID_OPTION',
    option: 'ids',
  })
})
