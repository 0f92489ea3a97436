import { expect, test } from 'vitest'
import { durationBuckets, instruments } from '../../src/telemetry/instruments.ts'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { registerSdk, type Measured, type RecordedTelemetry } from '../support/open-telemetry.ts'

const note = (payload: unknown = 'x') => ({ type: 'note', tenantId: 'acme', payload }) as const
const refunded = { type: 'payment.refunded', tenantId: 'acme', payload: { paymentId: '42' } } as const

const system = { 'messaging.system': 'bossbus' }
const publishing = { ...system, 'messaging.operation.name': 'publish' }
const processing = {
  ...system,
  'messaging.operation.name': 'process',
  'messaging.destination.name': 'note',
  'messaging.destination.subscription.name': 'one',
}
const ofOne = { ...system, 'messaging.destination.subscription.name': 'one' }

async function countsOf(
  sdk: RecordedTelemetry,
  instrument: string,
): Promise<Pick<Measured, 'attributes' | 'count'>[]> {
  const all = await sdk.measured(instrument)
  return all.map(({ attributes, count }) => ({ attributes, count }))
}

test('what is published, handled, retried and given up is counted and measured', async () => {
  const sdk = registerSdk()
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({
    ...{ name: 'one', events: ['note'], retry: { maxAttempts: 2, delaySeconds: 0, backoff: false } },
    handler: async ({ payload }, { attempt }) => {
      await new Promise((resolve) => setTimeout(resolve, 20))
      if (payload === 'later' && attempt === 1) throw new RangeError('not yet')
      if (payload === 'never') throw new TypeError('never')
    },
  })
  await bus.start()
  await database.db.transaction(async (tx) => {
    await bus.publish(tx, note())
    await bus.publishMany(tx, [note('later'), note('never'), refunded])
  })
  await bus.tryPublish({ ...note(), expiresAt: new Date(Date.now() - 1000) })
  await bus.tryPublish({ type: 'note', tenantId: '', payload: 1 })
  await until('all are over', async () => {
    const [dead, delivered, expired] = await Promise.all(
      ['bossbus.dead', 'bossbus.delivered', 'bossbus.expired'].map(async (name) => sdk.measured(name)),
    )
    return dead?.[0]?.count === 1 && delivered?.[0]?.count === 2 && expired?.[0]?.count === 1
  })

  expect(await countsOf(sdk, 'messaging.client.sent.messages')).toEqual([
    { attributes: { ...publishing, 'messaging.destination.name': 'note' }, count: 4 },
    { attributes: { ...publishing, 'messaging.destination.name': 'payment.refunded' }, count: 1 },
  ])
  expect(await countsOf(sdk, 'messaging.client.consumed.messages')).toEqual(
    [
      { attributes: processing, count: 2 },
      { attributes: { ...processing, 'error.type': 'RangeError' }, count: 1 },
      { attributes: { ...processing, 'error.type': 'TypeError' }, count: 2 },
    ].toSorted(byError),
  )
  const process = { ...processing, 'messaging.operation.type': 'process' }
  const processed = await sdk.measured('messaging.process.duration')
  expect(processed.map(({ attributes, count }) => ({ attributes, count })).toSorted(byError)).toEqual([
    { attributes: process, count: 2 },
    { attributes: { ...process, 'error.type': 'RangeError' }, count: 1 },
    { attributes: { ...process, 'error.type': 'TypeError' }, count: 2 },
  ])
  // In seconds: five calls of twenty milliseconds each, and not of twenty seconds.
  const sum = processed.reduce((all, each) => all + each.sum, 0)
  expect(sum).toBeGreaterThan(0.09)
  expect(sum).toBeLessThan(10)
  const send = { ...publishing, 'messaging.operation.type': 'send' }
  const operations = await countsOf(sdk, 'messaging.client.operation.duration')
  const sends = operations.filter(({ attributes }) => attributes['messaging.operation.name'] === 'publish')
  expect(sends.toSorted(byError)).toEqual([
    { attributes: { ...send, 'messaging.destination.name': 'note' }, count: 2 },
    { attributes: send, count: 1 },
    {
      attributes: { ...send, 'messaging.destination.name': 'note', 'error.type': 'BUS_TENANT_REQUIRED' },
      count: 1,
    },
  ])
  const settles = operations.filter(({ attributes }) => attributes['messaging.operation.name'] === 'settle')
  expect(settles).toMatchObject([
    {
      attributes: {
        ...ofOne,
        'messaging.operation.name': 'settle',
        'messaging.operation.type': 'settle',
      },
    },
  ])
  // The first attempts at three events.
  expect(await countsOf(sdk, 'bossbus.commit_to_handler.duration')).toEqual([
    { attributes: { ...ofOne, 'messaging.destination.name': 'note' }, count: 3 },
  ])
  expect(await countsOf(sdk, 'bossbus.delivered')).toEqual([{ attributes: ofOne, count: 2 }])
  expect((await countsOf(sdk, 'bossbus.attempts.failed')).toSorted(byError)).toEqual([
    { attributes: { ...ofOne, 'error.type': 'RangeError' }, count: 1 },
    { attributes: { ...ofOne, 'error.type': 'TypeError' }, count: 2 },
  ])
  expect(await countsOf(sdk, 'bossbus.dead')).toEqual([{ attributes: ofOne, count: 1 }])
  expect(await countsOf(sdk, 'bossbus.expired')).toEqual([{ attributes: ofOne, count: 1 }])

  // As the table of instruments says.
  for (const { name, unit, buckets } of await sdk.instruments()) {
    const known = Object.values(instruments).find((each) => each.name === name)
    expect({ name, unit }).toEqual({ name: known?.name, unit: known?.unit })
    expect(buckets).toEqual(known?.kind === 'histogram' ? durationBuckets : undefined)
    expect(name.endsWith('.duration')).toBe(known?.kind === 'histogram')
  }
})

function byError(a: Pick<Measured, 'attributes'>, b: Pick<Measured, 'attributes'>): number {
  const type = ({ attributes }: Pick<Measured, 'attributes'>): string =>
    JSON.stringify(attributes['error.type']) ?? ''
  return type(a) < type(b) ? -1 : type(a) > type(b) ? 1 : 0
}

test('the buckets are those of the messaging conventions', () => {
  expect(durationBuckets).toEqual([0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10])
})

test('what catches up and what is replayed does not count as waiting', async () => {
  const sdk = registerSdk()
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({ name: 'other', events: ['payment.refunded'], handler: () => {} })
  await bus.start()
  await bus.tryPublish(note())
  await until(
    'the event is dispatched',
    async () => (await database.count('select count(*) from bus.outbox')) === 0,
  )
  await bus.subscribe({ name: 'late', events: ['note'], startFrom: 'beginning', handler: () => {} }).ready()
  await until('it has caught up', async () => (await sdk.measured('bossbus.delivered'))[0]?.count === 1)
  expect(await sdk.measured('bossbus.commit_to_handler.duration')).toEqual([])
  await bus.replay({ type: 'note', subscriptions: ['late'], by: 'a test' })
  await until('it is replayed', async () => (await sdk.measured('bossbus.delivered'))[0]?.count === 2)
  expect(await sdk.measured('bossbus.commit_to_handler.duration')).toEqual([])
  await bus.tryPublish(note())
  await until('it is delivered', async () => (await sdk.measured('bossbus.delivered'))[0]?.count === 3)
  expect(await countsOf(sdk, 'bossbus.commit_to_handler.duration')).toMatchObject([{ count: 1 }])
})
