import { randomUUID } from 'node:crypto'
import { expect, onTestFinished, test } from 'vitest'
import { z } from 'zod'
import { openBoss } from '../../../src/delivery/jobs/boss.ts'
import { startInstanceHeartbeat } from '../../../src/delivery/registry/instance-heartbeat.ts'
import { createDatabase } from '../../../src/database/database.ts'
import { createBus, defineEvents, type Bus, type SubscriptionOptions } from '../../../src/index.ts'
import { recordingLogger } from '../../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'

const events = defineEvents({
  'order.placed': { schema: z.object({ cents: z.number() }) },
  'order.refunded': { schema: z.object({ cents: z.number() }) },
  'order.shipped': { schema: z.object({ cents: z.number() }) },
})
type Events = typeof events
type Type = keyof Events

/** What one version of the service declares of the subscription `ledger`, beside its handler. */
type Variant = Partial<
  Omit<SubscriptionOptions<Events, 'order.*'>, 'name' | 'events' | 'handler' | 'mode'>
> & {
  readonly events?: readonly string[]
  readonly mode?: 'exactly-once'
}

/** Events that the handler of one version got: type and cents. */
type Seen = string[]

interface Version {
  readonly bus: Bus<Events>
  readonly seen: Seen
  /** Pauses the subscription, and waits until the process has heard of it. */
  readonly pause: () => Promise<void>
}

/** Starts a process's worth of one version. */
async function startVersion(
  { url }: TestDatabase,
  variant: Variant,
  fails: (cents: number) => boolean = () => false,
): Promise<Version> {
  const logger = recordingLogger()
  const bus = createBus({ database: url, events, source: 'shop', logger })
  onTestFinished(async () => bus.stop({ graceMs: 1000 }))
  const seen: Seen = []
  bus.subscribe({
    events: ['order.placed'],
    retry: { delaySeconds: 0, backoff: false, maxAttempts: 3 },
    ...variant,
    name: 'ledger',
    handler: ({ type, payload }: { type: string; payload: unknown }) => {
      const { cents } = payload as { cents: number }
      seen.push(`${type} ${cents}`)
      if (fails(cents)) throw new Error('no')
    },
  } as never)
  await bus.start()
  const pause = async (): Promise<void> => {
    await bus.subscriptions.pause('ledger')
    await until('the process has heard of it', () =>
      logger.lines.some(({ message }) => message === 'a subscription was paused'),
    )
  }
  return { bus, seen, pause }
}

async function publish(
  { rows }: TestDatabase,
  type: Type,
  cents: number | readonly number[],
  orderingKey?: string,
): Promise<void> {
  const event = { type, source: 'shop', tenantId: 't', orderingKey }
  const all = [cents].flat().map((each) => ({ ...event, payload: { cents: each } }))
  await rows('select bus.publish($1::jsonb)', [JSON.stringify(all)])
}

const receiptCount = 'select count(*) from bus.deliveries'

async function delivered(database: TestDatabase, number: number): Promise<void> {
  await until(`${number} receipts are there`, async () => (await database.count(receiptCount)) === number)
}

/** Lets a bus of another service retire what no process declares, as the leader does after some minutes. */
async function retireAbandoned(database: TestDatabase): Promise<void> {
  const before = await database.count('select count(*) from bus.declarations where retired_at is not null')
  let now = 0
  const busDatabase = createDatabase(database.url, recordingLogger())
  const boss = await openBoss(busDatabase, 'test', recordingLogger())
  const presence = await startInstanceHeartbeat({
    ...{ database: busDatabase, boss, service: 'test', instanceId: randomUUID(), subscriptions: [] },
    ...{
      registrations: new Map(),
      logger: recordingLogger(),
      onOperations: () => {},
    },
    now: () => now,
  })
  for (const seconds of [61, 300, 361]) {
    // Those that live say so.
    await database.rows('update bus.instances set seen_at = clock_timestamp()')
    now = seconds * 1000
    await presence.maintain(true)
  }
  await presence.leave()
  await boss.stop({ graceful: false })
  await busDatabase.close()
  expect(
    await database.count('select count(*) from bus.declarations where retired_at is not null'),
  ).toBeGreaterThan(before)
}

const modes: readonly (readonly [string, Variant, string | undefined])[] = [
  ['at-least-once', {}, undefined],
  ['exactly-once', { mode: 'exactly-once' }, undefined],
  ['ordered', { ordered: true }, 'key'],
]

test.each(modes)(
  '%s: a type that only new code covers goes to new code, whoever routes it',
  async (_, mode, key) => {
    const database = await createTestDatabase()
    const old = await startVersion(database, mode)
    const neu = await startVersion(database, { ...mode, events: ['order.placed', 'order.refunded'] })
    for (let i = 0; i < 40; i += 1)
      await publish(database, i % 2 === 0 ? 'order.refunded' : 'order.placed', i, key)
    await delivered(database, 40)
    expect(old.seen.filter((each) => !each.startsWith('order.placed'))).toEqual([])
    expect(neu.seen.filter((each) => each.startsWith('order.refunded'))).toHaveLength(20)
    expect(old.seen.length + neu.seen.length).toBe(40)
    const cents = neu.seen.map((each) => Number(each.split(' ')[1]))
    expect(
      key === undefined || cents.every((each, index) => index === 0 || each > (cents[index - 1] ?? 0)),
    ).toBe(true)
  },
)

test('an old process that is started again takes nothing away from newer code', async () => {
  const database = await createTestDatabase()
  const old = await startVersion(database, { retry: { maxAttempts: 2 } })
  const neu = await startVersion(database, {
    events: ['order.*'],
    retry: { maxAttempts: 7, delaySeconds: 0, backoff: false },
  })
  await old.bus.stop()
  const again = await startVersion(database, { retry: { maxAttempts: 2 } })
  // As the Fastify plugin does where it is told to.
  const migrating = createBus({ database: database.url, events, source: 'shop', logger: recordingLogger() })
  migrating.subscribe({
    name: 'ledger',
    events: ['order.placed'],
    retry: { maxAttempts: 2 },
    handler: () => {},
  })
  await migrating.migrate()
  await migrating.stop()
  await publish(database, 'order.refunded', 1)
  await delivered(database, 1)
  expect([neu.seen, again.seen]).toEqual([['order.refunded 1'], []])
  const [subscription] = await neu.bus.subscriptions.list()
  expect(subscription).toMatchObject({ events: ['order.*'], options: { retry: { maxAttempts: 7 } } })
  expect(
    await database.rows(
      `select retry_limit % 1000000 as retries from pgboss.queue where name = 'bus.ledger'`,
    ),
  ).toEqual([{ retries: 6 }])
})

test('events that both cover fail as often as the newest code says, in whichever process', async () => {
  const database = await createTestDatabase()
  const old = await startVersion(database, { retry: { maxAttempts: 1 }, circuitBreaker: false }, () => true)
  const neu = await startVersion(
    database,
    {
      retry: { maxAttempts: 3, delaySeconds: 0, backoff: false },
      circuitBreaker: false,
      where: '$.cents >= 0',
    },
    () => true,
  )
  await publish(database, 'order.placed', [...Array(20).keys()])
  await until('all are dead', async () => (await neu.bus.deadLetters.list({ limit: 100 })).length === 20)
  expect((await neu.bus.deadLetters.list({ limit: 100 })).map(({ attempts }) => attempts)).toEqual(
    Array(20).fill(3),
  )
  expect(old.seen.length + neu.seen.length).toBe(60)
})

test('each event goes to code whose predicate it fulfils', async () => {
  const database = await createTestDatabase()
  const small = await startVersion(database, { where: '$.cents < 100' })
  const large = await startVersion(database, { where: '$.cents > 50' })
  for (const cents of [10, 40, 60, 90, 150, 500]) await publish(database, 'order.placed', cents)
  await delivered(database, 6)
  const centsOf = ({ seen }: Version): number[] => seen.map((each) => Number(each.split(' ')[1]))
  // Those that only one of them takes are with it; of the others each may take any.
  expect(
    centsOf(small)
      .filter((cents) => cents <= 50)
      .toSorted((a, b) => a - b),
  ).toEqual([10, 40])
  expect(
    centsOf(large)
      .filter((cents) => cents >= 100)
      .toSorted((a, b) => a - b),
  ).toEqual([150, 500])
  expect([...centsOf(small), ...centsOf(large)].toSorted((a, b) => a - b)).toEqual([10, 40, 60, 90, 150, 500])
})

test('what was routed for code without a predicate is judged by that of the code that finds it', async () => {
  const database = await createTestDatabase()
  const old = await startVersion(database, {})
  await old.pause()
  await publish(database, 'order.placed', 1)
  await publish(database, 'order.placed', 200)
  await until('they are routed', async () => (await database.count('select count(*) from bus.outbox')) === 0)
  await old.bus.stop()
  const neu = await startVersion(database, { where: '$.cents > 100' })
  await neu.bus.subscriptions.resume('ledger')
  await delivered(database, 1)
  expect(neu.seen).toEqual(['order.placed 200'])
  await until(
    'the other one was put back',
    async () =>
      (await database.count(
        `select count(*) from pgboss.job where name = 'bus.ledger' and data ? 'declinedBy'`,
      )) === 1,
  )
  const again = await startVersion(database, {})
  await delivered(database, 2)
  expect([neu.seen, again.seen]).toEqual([['order.placed 200'], ['order.placed 1']])
})

test('after a rollback, what only newer code covers waits for it', async () => {
  const database = await createTestDatabase()
  const before = await startVersion(database, {})
  await before.bus.stop()
  const neu = await startVersion(database, { events: ['order.*'] })
  await neu.pause()
  await publish(database, 'order.refunded', 1)
  await publish(database, 'order.placed', 2)
  await until('they are routed', async () => (await database.count('select count(*) from bus.outbox')) === 0)
  await neu.bus.stop()
  const old = await startVersion(database, {})
  await retireAbandoned(database)
  await old.bus.subscriptions.resume('ledger')
  await delivered(database, 1)
  await until(
    'the other one was left to other code',
    async () =>
      (await database.count(
        `select count(*) from pgboss.job where name = 'bus.ledger' and data ? 'declinedBy'`,
      )) === 1,
  )
  expect(old.seen).toEqual(['order.placed 2'])
  expect(await old.bus.deadLetters.list()).toEqual([])
  const again = await startVersion(database, { events: ['order.*'] })
  await delivered(database, 2)
  expect(again.seen).toEqual(['order.refunded 1'])
})

test('what newer code has left out becomes a dead letter once the code that had it is gone', async () => {
  const database = await createTestDatabase()
  const old = await startVersion(database, { events: ['order.*'] })
  await old.pause()
  await publish(database, 'order.refunded', 1)
  await publish(database, 'order.placed', 2)
  await until('they are routed', async () => (await database.count('select count(*) from bus.outbox')) === 0)
  const neu = await startVersion(database, {})
  await old.bus.stop()
  // Both count still.
  await publish(database, 'order.refunded', 3)
  await neu.bus.subscriptions.resume('ledger')
  await delivered(database, 1)
  expect(await neu.bus.deadLetters.list()).toEqual([])
  await retireAbandoned(database)
  await publish(database, 'order.refunded', 4)
  await until('what was routed is dead', async () => (await neu.bus.deadLetters.list()).length === 2)
  expect((await neu.bus.deadLetters.list()).map(({ failures }) => failures[0]?.code)).toEqual([
    'BUS_EVENT_NOT_COVERED',
    'BUS_EVENT_NOT_COVERED',
  ])
  await until(
    'the last one is out of the outbox',
    async () => (await database.count('select count(*) from bus.outbox')) === 0,
  )
  expect(neu.seen).toEqual(['order.placed 2'])
})

test('a service that is down loses nothing of what its last code covered', async () => {
  const database = await createTestDatabase()
  const old = await startVersion(database, {})
  const neu = await startVersion(database, { events: ['order.placed', 'order.shipped'] })
  await Promise.all([old.bus.stop(), neu.bus.stop()])
  const other = createBus({ database: database.url, events, source: 'other', logger: recordingLogger() })
  onTestFinished(async () => other.stop())
  await other.start()
  await publish(database, 'order.shipped', 1)
  await until('it is routed', async () => (await database.count('select count(*) from bus.outbox')) === 0)
  const again = await startVersion(database, { events: ['order.placed', 'order.shipped'] })
  await delivered(database, 1)
  expect(again.seen).toEqual(['order.shipped 1'])
})
