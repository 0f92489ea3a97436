import { expect, inject, onTestFinished, test } from 'vitest'
import { NonRetryableError } from '../../src/index.ts'
import { createTestBus, type TestBus, type TestBusOptions } from '../../src/testing/index.ts'
import { paymentEvents } from '../support/catalogue.ts'

type Options = Partial<TestBusOptions<typeof paymentEvents>>

async function openBus(options: Options = {}): Promise<TestBus<typeof paymentEvents>> {
  const bus = await createTestBus({ database: inject('serverUrl'), events: paymentEvents, ...options })
  onTestFinished(bus.dispose)
  return bus
}

const note = (payload: unknown) => ({ type: 'note', tenantId: 'a', payload }) as const

test('a test bus has a database of its own, which is gone when it is disposed of', async () => {
  const [bus, other] = await Promise.all([openBus(), openBus()])
  await bus.tryPublish(note(1))
  expect(await bus.published()).toMatchObject([{ type: 'note', payload: 1, source: 'test' }])
  expect(await other.published()).toEqual([])
  const name = new URL(bus.url).pathname.slice(1)
  const there = async (): Promise<number> =>
    (await other.query('select from pg_database where datname = $1', [name])).length
  expect(await there()).toBe(1)
  await Promise.all([bus.dispose(), bus.dispose(), bus[Symbol.asyncDispose]()])
  expect(await there()).toBe(0)
  expect(bus.state).toBe('stopped')
})

test('a bus that is not isolated leaves its database behind', async () => {
  const first = await openBus()
  const second = await createTestBus({ database: first.url, events: paymentEvents, isolated: false })
  await second.tryPublish(note(1))
  await second.dispose()
  expect(await first.published()).toHaveLength(1)
})

test('drain resolves when what was published, and what handlers publish, is handled, retries included', async () => {
  const bus = await openBus({ retryDelays: 'skipped' })
  const seen: unknown[] = []
  bus.subscribe({
    name: 'first',
    events: ['note'],
    retry: { delaySeconds: 100 },
    handler: async ({ tenantId, payload }, { attempt, publish }) => {
      if (attempt < 3) throw new Error('twice')
      await publish({ type: 'payment.refunded', tenantId, payload: { paymentId: String(payload) } })
    },
  })
  bus.subscribe({
    name: 'second',
    events: ['payment.refunded'],
    handler: ({ payload }) => void seen.push(payload.paymentId),
  })
  await bus.start()
  for (const payload of [1, 2, 3]) await bus.tryPublish(note(payload))
  await bus.tryPublish({ ...note('later'), availableAt: new Date(Date.now() + 60_000) })
  await bus.drain()
  expect(new Set(seen)).toEqual(new Set(['1', '2', '3']))
  expect(seen).toHaveLength(3)
  expect(await bus.published({ type: 'payment.refunded', payload: { paymentId: '2' } })).toHaveLength(1)
})

test('drain that takes too long says what is waiting, for what, and what helps', async () => {
  const bus = await openBus()
  bus.subscribe({
    name: 'failing',
    events: ['note'],
    retry: { delaySeconds: 100 },
    handler: () => {
      throw new Error('no such account')
    },
  })
  await expect(bus.tryPublish(note(1)).then(async () => bus.drain({ timeoutMs: 50 }))).rejects.toThrow(
    /1 still waiting:\nnote .*: published, not dispatched yet\nThe bus is created: only a started bus delivers events/,
  )
  await bus.start()
  await bus.waitFor({ type: 'note' }, 'retrying')
  await expect(bus.drain({ timeoutMs: 50 })).rejects.toThrow(
    /note .*: `failing`: retrying, after 1 attempt, next in \d+\.\d s, last: no such account\nWith retryDelays: 'skipped'/,
  )
})

test('waitFor resolves to the event that has come to something, also when it had before', async () => {
  const bus = await openBus({ retryDelays: 'skipped' })
  bus.subscribe({ name: 'good', events: ['note'], handler: () => {} })
  bus.subscribe({
    name: 'bad',
    events: ['note'],
    retry: { maxAttempts: 5 },
    handler: ({ payload }) => {
      if (payload !== 'good') throw new Error('never')
    },
  })
  await bus.start()
  const good = await bus.tryPublish(note('good'))
  expect(good && (await bus.waitFor(good, 'delivered'))).toMatchObject({ id: good?.id, payload: 'good' })
  const bad = await bus.tryPublish(note({ is: 'bad', really: true }))
  const dead = await bus.waitFor({ type: 'note', payload: { is: 'bad' } }, 'dead')
  expect(dead.id).toBe(bad?.id)
  expect(await bus.deadLetters.list()).toMatchObject([{ attempts: 5, subscription: 'bad' }])
  expect((await bus.waitFor(dead.id, 'dead', { subscription: 'bad' })).id).toBe(dead.id)
  expect((await bus.waitFor(dead.id, 'delivered', { subscription: 'good' })).id).toBe(dead.id)
})

test('waitFor that waits in vain says at once, or when its time is over, what happened instead', async () => {
  const bus = await openBus()
  bus.subscribe({
    name: 'refuses',
    events: ['note'],
    handler: () => {
      throw new NonRetryableError('never')
    },
  })
  bus.subscribe({ name: 'takes', events: ['note'], handler: () => {} })
  await bus.start()
  const published = await bus.tryPublish(note(1))
  const id = published?.id ?? ''
  await expect(bus.waitFor(id, 'delivered', { timeoutMs: 60_000 })).rejects.toThrow(
    /Expected the event .* to be delivered, which is no longer possible/,
  )
  await expect(bus.waitFor(id, 'dead', { subscription: 'takes' })).rejects.toThrow(
    /to be dead by `takes`, which is no longer possible\.\nnote .*: `refuses`: dead, after 1 attempt, last: never\nnote .*: `takes`: delivered, after 1 attempt/,
  )
  await expect(bus.waitFor({ type: 'payment.paid' }, 'delivered', { timeoutMs: 20 })).rejects.toThrow(
    'Expected an event like {"type":"payment.paid"} to be delivered within 20 ms.\nNo such event was published. Published were: 1 note.',
  )
  const unwanted = await bus.tryPublish({
    type: 'payment.refunded',
    tenantId: 'a',
    payload: { paymentId: 'p' },
  })
  await expect(bus.waitFor(unwanted?.id ?? '', 'delivered', { timeoutMs: 200 })).rejects.toThrow(
    'no subscription matches it',
  )
})

test('events that expire, are cancelled or wait behind a blocked key can be waited for', async () => {
  const bus = await openBus()
  bus.subscribe({
    name: 'ordered',
    events: ['note'],
    ordered: true,
    handler: () => {
      throw new NonRetryableError('never')
    },
  })
  bus.subscribe({ name: 'plain', events: ['payment.refunded'], handler: () => {} })
  await bus.start()
  await bus.tryPublish({ ...note('first'), orderingKey: 'k' })
  await bus.tryPublish({ ...note('second'), orderingKey: 'k' })
  await bus.waitFor({ payload: 'first' }, 'dead')
  await bus.waitFor({ payload: 'second' }, 'blocked')
  await bus.drain()
  const refunded = { type: 'payment.refunded', tenantId: 'a', payload: { paymentId: 'p' } } as const
  const past = await bus.tryPublish({ ...refunded, expiresAt: new Date(Date.now() - 1000) })
  await bus.waitFor(past?.id ?? '', 'expired')
  const scheduled = await bus.tryPublish({ ...refunded, availableAt: new Date(Date.now() + 60_000) })
  await bus.cancel(scheduled?.id ?? '')
  expect((await bus.waitFor(scheduled?.id ?? '', 'cancelled')).id).toBe(scheduled?.id)
})

test('options and events that make no sense are refused', async () => {
  const bus = await openBus()
  await expect(createTestBus({ database: 'nowhere', events: paymentEvents })).rejects.toThrow('nowhere')
  await expect(
    createTestBus({ database: bus.url, events: paymentEvents, retryDelay: 1 } as never),
  ).rejects.toThrow('Did you mean')
  await expect(
    createTestBus({ database: bus.url, events: paymentEvents, retryDelays: 'none' as never }),
  ).rejects.toThrow('skipped')
  await expect(bus.waitFor({ typ: 'note' } as never, 'delivered')).rejects.toThrow('typ')
  await expect(bus.waitFor('x', 'done' as never)).rejects.toThrow('outcome')
})

test('a bus that is reset has nothing of before, and goes on', async () => {
  const bus = await openBus({ retryDelays: 'as declared' })
  const seen: unknown[] = []
  const mayEnd = Promise.withResolvers<void>()
  bus.subscribe({
    name: 'plain',
    events: ['note'],
    handler: async ({ payload }) => {
      seen.push(payload)
      if (payload === 'slow') await mayEnd.promise
      if (payload === 'bad') throw new Error('bad')
    },
  })
  bus.subscribe({
    name: 'ordered',
    events: ['note'],
    ordered: true,
    retry: { maxAttempts: 1 },
    handler: ({ payload }) => {
      if (payload === 'bad') throw new NonRetryableError('bad')
    },
  })
  await bus.start()
  await bus.tryPublish({ ...note('bad'), orderingKey: 'k', eventId: 'e1' })
  await bus.tryPublish({ ...note('behind'), orderingKey: 'k' })
  await bus.tryPublish({ ...note('later'), availableIn: { seconds: 3600 } })
  await bus.tryPublish(note('slow'))
  await bus.waitFor({ payload: 'behind' }, 'blocked')
  await bus.subscriptions.pause('ordered', { by: 'ada' })
  expect(seen).toContain('slow')
  await expect(bus.reset({ timeoutMs: 50 })).rejects.toThrow(/still run/)
  mayEnd.resolve()
  await bus.reset()
  expect(await bus.published()).toEqual([])
  expect(await bus.deadLetters.list()).toEqual([])
  expect(await bus.blockedKeys.list()).toEqual([])
  expect((await bus.subscriptions.list()).map(({ state }) => state)).toEqual(['active', 'active'])
  const again = await bus.tryPublish({ ...note('again'), orderingKey: 'k', eventId: 'e1' })
  expect(again).toMatchObject({ duplicate: false })
  await bus.waitFor(again, 'delivered')
  await bus.drain()
  expect(seen.filter((payload) => payload === 'bad')).toHaveLength(1)
})

test('what tryPublish could not publish is said where it is waited for', async () => {
  const bus = await openBus()
  const published = await bus.tryPublish({ type: 'note', payload: 1 } as never)
  await expect(bus.waitFor(published, 'delivered')).rejects.toThrow(/got undefined: tryPublish/)
})

test('a bus without a database finds a server, one for the process', async () => {
  const [one, other] = await Promise.all([
    createTestBus({ events: paymentEvents }),
    createTestBus({ events: paymentEvents }),
  ])
  onTestFinished(async () => {
    await one.dispose()
    await other.dispose()
  })
  expect(new URL(one.url).host).toBe(new URL(other.url).host)
  expect(one.url).not.toBe(other.url)
  expect(await one.tryPublish(note(1))).toMatchObject({ duplicate: false })
  await expect(createTestBus({ events: paymentEvents, isolated: false })).rejects.toMatchObject({
    code: 'BUS_INVALID_OPTION',
    option: 'database',
  })
})
