import { expect, onTestFinished, test } from 'vitest'
import { createBus, type Bus } from '../../../src/index.ts'
import { paymentEvents, recordingLogger, testBus, type LogLine } from '../../support/bus.ts'
import { createTestDatabase, until } from '../../support/database.ts'

const uuidShape = /^[0-9a-f-]{36}$/
/** As `connect` of a name with two addresses: without a message of its own. */
const refused = Object.assign(
  new AggregateError(
    ['::1', '127.0.0.1'].map((address) =>
      Object.assign(new Error(`connect ECONNREFUSED ${address}:9`), {
        code: 'ECONNREFUSED',
        address,
        port: 9,
      }),
    ),
  ),
  { code: 'ECONNREFUSED' },
)
const reason = 'fetch failed, caused by connect ECONNREFUSED ::1:9 and connect ECONNREFUSED 127.0.0.1:9'

const messagesOf = (lines: readonly LogLine[], level: LogLine['level']): string[] =>
  lines.filter((line) => line.level === level).map(({ message }) => message)

test.each(['at-least-once', 'exactly-once'] as const)(
  'why an attempt failed is told with its causes in failures, deliveries, dead letters, the log and the breaker: %s',
  async (mode) => {
    const { url, db, rows } = await createTestDatabase()
    const logger = recordingLogger()
    const bus = testBus(url, { logger })
    bus.subscribe({
      name: 'hook',
      events: ['note'],
      mode,
      retry: { maxAttempts: 2, delaySeconds: 0 },
      circuitBreaker: { windowSize: 5 },
      handler: async () => {
        await new Promise((resolve) => setTimeout(resolve, 20))
        throw new TypeError('fetch failed', { cause: refused })
      },
    })
    await bus.start()
    const publish = async (): Promise<{ id: string }> =>
      db.transaction(async (tx) =>
        bus.publish(tx, { type: 'note', tenantId: 'acme', subject: 'ada', payload: { n: 1 } }),
      )
    const { id } = await publish()
    await until('it is dead', async () => (await bus.deadLetters.list()).length === 1)
    const [letter] = await bus.deadLetters.list()
    expect(letter?.failures.map(({ message }) => message)).toEqual([reason, reason])
    expect((await bus.deliveries(id))[0]?.lastError).toMatchObject({ name: 'TypeError', message: reason })
    const failed = logger.lines.filter(({ message }) => message === 'an attempt to handle an event failed')
    expect(failed[0]).toMatchObject({
      level: 'warn',
      fields: { subscription: 'hook', id, type: 'note', tenantId: 'acme', attempt: 1, reason },
    })
    expect(failed[0]?.fields['durationMs']).toBeGreaterThanOrEqual(15)
    expect(failed[1]?.fields).toMatchObject({ attempt: 2, reason })
    const about = { subscription: 'hook', type: 'note', tenantId: 'acme' }
    const dead = logger.lines.find(({ message }) => message === 'an event went to the dead letters')
    expect(dead).toMatchObject({ level: 'error', fields: { ...about, id, attempts: 2, reason } })
    expect(dead?.fields['durationMs']).toBeGreaterThanOrEqual(15)
    await publish()
    await publish()
    await publish()
    await until(
      'its circuit breaker is open',
      async () => (await bus.subscriptions.list())[0]?.circuit !== undefined,
    )
    expect((await bus.subscriptions.list())[0]?.circuit?.reason).toBe(reason)
    const opened = 'nearly every attempt of a subscription fails: its circuit breaker has opened'
    await until('that is logged', () => logger.lines.some(({ message }) => message === opened))
    expect(logger.lines.find(({ message }) => message === opened)).toMatchObject({
      level: 'error',
      fields: { ...about, id: expect.stringMatching(uuidShape) as string, probeInSeconds: 5, reason },
    })
    // What is erased is erased with its causes.
    await bus.erase({ tenantId: 'acme', subject: 'ada', by: 'tests' })
    expect(JSON.stringify(await rows('select data, output, source_output from pgboss.job'))).not.toContain(
      'ECONNREFUSED',
    )
  },
)

test('start, stop, migration and leadership are logged at info', async () => {
  const { url } = await createTestDatabase({ empty: true })
  const logger = recordingLogger()
  const bus = testBus(url, { logger })
  await bus.migrate()
  const migrated = logger.lines.find(({ message }) => message === 'the schema `bus` was migrated')
  expect(migrated).toMatchObject({ level: 'info', fields: { from: 0 } })
  await bus.migrate()
  await bus.start()
  await until('it leads', () =>
    messagesOf(logger.lines, 'info').includes(
      'this process is the leader: its relay acts on notifications first',
    ),
  )
  await bus.stop()
  const infos = messagesOf(logger.lines, 'info')
  expect(infos.filter((message) => /schema|started|leader|stop/.test(message))).toEqual([
    'the schema `bus` was migrated',
    'the schema `bus` is up to date',
    'the bus has started',
    'this process is the leader: its relay acts on notifications first',
    'the bus is stopping',
    'this process is no longer the leader',
    'the bus has stopped',
  ])
  expect(logger.lines.find(({ message }) => message === 'the bus has started')?.fields).toMatchObject({
    service: 'payment-service',
    subscriptionCount: 0,
    durationMs: expect.any(Number) as number,
  })
  expect(migrated?.fields['durationMs']).toBeGreaterThan(0)
})

test('a pattern that matches no type of the catalogue is warned of at the start, and one that does is not', async () => {
  const { url } = await createTestDatabase()
  const logger = recordingLogger()
  const bus: Bus<typeof paymentEvents> = createBus({
    database: url,
    events: paymentEvents,
    source: 'payment-service',
    logger,
  })
  onTestFinished(async () => bus.stop({ graceMs: 1000 }))
  bus.subscribe({ name: 's', events: ['paymnet.*', 'payment.*', '**', 'usage.*.x'], handler: () => {} })
  await bus.start()
  const warned = logger.lines.filter(
    ({ message }) => message === 'a pattern of a subscription matches no event type of the catalogue',
  )
  expect(warned.map(({ level, fields }) => ({ level, ...fields }))).toMatchObject([
    { level: 'warn', subscription: 's', pattern: 'paymnet.*', didYouMean: 'payment.*' },
    { level: 'warn', subscription: 's', pattern: 'usage.*.x' },
  ])
})

test('a subscription is unserved while no process runs it, and active while one does', async () => {
  const { url } = await createTestDatabase()
  const states = async ({ subscriptions }: Pick<Bus, 'subscriptions'>): Promise<string[]> =>
    (await subscriptions.list()).map(({ state }) => state)
  const bus = testBus(url)
  bus.subscribe({ name: 's', events: ['note'], handler: () => {} })
  const operator = testBus(url)
  await bus.start()
  expect(await states(operator)).toEqual(['active'])
  await bus.stop()
  expect(await operator.subscriptions.list()).toMatchObject([{ state: 'unserved', instanceCount: 0 }])
  await operator.subscriptions.pause('s')
  expect(await states(operator)).toEqual(['paused'])
})

test('names from outside are published, matched, delivered and found, whatever characters they have', async () => {
  const { url, db } = await createTestDatabase()
  const schema = paymentEvents.note.schema
  const names = [
    'order:created',
    'orders/create',
    'io.k8s.x/v1',
    'user@example.com',
    '注文.作成',
    'Order Completed',
    "it's",
  ]
  const bus = createBus({
    database: url,
    events: Object.fromEntries(names.map((name) => [name, { schema }])),
    source: 'bridge',
    logger: recordingLogger(),
  })
  onTestFinished(async () => bus.stop({ graceMs: 1000 }))
  const seen: string[] = []
  bus.subscribe({ name: 'by-name', events: names, handler: (event) => void seen.push(event.type) })
  bus.subscribe({
    name: 'by-pattern',
    events: ['io.**', '注文.*'],
    handler: (event) => void seen.push(`*${event.type}`),
  })
  await bus.start()
  await db.transaction(async (tx) =>
    bus.publishMany(
      tx,
      names.map((type) => ({ type, tenantId: 'acme', payload: 1 })),
    ),
  )
  const expected = [...names, '*io.k8s.x/v1', '*注文.作成'].toSorted()
  await until('all are delivered', () => seen.length >= expected.length)
  expect(seen.toSorted()).toEqual(expected)
  expect((await bus.events.find({ type: names })).map(({ type }) => type).toSorted()).toEqual(
    names.toSorted(),
  )
})

test('a second event with the same eventId is a duplicate, also of another type, and not of another tenant', async () => {
  const { url, db } = await createTestDatabase()
  const bus = testBus(url)
  const publish = async (event: object) => db.transaction(async (tx) => bus.publish(tx, event as never))
  const first = await publish({ type: 'note', tenantId: 'acme', eventId: '42', payload: 1 })
  const second = { type: 'payment.refunded', eventId: '42', payload: { paymentId: '42' } }
  expect(await publish({ ...second, tenantId: 'acme' })).toEqual({ id: first.id, duplicate: true })
  expect(await publish({ ...second, tenantId: 'other' })).toMatchObject({ duplicate: false })
})
