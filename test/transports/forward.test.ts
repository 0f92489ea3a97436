import { setImmediate as nextTurn } from 'node:timers/promises'
import { expect, test } from 'vitest'
import type { StoredEvent } from '../../src/index.ts'
import {
  fanOut,
  noop,
  transportFromUrl,
  type PublishResult,
  type Transport,
} from '../../src/transports/index.ts'
import { recordingLogger, testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'

const nowhere = 'postgres://nobody@127.0.0.1:1/none'

interface Recording extends Transport {
  readonly calls: (readonly StoredEvent[])[]
  readonly log: string[]
}

/** A transport that remembers what it was asked to do. */
function recording(
  answer: (event: StoredEvent) => PublishResult | Promise<PublishResult> = () => ({ status: 'delivered' }),
  fields: Partial<Transport> = {},
): Recording {
  const calls: (readonly StoredEvent[])[] = []
  const log: string[] = []
  return {
    name: 'recording',
    order: 'none',
    maxEvents: 50,
    calls,
    log,
    async open() {
      log.push('open')
    },
    async publish(events) {
      calls.push(events)
      return Promise.all(events.map(async (event) => answer(event)))
    },
    async check() {},
    async close() {
      log.push('close')
    },
    ...fields,
  }
}

const note = (n: number, fields: object = {}) =>
  ({ type: 'note', tenantId: 'acme', payload: n, ...fields }) as const

test('each event is sent once and has its receipt; the transport is opened and closed with the bus', async () => {
  const { url, db, rows } = await createTestDatabase()
  const transport = recording()
  const bus = testBus(url)
  bus.forward({ name: 'out', events: ['note'], to: transport })
  expect(transport.log).toEqual([])
  await bus.start()
  expect(transport.log).toEqual(['open'])
  await db.transaction(async (tx) =>
    bus.publishMany(
      tx,
      Array.from({ length: 120 }, (_, n) => note(n)),
    ),
  )
  await until('all have receipts', async () => {
    const [row] = await rows('select count(*)::int as count from bus.deliveries')
    return row?.['count'] === 120
  })
  const sent = transport.calls.flat().map(({ payload }) => Number(payload))
  expect(sent.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 120 }, (_, n) => n))
  // Events of one commit share calls.
  expect(transport.calls.length).toBeLessThan(40)
  expect(Math.max(...transport.calls.map((events) => events.length))).toBeLessThanOrEqual(50)
  await bus.stop()
  expect(transport.log).toEqual(['open', 'close'])
})

test('what a result means: a retry, a pause, a dead letter', async () => {
  const { url, db, rows } = await createTestDatabase()
  const seen = new Map<number, number>()
  const transport = recording(({ payload }) => {
    const n = Number(payload)
    const count = (seen.get(n) ?? 0) + 1
    seen.set(n, count)
    if (n === 1 && count === 1) return { status: 'retry', error: new Error('quorum is missing') }
    if (n === 2 && count === 1) return { status: 'throttled', seconds: 1, error: new Error('slow down') }
    if (n === 3) return { status: 'rejected', error: new Error('no such topic') }
    return { status: 'delivered' }
  })
  const bus = testBus(url)
  bus.forward({ name: 'out', events: ['note'], to: transport, retry: { delaySeconds: 1, backoff: false } })
  await bus.start()
  await db.transaction(async (tx) => bus.publishMany(tx, [note(0), note(1), note(2), note(3)]))
  await until('three have receipts and one is dead', async () => {
    const [row] = await rows(
      `select (select count(*) from bus.deliveries)::int as receipts, (select count(*) from bus.failing where state = 'dead')::int as dead`,
    )
    return row?.['receipts'] === 3 && row['dead'] === 1
  })
  expect([...seen].toSorted(([a], [b]) => a - b)).toEqual([
    [0, 1],
    [1, 2],
    [2, 2],
    [3, 1],
  ])
  const attempts = await rows(
    'select error_code, error_message from bus.attempts where error_code is not null',
  )
  const failures = attempts.map((each) => `${String(each['error_code'])}: ${String(each['error_message'])}`)
  expect(failures.toSorted()).toEqual([
    'BUS_NON_RETRYABLE: recording rejected the event: no such topic',
    'BUS_RETRY_AFTER: recording asked for a pause: slow down',
    'BUS_TRANSPORT_FAILED: Sending to recording failed: quorum is missing',
  ])
})

test('several targets do not wait for each other', async () => {
  const { url, db } = await createTestDatabase()
  const good = recording(undefined, { name: 'good' })
  const down = recording(() => Promise.reject(new Error('down')), { name: 'down' })
  const bus = testBus(url)
  const handle = bus.forward({ name: 'out', events: ['note'], to: [good, down, good] })
  expect(handle.name).toBe('out')
  await bus.start()
  await handle.ready()
  await db.transaction(async (tx) => bus.publish(tx, note(1)))
  await until('the good ones have it', () => good.calls.flat().length === 2)
  await until('the other one has failed', () => down.calls.flat().length > 0)
  const names = (await bus.subscriptions.list()).map(({ name }) => name)
  expect(names.toSorted()).toEqual(['out.down', 'out.good', 'out.good-2'])
})

test('events of a key keep their order where the transport keeps it', async () => {
  const { url, db } = await createTestDatabase()
  const sent = new Map<string, number[]>()
  const failedOnce = new Set<number>()
  const transport = recording(
    async ({ orderingKey = '', payload }) => {
      const n = Number(payload)
      if (n % 7 === 0 && !failedOnce.has(n)) {
        failedOnce.add(n)
        return { status: 'throttled', seconds: 0, error: new Error('again') }
      }
      sent.set(orderingKey, [...(sent.get(orderingKey) ?? []), n])
      return { status: 'delivered' }
    },
    { order: 'key' },
  )
  const bus = testBus(url)
  bus.forward({ name: 'out', events: ['note'], to: transport })
  await bus.start()
  expect((await bus.subscriptions.list())[0]).toMatchObject({ options: { ordered: true } })
  const events = Array.from({ length: 60 }, (_, n) => note(n, { orderingKey: `key-${n % 3}` }))
  await db.transaction(async (tx) => bus.publishMany(tx, events))
  await until('all are sent', () => [...sent.values()].flat().length === 60)
  for (let key = 0; key < 3; key += 1)
    expect(sent.get(`key-${key}`)).toEqual(Array.from({ length: 20 }, (_, n) => n * 3 + key))
})

test('a transport that cannot be opened keeps the bus from starting', async () => {
  const { url } = await createTestDatabase()
  const bus = testBus(url)
  const transport = recording(undefined, {
    open: () => Promise.reject(new Error('the package is missing')),
  })
  bus.forward({ name: 'out', events: ['note'], to: transport })
  await expect(bus.start()).rejects.toThrow(/the package is missing/)
})

test('a transport that is added to a running bus works; stopping its handle closes it', async () => {
  const { url, db } = await createTestDatabase()
  const transport = recording()
  const bus = testBus(url)
  bus.subscribe({ name: 'other', events: ['note'], handler: () => {} })
  await bus.start()
  const handle = bus.forward({ name: 'out', events: ['note'], to: transport })
  await handle.ready()
  await db.transaction(async (tx) => bus.publish(tx, note(1)))
  await until('it is sent', () => transport.calls.length === 1)
  await handle.stop()
  expect(transport.log).toEqual(['open', 'close'])
})

test('a handler whose time is over leaves, and the call is told when nobody waits', async () => {
  const { url, db } = await createTestDatabase()
  const signals: AbortSignal[] = []
  const transport = recording(undefined, {
    async publish(_, { signal }) {
      signals.push(signal)
      return new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason as Error))
      })
    },
  })
  const bus = testBus(url)
  bus.forward({ name: 'out', events: ['note'], to: transport, timeoutSeconds: 1, retry: { maxAttempts: 1 } })
  await bus.start()
  await db.transaction(async (tx) => bus.publishMany(tx, [note(1), note(2)]))
  await until('the call is told', () => signals.length > 0 && signals.every(({ aborted }) => aborted))
  await until('both are dead', async () => (await bus.deadLetters.list()).length === 2)
  const deadLetters = await bus.deadLetters.list()
  expect(deadLetters.map(({ failures }) => failures.at(-1)?.code)).toEqual([
    'BUS_HANDLER_TIMEOUT',
    'BUS_HANDLER_TIMEOUT',
  ])
})

test('a transport that cannot be closed is logged, and the bus stops', async () => {
  const { url } = await createTestDatabase()
  const logger = recordingLogger()
  const bus = testBus(url, { logger })
  bus.forward({
    name: 'out',
    events: ['note'],
    to: recording(undefined, { close: () => Promise.reject(new Error('stuck')) }),
  })
  await bus.start()
  await bus.stop()
  expect(logger.lines).toContainEqual({
    level: 'warn',
    fields: { transport: 'recording', reason: 'stuck' },
    message: 'a transport could not be closed',
  })
})

test.each<[string, object]>([
  ['nothing', {}],
  ['a text', { to: 'kafka://broker/topic' }],
  ['an empty list', { to: [] }],
  ['an object without methods', { to: { name: 'x', order: 'key', maxEvents: 1 } }],
  ['a name with a space', { to: recording(undefined, { name: 'a b' }) }],
  ['no order', { to: recording(undefined, { order: 'total' as 'key' }) }],
  ['no size', { to: recording(undefined, { maxEvents: 0 }) }],
  ['an order that is not kept', { to: recording(), ordered: true }],
  ['a handler', { to: noop(), handler: () => {} }],
  ['a mode', { to: noop(), mode: 'exactly-once' }],
  ['an unknown option', { to: noop(), topic: 'x' }],
  ['no name', { name: undefined, to: [noop()] }],
  ['an order of one of two that is not kept', { to: [noop(), recording()], ordered: true }],
])('bus.forward with %s is refused, and nothing is declared', (_, options) => {
  const bus = testBus(nowhere)
  const given = { name: 'out', events: ['note'], ...options }
  expect(() => bus.forward(given as never)).toThrow(expect.objectContaining({ code: 'BUS_INVALID_OPTION' }))
  // The name is still free.
  bus.subscribe({ name: 'out', events: ['note'], handler: () => {} })
})

test('the options that bus.forward has are named, without those that it refuses', () => {
  const bus = testBus(nowhere)
  const forward = (more: object) => () =>
    bus.forward({ name: 'out', events: ['note'], to: noop(), ...more } as never)
  expect(forward({ qqqqqqqq: 1 })).toThrow(/Known are: name, events, .*, to$/)
  expect(forward({ qqqqqqqq: 1 })).not.toThrow(/handler|mode/)
  expect(forward({ concurency: 2 })).toThrow('Did you mean `concurrency`?')
})

test('of several targets none is declared if the name of one is taken', async () => {
  const bus = testBus(nowhere)
  bus.subscribe({ name: 'out.noop', events: ['note'], handler: () => {} })
  const to = [recording(), noop()]
  expect(() => bus.forward({ name: 'out', events: ['note'], to })).toThrow(
    expect.objectContaining({ code: 'BUS_DUPLICATE_SUBSCRIPTION' }),
  )
  await nextTurn()
  bus.subscribe({ name: 'out.recording', events: ['note'], handler: () => {} })
})

test.each<[string, string]>([
  ['', 'empty'],
  [' , ', 'empty'],
  ['kafak://broker/topic', 'kafak'],
  ['not a url', 'no URL'],
  ['noop:?a=1', '`a`'],
  ['console:?payload=yes', '`payload`'],
  ['console:?payload=true&payload=false', '2 times'],
  ['file:///tmp/x?envelop=raw', 'Did you mean `envelope`'],
  ['file://host/tmp/x', 'file://host'],
  ['noop: https://user:hunter2@x/', 'password'],
])('the URL %j is refused', (url, reason) => {
  expect(() => transportFromUrl(url)).toThrow(expect.objectContaining({ code: 'BUS_INVALID_TRANSPORT_URL' }))
  expect(() => transportFromUrl(url)).toThrow(reason)
  expect(() => transportFromUrl(url)).toThrow(/^(?!.*hunter2)/)
})

test('several URLs are several targets', () => {
  const { targets } = transportFromUrl('noop: console:', 'file:///tmp/events.ndjson')
  expect(targets?.map(({ name }) => name)).toEqual(['noop', 'console', 'file'])
  expect(transportFromUrl('noop:')).toMatchObject({ name: 'noop' })
  expect(fanOut([fanOut([noop()]), noop()]).targets).toHaveLength(2)
})
