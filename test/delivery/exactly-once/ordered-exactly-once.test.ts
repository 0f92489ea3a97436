import { sql } from 'drizzle-orm'
import { expect, test } from 'vitest'
import {
  NonRetryableError,
  RetryAfterError,
  type EventOf,
  type ExactlyOnceContext,
  type HandlerTransaction,
  type NewEvent,
  type SubscriptionOptions,
} from '../../../src/index.ts'
import { recordingLogger, testBus, type paymentEvents, type PaymentBus } from '../../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'
import { openBoss, takeAndDie } from '../../support/queues.ts'
import { openSession } from '../../support/session.ts'
import { inOrder, readTurns, takeTurn as noteTurn, turnsTable } from '../../support/turns.ts'
import { randomOfTest } from '../../support/random.ts'

const random = randomOfTest()

type Events = typeof paymentEvents
type Note = EventOf<Events, 'note'>
type Handler = (event: Note, ctx: ExactlyOnceContext<Events>) => unknown

const note = (orderingKey: string | undefined, payload: unknown, rest: object = {}) =>
  ({ type: 'note', tenantId: 'acme', orderingKey, payload, ...rest }) as NewEvent<Events> & { type: 'note' }
const quick = { maxAttempts: 3, delaySeconds: 0, backoff: false }
const numbers = (length: number): number[] => Array.from({ length }, (_, i) => i)

async function openDatabase(): Promise<TestDatabase> {
  const database = await createTestDatabase()
  await database.rows(turnsTable)
  return database
}

const takeTurn = async (tx: HandlerTransaction, { orderingKey, payload, tenantId }: Note): Promise<void> =>
  noteTurn(tx, `${tenantId}/${orderingKey}`, payload)

function subscribe(
  bus: PaymentBus,
  handler: Handler,
  options: Partial<SubscriptionOptions<Events, 'note', 'exactly-once'>> = {},
): void {
  bus.subscribe({
    ...{ name: 'both', events: ['note'], ordered: true, mode: 'exactly-once', retry: quick },
    ...options,
    handler,
  })
}

async function publish(
  bus: PaymentBus,
  { db }: TestDatabase,
  notes: readonly NewEvent<Events>[],
): Promise<string[]> {
  const published = await db.transaction(async (tx) => bus.publishMany(tx, notes))
  return published.map(({ id }) => id)
}

const receipts = async ({ count }: TestDatabase): Promise<number> =>
  count('select count(*) from bus.deliveries')

/** Waits until so many events have a receipt, and nothing is left of any key or job. */
async function untilDelivered(database: TestDatabase, expected: number): Promise<void> {
  await until('all are delivered', async () => (await receipts(database)) === expected)
  await until(
    'nothing is left',
    async () =>
      (await database.count(`select (select count(*) from bus.ordered_keys) + (select count(*) from bus.ordered_events)
        + (select count(*) from bus.outbox)
        + (select count(*) from pgboss.job where name = 'bus.both' and state < 'completed')`)) === 0,
  )
}

test("each key's effects are there once and in order, whatever fails in between, over several workers", async () => {
  const database = await openDatabase()
  const buses = numbers(3).map(() => testBus(database.url))
  const running = new Map<string, number>()
  let failureCount = 0
  let overlapCount = 0
  let mostAtOnce = 0
  for (const bus of buses)
    subscribe(
      bus,
      async (event, { tx }) => {
        const key = `${event.tenantId}/${event.orderingKey}`
        if ((running.get(key) ?? 0) > 0) overlapCount += 1
        running.set(key, (running.get(key) ?? 0) + 1)
        mostAtOnce = Math.max(
          mostAtOnce,
          [...running.values()].reduce((sum, count) => sum + count, 0),
        )
        try {
          await takeTurn(tx, event)
          if (random() < 0.1) {
            failureCount += 1
            throw new Error('by chance')
          }
        } finally {
          running.set(key, (running.get(key) ?? 0) - 1)
        }
      },
      { batchSize: 7, concurrency: 3, retry: { ...quick, maxAttempts: 50 } },
    )
  const [publisher] = buses as [PaymentBus]
  const keys = numbers(10).flatMap((k) =>
    ['acme', 'zenith'].map((tenantId) => ({ orderingKey: `k${k}`, tenantId })),
  )
  const publishRound = async (from: number): Promise<unknown> =>
    publish(
      publisher,
      database,
      numbers(10).flatMap((i) =>
        keys.map(({ orderingKey, tenantId }) => note(orderingKey, from + i, { tenantId })),
      ),
    )
  // Some before anybody delivers, some meanwhile.
  await publishRound(0)
  await Promise.all(buses.map(async (bus) => bus.start()))
  await publishRound(10)
  await publishRound(20)
  await untilDelivered(database, 600)
  expect(await readTurns(database)).toEqual(
    Object.fromEntries(keys.map(({ orderingKey, tenantId }) => [`${tenantId}/${orderingKey}`, inOrder(30)])),
  )
  expect(overlapCount).toBe(0)
  expect(mostAtOnce).toBeGreaterThan(1)
  expect(failureCount).toBeGreaterThan(10)
})

test('effects of a key are seen only with their receipts, those of one transaction together', async () => {
  const database = await openDatabase()
  const bus = testBus(database.url)
  const inHandler: number[] = []
  subscribe(bus, async (event, { tx }) => {
    await takeTurn(tx, event)
    inHandler.push(await database.count('select count(*) from turns'))
  })
  await publish(
    bus,
    database,
    numbers(20).map((n) => note('k', n)),
  )
  await bus.start()
  await until('all are delivered', async () => {
    const [counts] = await database.rows(
      'select (select count(*)::int from turns) as turns, (select count(*)::int from bus.deliveries) as receipts',
    )
    expect(counts?.['turns']).toBe(counts?.['receipts'])
    return counts?.['receipts'] === 20
  })
  expect(await readTurns(database)).toEqual({ 'acme/k': inOrder(20) })
  expect(inHandler).toHaveLength(20)
  // Each handler ran before the one ahead of it was committed: they shared transactions.
  expect(new Set(inHandler).size).toBeLessThan(20)
})

test.each([1, 100])(
  'a failed event leaves nothing, keeps what was before it, and comes again before what is behind it (batches of %i)',
  async (batchSize) => {
    const database = await openDatabase()
    const bus = testBus(database.url)
    const runs: string[] = []
    const states: Record<string, string>[] = []
    subscribe(
      bus,
      async (event, { tx, attempt }) => {
        runs.push(`${event.payload as number}#${attempt}`)
        await takeTurn(tx, event)
        if (event.payload !== 2) return
        if (attempt > 1) states.push(await readTurns(database))
        if (attempt < 3) throw new Error('not yet')
      },
      { batchSize },
    )
    await publish(
      bus,
      database,
      numbers(5).map((n) => note('k', n)),
    )
    await bus.start()
    await untilDelivered(database, 5)
    expect(runs).toEqual(['0#1', '1#1', '2#1', '2#2', '2#3', '3#1', '4#1'])
    expect(states).toEqual([{ 'acme/k': '0 1' }, { 'acme/k': '0 1' }])
    expect(await readTurns(database)).toEqual({ 'acme/k': '0 1 2 3 4' })
    expect(
      await database.rows('select attempts, count(*)::int from bus.deliveries group by 1 order by 1'),
    ).toEqual([
      { attempts: 1, count: 4 },
      { attempts: 3, count: 1 },
    ])
  },
)

test('a swallowed statement error is a failed attempt, and nothing behind it is begun', async () => {
  const database = await openDatabase()
  const bus = testBus(database.url)
  const runs: string[] = []
  subscribe(bus, async (event, { tx, attempt }) => {
    runs.push(`${event.payload as number}#${attempt}`)
    await takeTurn(tx, event)
    if (event.payload === 1 && attempt === 1) await tx.execute(sql`select 1 / 0`).catch(() => {})
  })
  await publish(
    bus,
    database,
    numbers(4).map((n) => note('k', n)),
  )
  await bus.start()
  await untilDelivered(database, 4)
  expect(runs).toEqual(['0#1', '1#1', '1#2', '2#1', '3#1'])
  expect(await readTurns(database)).toEqual({ 'acme/k': '0 1 2 3' })
})

test('the time of the next attempt that a handler asks for holds its key, and no other', async () => {
  const database = await openDatabase()
  const bus = testBus(database.url)
  const begun = new Map<string, number>()
  subscribe(bus, async (event, { tx, attempt }) => {
    begun.set(`${event.orderingKey}${event.payload as number}#${attempt}`, performance.now())
    await takeTurn(tx, event)
    if (event.orderingKey === 'late' && event.payload === 1 && attempt === 1) throw new RetryAfterError(2)
  })
  await publish(bus, database, [
    ...numbers(3).map((n) => note('late', n)),
    ...numbers(3).map((n) => note('other', n)),
  ])
  await bus.start()
  await untilDelivered(database, 6)
  expect((begun.get('late1#2') ?? 0) - (begun.get('late1#1') ?? 0)).toBeGreaterThan(1900)
  expect(begun.get('late2#1')).toBeGreaterThan(begun.get('late1#2') ?? Infinity)
  expect(begun.get('other2#1')).toBeLessThan(begun.get('late1#2') ?? 0)
  expect(await readTurns(database)).toEqual({ 'acme/late': '0 1 2', 'acme/other': '0 1 2' })
})

test.each([
  ['block', 1],
  ['block', 100],
  ['park', 1],
  ['park', 100],
] as const)(
  'a key whose event fails for good waits (%s, batches of %i), and a release goes on with it, in order',
  async (onKeyFailure, batchSize) => {
    const database = await openDatabase()
    const logger = recordingLogger()
    const bus = testBus(database.url, { logger })
    let healed = false
    subscribe(
      bus,
      async (event, { tx }) => {
        await takeTurn(tx, event)
        if (event.payload === 2 && event.orderingKey === 'bad' && !healed)
          throw new NonRetryableError('hopeless')
      },
      { onKeyFailure, batchSize },
    )
    await bus.start()
    const ids = await publish(
      bus,
      database,
      numbers(5).flatMap((n) => [note('bad', n), note('good', n)]),
    )
    await until('the key waits', async () => (await bus.blockedKeys.list()).length === 1)
    await until('the other key is done', async () => (await receipts(database)) === 7)
    expect(await bus.blockedKeys.list()).toMatchObject([
      {
        state: onKeyFailure === 'block' ? 'blocked' : 'parked',
        id: ids[4],
        attempts: 1,
        waitingCount: 2,
        failures: [{ message: 'hopeless' }],
      },
    ])
    expect((await bus.deadLetters.list()).map(({ id }) => id)).toEqual(
      onKeyFailure === 'block' ? [ids[4]] : [ids[4], ids[6], ids[8]],
    )
    expect(await readTurns(database)).toEqual({ 'acme/bad': '0 1', 'acme/good': '0 1 2 3 4' })
    expect(
      logger.lines.filter(({ message }) => message === 'an event went to the dead letters'),
    ).toMatchObject([{ fields: { id: ids[4], type: 'note', tenantId: 'acme', attempts: 1 } }])
    healed = true
    const key = { subscription: 'both', tenantId: 'acme', orderingKey: 'bad' }
    expect(await bus.blockedKeys.release(key)).toBe(true)
    await untilDelivered(database, 10)
    expect(await readTurns(database)).toEqual({ 'acme/bad': '0 1 2 3 4', 'acme/good': '0 1 2 3 4' })
    expect(await bus.deadLetters.list()).toEqual([])
  },
)

test.each([1, 100])(
  'an event that is skipped has no effect, and its key goes on (batches of %i)',
  async (batchSize) => {
    const database = await openDatabase()
    const bus = testBus(database.url)
    subscribe(
      bus,
      async (event, { tx }) => {
        await takeTurn(tx, event)
        if (event.payload === 1) throw new Error('never')
        if (event.payload === 3) throw new NonRetryableError('hopeless')
      },
      { onKeyFailure: 'skip', batchSize },
    )
    const ids = await publish(
      bus,
      database,
      numbers(5).map((n) => note('k', n)),
    )
    await bus.start()
    await untilDelivered(database, 3)
    expect(await readTurns(database)).toEqual({ 'acme/k': '0 2 4' })
    const letters = await bus.deadLetters.list()
    expect(new Map(letters.map(({ id, attempts }) => [id, attempts]))).toEqual(
      new Map([
        [ids[1], 3],
        [ids[3], 1],
      ]),
    )
    expect(await bus.blockedKeys.list()).toEqual([])
  },
)

test('what a handler publishes joins its transaction: once for each event, nothing of a failed attempt', async () => {
  const database = await openDatabase()
  const bus = testBus(database.url)
  subscribe(bus, async (event, { publish: pass, attempt }) => {
    await pass({
      ...{ type: 'payment.refunded', tenantId: 'acme', orderingKey: event.orderingKey },
      payload: { paymentId: `${event.payload as number}#${attempt}` },
    })
    if (event.payload === 1 && attempt < 3) throw new Error('not yet')
  })
  const ids = await publish(
    bus,
    database,
    numbers(3).map((n) => note('k', n)),
  )
  await bus.start()
  await untilDelivered(database, 3)
  expect(
    await database.rows(
      `select payload->>'paymentId' as id, causation_id from bus.events where type = 'payment.refunded' order by payload->>'paymentId'`,
    ),
  ).toEqual([
    { id: '0#1', causation_id: ids[0] },
    { id: '1#3', causation_id: ids[1] },
    { id: '2#1', causation_id: ids[2] },
  ])
})

test('events without a key have no order, and do not wait for a key; each is there once', async () => {
  const database = await openDatabase()
  const bus = testBus(database.url)
  const open = Promise.withResolvers<void>()
  const held = Promise.withResolvers<void>()
  subscribe(bus, async (event, { tx, attempt }) => {
    await takeTurn(tx, event)
    if (event.payload === 'held') {
      held.resolve()
      await open.promise
    }
    if (event.payload === 7 && attempt === 1) throw new Error('not yet')
  })
  await publish(bus, database, [
    note('k', 'held'),
    note('k', 'behind'),
    ...numbers(20).map((n) => note(undefined, n)),
  ])
  await bus.start()
  await held.promise
  await until('the free ones are delivered', async () => (await receipts(database)) === 20)
  expect(await database.count('select count(*) from turns where key = $1', ['acme/k'])).toBe(0)
  open.resolve()
  await untilDelivered(database, 22)
  const { 'acme/k': ofKey, ...free } = await readTurns(database)
  expect(ofKey).toBe('held behind')
  expect(
    Object.values(free)
      .join(' ')
      .split(' ')
      .map(Number)
      .toSorted((a, b) => a - b),
  ).toEqual(numbers(20))
})

test('expired and erased events have no effect, and their key goes on behind them', async () => {
  const database = await openDatabase()
  const bus = testBus(database.url)
  subscribe(bus, async (event, { tx }) => takeTurn(tx, event))
  await publish(bus, database, [
    note('k', 0),
    note('k', 'expired', { expiresAt: new Date(Date.now() - 1000) }),
    note('k', 1),
    note('k', 'erased', { subject: 'customer-1' }),
    note('k', 2),
  ])
  await bus.erase({ tenantId: 'acme', subject: 'customer-1', by: 'a test' })
  await bus.start()
  await untilDelivered(database, 5)
  expect(await readTurns(database)).toEqual({ 'acme/k': '0 1 2' })
  expect(
    await database.rows(
      'select expired, coalesce(erased, false) as erased, count(*)::int from bus.deliveries group by 1, 2 order by 1, 2',
    ),
  ).toEqual([
    { expired: false, erased: false, count: 3 },
    { expired: true, erased: false, count: 1 },
    { expired: true, erased: true, count: 1 },
  ])
})

test('a tenant at its limit keeps its keys in order, and the same key of another tenant goes on', async () => {
  const database = await openDatabase()
  const bus = testBus(database.url)
  const running = new Map<string, number>()
  let most = 0
  subscribe(
    bus,
    async (event, { tx }) => {
      const count = (running.get(event.tenantId) ?? 0) + 1
      running.set(event.tenantId, count)
      most = Math.max(most, count)
      await takeTurn(tx, event)
      running.set(event.tenantId, (running.get(event.tenantId) ?? 0) - 1)
    },
    { tenantConcurrency: 1, batchSize: 5 },
  )
  await publish(
    bus,
    database,
    numbers(20).flatMap((n) =>
      ['a', 'b', 'c'].flatMap((key) => ['acme', 'zenith'].map((tenantId) => note(key, n, { tenantId }))),
    ),
  )
  await bus.start()
  await untilDelivered(database, 120)
  const all = await readTurns(database)
  expect(Object.keys(all)).toHaveLength(6)
  expect(new Set(Object.values(all))).toEqual(new Set([inOrder(20)]))
  expect(most).toBe(1)
})

test.each(['a statement', 'its own code'])(
  'a handler that is cut off in %s loses its attempt, what was before it is there once, and the key goes on',
  async (where) => {
    const database = await openDatabase()
    const bus = testBus(database.url)
    const runs: string[] = []
    subscribe(
      bus,
      async (event, { tx, attempt, signal }) => {
        runs.push(`${event.payload as number}#${attempt}`)
        await takeTurn(tx, event)
        if (event.payload !== 2 || attempt > 1) return
        if (where === 'a statement') await tx.execute(sql`select pg_sleep(600)`)
        else await new Promise((resolve) => signal.addEventListener('abort', resolve))
      },
      { timeoutSeconds: 1 },
    )
    await publish(
      bus,
      database,
      numbers(4).map((n) => note('k', n)),
    )
    await bus.start()
    await untilDelivered(database, 4)
    // Its transaction is gone, and what shared it runs again, before the failure is written down.
    expect(runs.slice(0, 3)).toEqual(['0#1', '1#1', '2#1'])
    expect(runs.slice(-2)).toEqual(['2#2', '3#1'])
    expect(['0#1', '1#1'].join()).toContain(runs.slice(3, -2).join())
    expect(await readTurns(database)).toEqual({ 'acme/k': '0 1 2 3' })
    expect(
      await database.rows('select attempts, count(*)::int from bus.deliveries group by 1 order by 1'),
    ).toEqual([
      { attempts: 1, count: 3 },
      { attempts: 2, count: 1 },
    ])
  },
)

test.each([1, 100])(
  'a key waits until the handler of a timed-out attempt has ended, and others see it (batches of %i)',
  async (batchSize) => {
    const database = await openDatabase()
    const bus = testBus(database.url)
    const gate = Promise.withResolvers<void>()
    const log: string[] = []
    subscribe(
      bus,
      async (event, { tx, attempt }) => {
        log.push(`${event.orderingKey}${event.payload as number}#${attempt}`)
        await takeTurn(tx, event)
        if (event.orderingKey !== 'k' || event.payload !== 1 || attempt > 1) return
        await gate.promise
        const late = await takeTurn(tx, event).catch((error: unknown) => error)
        log.push(late instanceof Error ? 'the late statement fails' : 'the late statement succeeds')
      },
      { timeoutSeconds: 1, batchSize },
    )
    await bus.start()
    await publish(
      bus,
      database,
      numbers(3).map((n) => note('k', n)),
    )
    const other = testBus(database.url)
    const blocked = async () => other.blockedKeys.list()
    await until('another process sees it', async () => (await blocked())[0]?.state === 'overrunning')
    expect(await blocked()).toMatchObject([
      { orderingKey: 'k', attempts: 1, failures: [{ attempt: 1, code: 'BUS_HANDLER_TIMEOUT' }] },
    ])
    expect(await bus.health()).toMatchObject({ ok: true, overrunningHandlerCount: 1 })
    // Its transaction is gone, and keeps nobody waiting.
    expect(
      await database.count(
        `select count(*) from pg_stat_activity where application_name like 'bossbus:%' and datname = current_database()`,
      ),
    ).toBe(0)
    await publish(bus, database, [note('other', 7)])
    await until('the other key is delivered', async () => (await readTurns(database))['acme/other'] === '7')
    expect(log).toEqual(['k0#1', 'k1#1', 'other7#1'])
    gate.resolve()
    await untilDelivered(database, 4)
    // The first one, where it shared the transaction, runs again, and then the one that failed, each in its turn.
    expect(log[3]).toBe('the late statement fails')
    expect(['', 'k0#1']).toContain(log.slice(4, -2).join())
    expect(log.slice(-2)).toEqual(['k1#2', 'k2#1'])
    expect(await readTurns(database)).toEqual({ 'acme/k': '0 1 2', 'acme/other': '7' })
    expect(await blocked()).toEqual([])
  },
)

test.each([1, 100])(
  'a key that is handed back at a stop, while its handler runs on, loses none of its events (batches of %i)',
  async (batchSize) => {
    const database = await openDatabase()
    const bus = testBus(database.url)
    const gate = Promise.withResolvers<void>()
    const timedOut = Promise.withResolvers<void>()
    subscribe(
      bus,
      async (event, { tx, signal }) => {
        await takeTurn(tx, event)
        if (event.payload !== 1) return
        signal.addEventListener('abort', () => timedOut.resolve())
        await gate.promise
      },
      { timeoutSeconds: 1, batchSize },
    )
    await publish(
      bus,
      database,
      numbers(3).map((n) => note('k', n)),
    )
    await bus.start()
    await timedOut.promise
    await until(
      'its transaction is gone',
      async () =>
        (await database.count(
          `select count(*) from pg_stat_activity where application_name like 'bossbus:%' and datname = current_database()`,
        )) === 0,
    )
    await bus.stop({ graceMs: 0 })
    const heir = testBus(database.url)
    subscribe(heir, async (event, { tx }) => takeTurn(tx, event), { batchSize })
    await heir.start()
    await untilDelivered(database, 3)
    expect(await readTurns(database)).toEqual({ 'acme/k': '0 1 2' })
    gate.resolve()
  },
)

test('a stop in the middle of a key costs no attempt: what is committed stays, the rest comes in order', async () => {
  const database = await openDatabase()
  const bus = testBus(database.url)
  const begun = Promise.withResolvers<void>()
  const attempts: number[] = []
  const handler: Handler = async (event, { tx, attempt, signal }) => {
    attempts.push(attempt)
    await takeTurn(tx, event)
    if (event.payload !== 60 || bus.state !== 'started') return
    begun.resolve()
    await new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('cut short'))))
  }
  subscribe(bus, handler)
  await publish(
    bus,
    database,
    numbers(80).map((n) => note('k', n)),
  )
  await bus.start()
  await begun.promise
  await bus.stop({ graceMs: 0 })
  // Fifty share a transaction at most: the first ones are committed, and those before the one that was cut short.
  const committed = inOrder(60)
  expect(await readTurns(database)).toEqual({ 'acme/k': committed })
  expect(await receipts(database)).toBe(60)
  const heir = testBus(database.url)
  subscribe(heir, handler)
  await heir.start()
  await untilDelivered(database, 80)
  expect(await readTurns(database)).toEqual({ 'acme/k': inOrder(80) })
  expect(new Set(attempts)).toEqual(new Set([1]))
})

test.each([1, 100])(
  'a commit that is refused is a failed attempt of the event that made it so, and the key stays in order (batches of %i)',
  async (batchSize) => {
    const database = await openDatabase()
    await database.rows('create table owners (id text primary key)')
    await database.rows('create table owned (owner text references owners deferrable initially deferred)')
    const bus = testBus(database.url)
    subscribe(
      bus,
      async (event, { tx }) => {
        await takeTurn(tx, event)
        if (event.payload === 2) await tx.execute(sql`insert into owned values ('unknown')`)
      },
      { batchSize },
    )
    const ids = await publish(
      bus,
      database,
      numbers(5).map((n) => note('k', n)),
    )
    await bus.start()
    await until('the key is blocked', async () => (await bus.blockedKeys.list())[0]?.state === 'blocked')
    expect(await bus.blockedKeys.list()).toMatchObject([{ id: ids[2], attempts: 3, waitingCount: 2 }])
    expect(await readTurns(database)).toEqual({ 'acme/k': '0 1' })
    expect(await receipts(database)).toBe(2)
    await database.rows(`insert into owners values ('unknown')`)
    await bus.blockedKeys.release({ subscription: 'both', tenantId: 'acme', orderingKey: 'k' })
    await untilDelivered(database, 5)
    expect(await readTurns(database)).toEqual({ 'acme/k': '0 1 2 3 4' })
  },
)

test('a connection that is lost under the handlers of a key costs no attempt, and changes no order', async () => {
  const database = await openDatabase()
  const bus = testBus(database.url)
  const runs: unknown[] = []
  subscribe(bus, async (event, { tx }) => {
    await takeTurn(tx, event)
    runs.push(event.payload)
    if (event.payload !== 2 || runs.filter((run) => run === 2).length > 1) return
    await database.rows(`select pg_terminate_backend(pid) from pg_stat_activity
      where starts_with(application_name, 'bossbus:') and datname = current_database()`)
  })
  await publish(
    bus,
    database,
    numbers(5).map((n) => note('k', n)),
  )
  await bus.start()
  await untilDelivered(database, 5)
  expect(runs.slice(0, 3)).toEqual([0, 1, 2])
  expect(runs.slice(-3)).toEqual([2, 3, 4])
  expect(runs.filter((run) => run === 2)).toHaveLength(2)
  expect(await readTurns(database)).toEqual({ 'acme/k': '0 1 2 3 4' })
  expect(await database.rows('select distinct attempts from bus.deliveries')).toEqual([{ attempts: 1 }])
})

test('handlers of two keys that deadlock run again with no attempt counted, each key in order', async () => {
  const database = await openDatabase()
  await database.rows('create table accounts (id int primary key, n int)')
  await database.rows('insert into accounts values (1, 0), (2, 0)')
  const bus = testBus(database.url)
  const locked = new Map<string, PromiseWithResolvers<void>>(
    ['a', 'b'].map((key) => [key, Promise.withResolvers<void>()]),
  )
  const bothHaveOne = Promise.all([...locked.values()].map(async ({ promise }) => promise))
  const add = (id: number) => sql`update accounts set n = n + 1 where id = ${id}`
  subscribe(bus, async (event, { tx }) => {
    await takeTurn(tx, event)
    if (event.payload !== 1) return
    const [from, to] = event.orderingKey === 'a' ? [1, 2] : [2, 1]
    await tx.execute(add(from))
    locked.get(event.orderingKey ?? '')?.resolve()
    await bothHaveOne
    await tx.execute(add(to))
  })
  await publish(
    bus,
    database,
    numbers(3).flatMap((n) => [note('a', n), note('b', n)]),
  )
  await bus.start()
  await untilDelivered(database, 6)
  expect(await readTurns(database)).toEqual({ 'acme/a': '0 1 2', 'acme/b': '0 1 2' })
  expect(await database.rows('select n from accounts')).toEqual([{ n: 2 }, { n: 2 }])
  expect(await database.rows('select distinct attempts from bus.deliveries')).toEqual([{ attempts: 1 }])
})

test('a worker that was presumed dead cannot commit late, nor let its key go on', async () => {
  const database = await openDatabase()
  const logger = recordingLogger()
  const zombie = testBus(database.url, { logger })
  const held = Promise.withResolvers<void>()
  const release = Promise.withResolvers<void>()
  subscribe(
    zombie,
    async (event, { tx }) => {
      await takeTurn(tx, { ...event, payload: `late ${event.payload as number}` })
      if (event.payload !== 1) return
      held.resolve()
      await release.promise
    },
    { concurrency: 1 },
  )
  await publish(
    zombie,
    database,
    numbers(4).map((n) => note('k', n)),
  )
  await zombie.start()
  await held.promise
  await database.rows(
    `update pgboss.job set heartbeat_on = now() - interval '1 hour' where name = 'bus.both' and state = 'active'`,
  )
  const heir = testBus(database.url)
  const runs: string[] = []
  subscribe(heir, async (event, { tx, attempt }) => {
    runs.push(`${event.payload as number}#${attempt}`)
    await takeTurn(tx, event)
  })
  await heir.start()
  await untilDelivered(database, 4)
  release.resolve()
  await zombie.stop()
  expect(runs).toEqual(['0#2', '1#1', '2#1', '3#1'])
  expect(await readTurns(database)).toEqual({ 'acme/k': '0 1 2 3' })
})

test('a worker whose claim is gone when its handler is done commits nothing', async () => {
  const database = await openDatabase()
  const logger = recordingLogger()
  const bus = testBus(database.url, { logger })
  const held = Promise.withResolvers<void>()
  const release = Promise.withResolvers<void>()
  subscribe(bus, async (event, { tx, attempt }) => {
    await takeTurn(tx, event)
    if (event.payload !== 1 || attempt > 1) return
    held.resolve()
    await release.promise
  })
  await publish(
    bus,
    database,
    numbers(3).map((n) => note('k', n)),
  )
  await bus.start()
  await held.promise
  // What claiming it again does, without the worker knowing; nobody is heard of since.
  await database.rows(
    `update pgboss.job set retry_count = 1, heartbeat_on = now() - interval '1 hour' where name = 'bus.both'`,
  )
  release.resolve()
  await until('the late commit is refused', () =>
    logger.lines.some(
      ({ message }) => message === 'another worker has taken a job over: its handlers are aborted',
    ),
  )
  expect(await readTurns(database)).toEqual({})
  expect(await receipts(database)).toBe(0)
  await untilDelivered(database, 3)
  expect(await readTurns(database)).toEqual({ 'acme/k': '0 1 2' })
})

test('the events of a worker that died over several of a key run one by one, in order', async () => {
  const database = await openDatabase()
  const bus = testBus(database.url)
  const runs: string[] = []
  subscribe(bus, async (event, { tx, attempt }) => {
    runs.push(`${event.payload as number}#${attempt}`)
    await takeTurn(tx, event)
  })
  await bus.start()
  await bus.subscriptions.pause('both', { by: 'a test', reason: 'somebody else takes the job' })
  await publish(
    bus,
    database,
    numbers(3).map((n) => note('k', n)),
  )
  await until(
    'the job is there',
    async () =>
      (await database.count(
        `select count(*) from pgboss.job where name = 'bus.both' and state = 'created'`,
      )) === 1,
  )
  expect(await takeAndDie(database.url, 'bus.both')).toMatchObject([{ eventIds: { length: 3 } }])
  await bus.subscriptions.resume('both')
  await untilDelivered(database, 3)
  expect(runs).toEqual(['0#2', '1#1', '2#1'])
  expect(await readTurns(database)).toEqual({ 'acme/k': '0 1 2' })
})

test('a copy of a job of a key runs no handler, and takes nothing out of the key', async () => {
  const database = await openDatabase()
  const bus = testBus(database.url)
  const runs: unknown[] = []
  subscribe(bus, async (event, { tx }) => {
    runs.push(event.payload)
    await takeTurn(tx, event)
  })
  const ids = await publish(
    bus,
    database,
    numbers(3).map((n) => note('k', n)),
  )
  await bus.start()
  await untilDelivered(database, 3)
  const boss = await openBoss(database.url)
  await boss.insert('bus.both', [{ data: { eventIds: ids, keyId: '1' } }])
  await publish(bus, database, [note('k', 3)])
  await untilDelivered(database, 4)
  expect(runs).toEqual([0, 1, 2, 3])
  expect(await readTurns(database)).toEqual({ 'acme/k': '0 1 2 3' })
})

test('a key whose row somebody else holds keeps no locks of its handlers, costs no attempt, and holds up no other key', async () => {
  const database = await openDatabase()
  await database.rows('create table counters (n int)')
  await database.rows('insert into counters values (0)')
  const logger = recordingLogger()
  const bus = testBus(database.url, { logger })
  const begun = Promise.withResolvers<void>()
  const open = Promise.withResolvers<void>()
  const attempts: number[] = []
  subscribe(bus, async (event, { tx, attempt }) => {
    if (event.orderingKey === 'held') attempts.push(attempt)
    await takeTurn(tx, event)
    await tx.execute(sql`update counters set n = n + 1`)
    if (event.orderingKey !== 'held') return
    begun.resolve()
    await open.promise
  })
  await bus.start()
  await publish(bus, database, [note('held', 0), note('held', 1)])
  await begun.promise
  const holder = await openSession(database)
  await holder.client.query('begin')
  await holder.client.query(`select from bus.ordered_keys where ordering_key = 'held' for update`)
  open.resolve()
  const isLogged = (): boolean =>
    logger.lines.some(({ message }) => message.startsWith('the row of a key is locked'))
  await until('its transaction is given up', isLogged)
  await publish(bus, database, [note('other', 0), note('other', 1)])
  await until('the other key is delivered', async () => (await readTurns(database))['acme/other'] === '0 1')
  expect(await readTurns(database)).toEqual({ 'acme/other': '0 1' })
  await holder.client.query('rollback')
  await untilDelivered(database, 4)
  expect(await readTurns(database)).toEqual({ 'acme/held': '0 1', 'acme/other': '0 1' })
  expect(new Set(attempts)).toEqual(new Set([1]))
  expect(await database.rows('select n from counters')).toEqual([{ n: 4 }])
})

test('between two transactions of a key with slow events other keys have their turn', async () => {
  const database = await openDatabase()
  const bus = testBus(database.url)
  const takeSlowly = async (event: Note, tx: HandlerTransaction): Promise<void> => {
    await takeTurn(tx, event)
    if (event.orderingKey === 'slow') await new Promise((resolve) => setTimeout(resolve, 100))
  }
  subscribe(bus, (event, { tx }) => (event.payload === 'at once' ? undefined : takeSlowly(event, tx)), {
    concurrency: 1,
  })
  await bus.start()
  // They wait for nothing, so from then on handlers are known to be fast on any machine, and several keys are taken at a time.
  await publish(
    bus,
    database,
    numbers(30).map((n) => note(`first-${n}`, 'at once')),
  )
  await until('the first ones are delivered', async () => (await receipts(database)) === 30)
  await publish(bus, database, [...numbers(20).map((n) => note('slow', n)), note('fast', 0)])
  await untilDelivered(database, 51)
  // Read from the receipts, because a busy machine may look late.
  const [before] = await database.rows(
    `select count(*)::int as count from bus.deliveries d join bus.events e on e.id = d.event_id
     where e.ordering_key = 'slow' and d.delivered_at < (
       select d.delivered_at from bus.deliveries d join bus.events e on e.id = d.event_id where e.ordering_key = 'fast')`,
  )
  expect(before?.['count']).toBeLessThan(20)
  expect((await readTurns(database))['acme/slow']).toBe(inOrder(20))
})
