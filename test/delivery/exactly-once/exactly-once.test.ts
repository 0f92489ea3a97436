import { sql } from 'drizzle-orm'
import { expect, onTestFinished, test } from 'vitest'
import {
  createBus,
  NonRetryableError,
  type EventOf,
  type ExactlyOnceContext,
  type SubscriptionOptions,
} from '../../../src/index.ts'
import { canary, shownBy, traceOfCanary } from '../../support/canary.ts'
import { paymentEvents, recordingLogger, testBus, type PaymentBus } from '../../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'
import { countEffects, createEffects, writeEffect } from '../../support/effects.ts'
import { openBoss } from '../../support/queues.ts'

type Events = typeof paymentEvents
type Note = EventOf<Events, 'note'>
type Handler = (event: Note, ctx: ExactlyOnceContext<Events>) => unknown

const note = (payload: unknown) => ({ type: 'note', tenantId: 'a', payload }) as const
const quick = { maxAttempts: 3, delaySeconds: 0, backoff: false }

async function openDatabase(): Promise<TestDatabase> {
  const database = await createTestDatabase()
  await createEffects(database)
  return database
}

function subscribe(
  bus: PaymentBus,
  handler: Handler,
  options: Partial<SubscriptionOptions<Events, 'note', 'exactly-once'>> = {},
): void {
  bus.subscribe({ name: 'once', events: ['note'], mode: 'exactly-once', retry: quick, ...options, handler })
}

async function publish(
  bus: PaymentBus,
  { db }: TestDatabase,
  payloads: readonly unknown[],
): Promise<string[]> {
  const published = await db.transaction(async (tx) => bus.publishMany(tx, payloads.map(note)))
  return published.map(({ id }) => id)
}

const everythingIsSettled = async ({ count }: TestDatabase): Promise<boolean> =>
  (await count('select count(*) from bus.outbox')) === 0 &&
  (await count(`select count(*) from pgboss.job where name = 'bus.once' and state < 'completed'`)) === 0

const numbers = (length: number): number[] => Array.from({ length }, (_, i) => i)

test('an effect is there exactly when its receipt is', async () => {
  const database = await openDatabase()
  const bus = testBus(database.url)
  subscribe(bus, async (event, { tx }) => writeEffect(tx, event))
  const seen = new Set<number>()
  await publish(bus, database, numbers(300))
  await bus.start()
  await until('all are delivered', async () => {
    const { receipts, effects } = await countEffects(database)
    expect(effects).toBe(receipts)
    seen.add(effects)
    return receipts === 300
  })
  // Otherwise the comparison has compared nothing.
  expect(seen.size).toBeGreaterThan(1)
  await until('the jobs are done', async () => everythingIsSettled(database))
  expect(await countEffects(database)).toEqual({ receipts: 300, effects: 300, distinct: 300 })
})

test('an attempt that fails leaves nothing, and the rest of its batch stays', async () => {
  const database = await openDatabase()
  const bus = testBus(database.url)
  const attempts: number[] = []
  subscribe(bus, async (event, { tx, attempt }) => {
    await writeEffect(tx, event)
    if (event.payload !== 7) return
    attempts.push(attempt)
    expect(await countEffects(database)).toMatchObject({ effects: attempt === 1 ? 0 : 19 })
    if (attempt < 3) throw new Error('not yet')
  })
  await publish(bus, database, numbers(20))
  await bus.start()
  await until('all are delivered', async () => (await countEffects(database)).receipts === 20)
  expect(attempts).toEqual([1, 2, 3])
  expect(await countEffects(database)).toEqual({ receipts: 20, effects: 20, distinct: 20 })
  expect(
    await database.rows('select attempts, count(*)::int from bus.deliveries group by 1 order by 1'),
  ).toEqual([
    { attempts: 1, count: 19 },
    { attempts: 3, count: 1 },
  ])
})

test.each(['alone', 'in a batch'])('a dead letter, %s, has its errors and no effects', async (how) => {
  const database = await openDatabase()
  const logger = recordingLogger()
  const bus = testBus(database.url, { logger })
  subscribe(bus, async (event, { tx }) => {
    await writeEffect(tx, event)
    if (event.payload === 'bad') throw new TypeError('bad')
    if (event.payload === 'hopeless') throw new NonRetryableError('hopeless')
  })
  if (how === 'in a batch') await publish(bus, database, ['bad', 'good', 'hopeless'])
  else for (const payload of ['bad', 'good', 'hopeless']) await publish(bus, database, [payload])
  await bus.start()
  await until('the dead letters are there', async () => (await bus.deadLetters.list()).length === 2)
  const letters = await bus.deadLetters.list()
  const seen = letters.map(({ attempts, failures }) => `${attempts} ${failures.at(-1)?.message}`)
  expect(new Set(seen)).toEqual(new Set(['1 hopeless', '3 bad']))
  await until('the good one is delivered', async () => (await countEffects(database)).receipts === 1)
  expect(await database.rows('select what from effects')).toEqual([{ what: 'good' }])
  expect(logger.lines.filter(({ message }) => message === 'an event went to the dead letters')).toHaveLength(
    2,
  )
  expect(
    logger.lines.filter(({ message }) => message === 'an attempt to handle an event failed'),
  ).toHaveLength(4)
})

test('a statement error that the handler swallows is a failed attempt of that event only', async () => {
  const database = await openDatabase()
  const bus = testBus(database.url)
  subscribe(bus, async (event, { tx }) => {
    await writeEffect(tx, event)
    if (event.payload === 'swallows') await tx.execute(sql`select 1 / 0`).catch(() => {})
  })
  const [, badId] = await publish(bus, database, ['first', 'swallows', 'last'])
  await bus.start()
  await until('the dead letter is there', async () => (await bus.deadLetters.list()).length === 1)
  const [letter] = await bus.deadLetters.list()
  expect(letter).toMatchObject({ id: badId, attempts: 3 })
  for (const failure of letter?.failures ?? []) {
    expect(failure).toMatchObject({ name: 'DeliveryError', code: 'BUS_HANDLER_TRANSACTION_ABORTED' })
    expect(failure.message).toContain('division by zero')
  }
  expect(await database.rows('select what from effects order by 1')).toEqual([
    { what: 'first' },
    { what: 'last' },
  ])
})

test('a nested transaction is a savepoint: what fails in it can be caught', async () => {
  const database = await openDatabase()
  const bus = testBus(database.url)
  subscribe(bus, async (event, { tx }) => {
    await writeEffect(tx, event)
    await tx
      .transaction(async (nested) => {
        await nested.execute(sql`insert into effects values (${event.id}, 'undone')`)
        await nested.execute(sql`select 1 / 0`)
      })
      .catch(() => {})
    await tx.transaction(async (nested) => {
      await nested.transaction(async (deeper) => {
        await deeper.execute(sql`insert into effects values (${event.id}, 'kept')`)
      })
    })
  })
  await publish(bus, database, ['a', 'b'])
  await bus.start()
  await until('both are delivered', async () => (await countEffects(database)).receipts === 2)
  expect(await database.rows('select what from effects order by 1')).toEqual(
    ['a', 'b', 'kept', 'kept'].map((what) => ({ what })),
  )
  expect(await database.rows('select distinct attempts from bus.deliveries')).toEqual([{ attempts: 1 }])
})

test('statements asked for at once go one after the other', async () => {
  const database = await openDatabase()
  const bus = testBus(database.url)
  subscribe(bus, async (event, { tx }) =>
    Promise.all([1, 2, 3].map(async (n) => writeEffect(tx, { ...event, payload: n }))),
  )
  await publish(bus, database, ['n'])
  await bus.start()
  await until('it is delivered', async () => (await countEffects(database)).receipts === 1)
  expect(await database.rows('select what from effects order by 1')).toEqual(
    ['1', '2', '3'].map((what) => ({ what })),
  )
})

test('a handler that is cut off in a statement loses its attempt; its batch goes on, its session is ended', async () => {
  const database = await openDatabase()
  const bus = testBus(database.url)
  subscribe(
    bus,
    async (event, { tx, attempt }) => {
      await writeEffect(tx, event)
      if (event.payload === 'sleeps' && attempt === 1) await tx.execute(sql`select pg_sleep(600)`)
    },
    { timeoutSeconds: 1 },
  )
  await publish(bus, database, ['first', 'sleeps', 'last'])
  await bus.start()
  await until('all are delivered', async () => (await countEffects(database)).receipts === 3)
  expect(await countEffects(database)).toEqual({ receipts: 3, effects: 3, distinct: 3 })
  expect(
    await database.rows(
      `select attempts from bus.deliveries d join effects e using (event_id) order by what`,
    ),
  ).toEqual([{ attempts: 1 }, { attempts: 1 }, { attempts: 2 }])
  await until(
    'the statement is gone',
    async () =>
      (await database.count(`select count(*) from pg_stat_activity where query like '%pg_sleep(600)%'
      and pid <> pg_backend_pid() and datname = current_database() and state = 'active'`)) === 0,
  )
  const [failed] = await database.rows(
    `select data->'failures'->0->>'code' as code from pgboss.job where name = 'bus.once' and data ? 'failures'`,
  )
  expect(failed).toEqual({ code: 'BUS_HANDLER_TIMEOUT' })
})

test.each(['alone', 'in a batch'])(
  'a commit that is refused, %s, is a failed attempt of the event that made it so',
  async (how) => {
    const database = await openDatabase()
    await database.rows('create table owners (id text primary key)')
    await database.rows(`insert into owners values ('known')`)
    await database.rows('create table owned (owner text references owners deferrable initially deferred)')
    const bus = testBus(database.url)
    subscribe(bus, async (event, { tx }) => {
      await writeEffect(tx, event)
      await tx.execute(sql`insert into owned values (${event.payload})`)
    })
    const payloads = how === 'alone' ? ['unknown'] : ['known', 'known', 'unknown', 'known']
    await publish(bus, database, payloads)
    await bus.start()
    await until('the dead letter is there', async () => (await bus.deadLetters.list()).length === 1)
    const [letter] = await bus.deadLetters.list()
    expect(letter).toMatchObject({ attempts: 3 })
    expect(letter?.failures[0]).toMatchObject({ name: 'DatabaseError', code: 'BUS_DATABASE_ERROR' })
    const delivered = payloads.length - 1
    await until('the others are delivered', async () => (await countEffects(database)).receipts === delivered)
    expect(await countEffects(database)).toEqual({
      receipts: delivered,
      effects: delivered,
      distinct: delivered,
    })
    expect(await database.count('select count(*) from bus.deliveries where attempts <> 1')).toBe(0)
  },
)

test.each([1, 5])('an event that comes again in a job of %i runs no handler', async (size) => {
  const database = await openDatabase()
  const bus = testBus(database.url)
  const runs: unknown[] = []
  subscribe(bus, async (event, { tx }) => {
    runs.push(event.payload)
    await writeEffect(tx, event)
  })
  const ids = await publish(bus, database, numbers(size))
  await bus.start()
  await until('all are delivered', async () => (await countEffects(database)).receipts === size)
  const boss = await openBoss(database.url)
  await boss.insert('bus.once', [{ data: { eventIds: ids } }])
  // One that is new, to know when the copies are done.
  await publish(bus, database, ['new'])
  await until('the new one is delivered', async () => (await countEffects(database)).receipts === size + 1)
  await until('the copies are done', async () => everythingIsSettled(database))
  expect(runs).toHaveLength(size + 1)
  expect(await countEffects(database)).toEqual({ receipts: size + 1, effects: size + 1, distinct: size + 1 })
})

test('two workers that run the handler for one event at the same time leave one effect', async () => {
  const database = await openDatabase()
  const ready = [Promise.withResolvers<void>(), Promise.withResolvers<void>()] as const
  const buses = ready.map(({ resolve }, i) => {
    const bus = testBus(database.url)
    subscribe(
      bus,
      async (event, { tx }) => {
        await writeEffect(tx, event)
        if (event.payload !== 'shared') return
        resolve()
        await ready[1 - i]?.promise
      },
      { concurrency: 1 },
    )
    return bus
  })
  const [bus] = buses as [PaymentBus]
  const [first, shared] = await publish(bus, database, ['first', 'shared', 'last'])
  const boss = await openBoss(database.url)
  await Promise.all(buses.map(async (each) => each.start()))
  // The second of the two jobs with the event, as a replay would make one.
  await boss.insert('bus.once', [{ data: { eventIds: [shared, first] } }])
  await until('all are delivered', async () => (await countEffects(database)).receipts === 3)
  await until('both jobs are done', async () => everythingIsSettled(database))
  expect(await countEffects(database)).toEqual({ receipts: 3, effects: 3, distinct: 3 })
  expect(await bus.deadLetters.list()).toEqual([])
})

test('a worker whose claim another one has taken cannot commit any more', async () => {
  const database = await openDatabase()
  const logger = recordingLogger()
  const bus = testBus(database.url, { logger })
  const held = Promise.withResolvers<void>()
  const release = Promise.withResolvers<void>()
  const attempts: number[] = []
  subscribe(bus, async (event, { tx, attempt }) => {
    await writeEffect(tx, event)
    attempts.push(attempt)
    if (attempt > 1) return
    held.resolve()
    await release.promise
  })
  await publish(bus, database, ['n'])
  await bus.start()
  await held.promise
  // What claiming it again does, without the worker knowing; nobody is heard of since.
  await database.rows(
    `update pgboss.job set retry_count = 1, heartbeat_on = now() - interval '1 hour' where name = 'bus.once'`,
  )
  release.resolve()
  await until('the late commit is refused', () =>
    logger.lines.some(
      ({ message }) => message === 'another worker has taken a job over: its handlers are aborted',
    ),
  )
  await until('it is delivered by another attempt', async () => (await countEffects(database)).receipts === 1)
  expect(attempts).toEqual([1, 3])
  expect(await countEffects(database)).toEqual({ receipts: 1, effects: 1, distinct: 1 })
})

test('a worker that takes a job over ends the transaction of the one before', async () => {
  const database = await openDatabase()
  await database.rows('create table counters (n int)')
  await database.rows('insert into counters values (0)')
  const held = Promise.withResolvers<void>()
  const release = Promise.withResolvers<void>()
  const late = Promise.withResolvers<unknown>()
  const first = testBus(database.url)
  subscribe(
    first,
    async (event, { tx }) => {
      await writeEffect(tx, event)
      await tx.execute(sql`update counters set n = n + 1`)
      held.resolve()
      await release.promise
      late.resolve(await writeEffect(tx, event).catch((error: unknown) => error))
    },
    { concurrency: 1 },
  )
  await publish(first, database, ['n'])
  await first.start()
  await held.promise
  // The first one's own process is not to take it: it has no room for another event.
  await database.rows(
    `update pgboss.job set heartbeat_on = now() - interval '1 hour' where name = 'bus.once'`,
  )
  const heir = testBus(database.url)
  subscribe(heir, async (event, { tx }) => {
    await writeEffect(tx, event)
    await tx.execute(sql`update counters set n = n + 1`)
  })
  await heir.start()
  await until('the heir has delivered', async () => (await countEffects(database)).receipts === 1)
  release.resolve()
  expect(await late.promise).toBeInstanceOf(Error)
  await until('all is settled', async () => everythingIsSettled(database))
  expect(await countEffects(database)).toEqual({ receipts: 1, effects: 1, distinct: 1 })
  expect(await database.rows('select n from counters')).toEqual([{ n: 1 }])
})

test('a connection that is lost under a handler costs no attempt', async () => {
  const database = await openDatabase()
  const bus = testBus(database.url)
  const runs: unknown[] = []
  subscribe(bus, async (event, { tx }) => {
    await writeEffect(tx, event)
    runs.push(event.payload)
    if (event.payload !== 'unlucky' || runs.filter((run) => run === 'unlucky').length > 1) return
    await database.rows(`select pg_terminate_backend(pid) from pg_stat_activity
      where starts_with(application_name, 'bossbus:') and datname = current_database()`)
  })
  await publish(bus, database, ['a', 'unlucky', 'b'])
  await publish(bus, database, ['c'])
  await bus.start()
  await until('all are delivered', async () => (await countEffects(database)).receipts === 4)
  await until('all is settled', async () => everythingIsSettled(database))
  expect(await countEffects(database)).toEqual({ receipts: 4, effects: 4, distinct: 4 })
  expect(await database.rows('select distinct attempts from bus.deliveries')).toEqual([{ attempts: 1 }])
})

test('an event that loses its connection every time is a failed attempt all the same', async () => {
  const database = await openDatabase()
  const bus = testBus(database.url)
  subscribe(bus, async (event, { tx }) => {
    await writeEffect(tx, event)
    if (event.payload === 'poison') await tx.execute(sql`select pg_terminate_backend(pg_backend_pid())`)
  })
  await publish(bus, database, ['a', 'poison', 'b'])
  await bus.start()
  await until('the dead letter is there', async () => (await bus.deadLetters.list()).length === 1)
  await until('the others are delivered', async () => (await countEffects(database)).receipts === 2)
  expect(await database.rows('select what from effects order by 1')).toEqual([{ what: 'a' }, { what: 'b' }])
  expect((await bus.deadLetters.list())[0]).toMatchObject({ attempts: 3 })
})

test('handlers that deadlock with each other are run again, with no attempt counted', async () => {
  const database = await openDatabase()
  await database.rows('create table accounts (id int primary key, n int)')
  await database.rows('insert into accounts values (1, 0), (2, 0)')
  const bus = testBus(database.url)
  const locked = new Map<unknown, () => void>()
  const bothHaveOne = Promise.all(
    ['ab', 'ba'].map(async (which) => new Promise<void>((resolve) => locked.set(which, resolve))),
  )
  const add = (id: number) => sql`update accounts set n = n + 1 where id = ${id}`
  subscribe(
    bus,
    async (event, { tx }) => {
      await writeEffect(tx, event)
      const [from, to] = event.payload === 'ab' ? [1, 2] : [2, 1]
      await tx.execute(add(from))
      locked.get(event.payload)?.()
      await bothHaveOne
      await tx.execute(add(to))
    },
    { batchSize: 1 },
  )
  await publish(bus, database, ['ab', 'ba'])
  await bus.start()
  await until('both are delivered', async () => (await countEffects(database)).receipts === 2)
  expect(await countEffects(database)).toEqual({ receipts: 2, effects: 2, distinct: 2 })
  expect(await database.rows('select distinct n from accounts')).toEqual([{ n: 2 }])
  expect(await database.rows('select distinct attempts from bus.deliveries')).toEqual([{ attempts: 1 }])
})

test('ctx.publish joins the transaction: an event of a failed attempt was never published', async () => {
  const database = await openDatabase()
  const bus = testBus(database.url)
  subscribe(
    bus,
    async (event, { tx, attempt, publish: publishCaused }) => {
      const payload = { paymentId: `${String(event.payload)} ${attempt}` }
      await publishCaused({ type: 'payment.refunded', tenantId: 'a', payload })
      await writeEffect(tx, event)
      // With a transaction in front it goes with that one.
      await database.db.transaction(async (other) => {
        await publishCaused(other, { type: 'payment.refunded', tenantId: 'other', payload })
      })
      expect(
        await database.count(`select count(*) from bus.events where tenant_id = 'other'`),
      ).toBeGreaterThan(0)
      if (attempt === 1) throw new Error('once more')
    },
    { batchSize: 1 },
  )
  const [id] = await publish(bus, database, ['n'])
  await bus.start()
  await until('it is delivered', async () => (await countEffects(database)).receipts === 1)
  const published = `select payload->>'paymentId' as id, causation_id, correlation_id from bus.events
    where type = 'payment.refunded' and tenant_id = $1 order by id`
  expect(await database.rows(published, ['a'])).toEqual([{ id: 'n 2', causation_id: id, correlation_id: id }])
  expect(await database.rows(published, ['other'])).toHaveLength(2)
})

test('a commit by hand is refused; the next attempts are like any other', async () => {
  const database = await openDatabase()
  const bus = testBus(database.url)
  const codes: unknown[] = []
  subscribe(bus, async (event, { tx, attempt }) => {
    await writeEffect(tx, event)
    if (attempt > 2) return
    const statement = attempt === 1 ? sql`/* by hand */ commit` : sql`ROLLBACK`
    await tx.execute(statement).catch((error: unknown) => {
      codes.push((error as { cause?: { code?: string } }).cause?.code)
      throw error
    })
  })
  await publish(bus, database, ['n'])
  await bus.start()
  await until('it is delivered', async () => (await countEffects(database)).receipts === 1)
  expect(codes).toEqual(['BUS_HANDLER_TRANSACTION_ENDED', 'BUS_HANDLER_TRANSACTION_ENDED'])
  expect(await countEffects(database)).toEqual({ receipts: 1, effects: 1, distinct: 1 })
})

test.each(['select 1; commit', 'select 1; commit; begin', 'select 1; rollback'])(
  'a transaction ended in a way that is not seen beforehand (%s) sends the event to the dead letters',
  async (text) => {
    const database = await openDatabase()
    const bus = testBus(database.url)
    let runs = 0
    subscribe(bus, async (_event, { tx }) => {
      runs += 1
      await tx.execute(sql.raw(text))
    })
    await publish(bus, database, ['n'])
    await bus.start()
    await until('the dead letter is there', async () => (await bus.deadLetters.list()).length === 1)
    expect((await bus.deadLetters.list())[0]?.failures[0]).toMatchObject({
      code: 'BUS_HANDLER_TRANSACTION_ENDED',
    })
    expect(runs).toBe(1)
    expect(await countEffects(database)).toMatchObject({ receipts: 0 })
  },
)

test('ctx.tx is of no use once its handler is done', async () => {
  const database = await openDatabase()
  const bus = testBus(database.url)
  let late: Promise<unknown> | undefined
  subscribe(bus, async (event, { tx }) => {
    await writeEffect(tx, event)
    late = until('the handler is done', async () => (await countEffects(database)).receipts === 1).then(
      async () =>
        writeEffect(tx, event).catch((error: unknown) => (error as { cause: { code: string } }).cause.code),
    )
  })
  await publish(bus, database, ['n'])
  await bus.start()
  await until('it is delivered', async () => (await countEffects(database)).receipts === 1)
  expect(await late).toBe('BUS_HANDLER_TRANSACTION_ENDED')
  expect(await countEffects(database)).toEqual({ receipts: 1, effects: 1, distinct: 1 })
})

test('stop lets the running handler commit, and hands back what was not begun', async () => {
  const database = await openDatabase()
  const first = testBus(database.url)
  const held = Promise.withResolvers<void>()
  const release = Promise.withResolvers<void>()
  subscribe(
    first,
    async (event, { tx }) => {
      await writeEffect(tx, event)
      if (event.payload !== 1) return
      held.resolve()
      await release.promise
    },
    { concurrency: 1 },
  )
  await publish(first, database, numbers(5))
  await first.start()
  await held.promise
  const stopping = first.stop({ graceMs: 10_000 })
  release.resolve()
  await stopping
  expect(await countEffects(database)).toEqual({ receipts: 2, effects: 2, distinct: 2 })

  const attempts: number[] = []
  const second = testBus(database.url)
  subscribe(second, async (event, { tx, attempt }) => {
    attempts.push(attempt)
    await writeEffect(tx, event)
  })
  await second.start()
  await until('the rest is delivered', async () => (await countEffects(database)).receipts === 5)
  expect(attempts).toEqual([1, 1, 1])
  expect(await countEffects(database)).toEqual({ receipts: 5, effects: 5, distinct: 5 })
})

test.each(['stops at its signal', 'does not stop'])(
  'after the grace period a handler that %s is rolled back, with no attempt counted',
  async (how) => {
    const database = await openDatabase()
    const first = testBus(database.url)
    const held = Promise.withResolvers<void>()
    subscribe(first, async (event, { tx, signal }) => {
      await writeEffect(tx, event)
      if (event.payload !== 'stuck') return
      held.resolve()
      await new Promise((_resolve, reject) => {
        if (how === 'stops at its signal')
          signal.addEventListener('abort', () => reject(signal.reason as Error))
      })
    })
    await publish(first, database, ['early', 'stuck'])
    await first.start()
    await held.promise
    await first.stop({ graceMs: 50 })
    // On a slow machine the early one may have been committed before the stuck one began; else it shares its transaction.
    const { receipts: committed } = await countEffects(database)
    expect(how === 'stops at its signal' ? [1] : [0, 1]).toContain(committed)
    expect(await countEffects(database)).toEqual({
      receipts: committed,
      effects: committed,
      distinct: committed,
    })
    expect(await database.rows(`select 1 from effects where what = 'stuck'`)).toEqual([])

    const attempts: number[] = []
    const second = testBus(database.url)
    subscribe(second, async (event, { tx, attempt }) => {
      attempts.push(attempt)
      await writeEffect(tx, event)
    })
    await second.start()
    await until('both are delivered', async () => (await countEffects(database)).receipts === 2)
    expect(attempts).toEqual(Array.from({ length: 2 - committed }, () => 1))
    expect(await countEffects(database)).toEqual({ receipts: 2, effects: 2, distinct: 2 })
  },
)

test('slow handlers of one batch run beside each other', async () => {
  const database = await openDatabase()
  const bus = testBus(database.url)
  let running = 0
  const fourRun = Promise.withResolvers<void>()
  subscribe(
    bus,
    async (event, { tx }) => {
      running += 1
      if (running === 4) fourRun.resolve()
      await writeEffect(tx, event)
      await fourRun.promise
    },
    { concurrency: 4 },
  )
  await publish(bus, database, numbers(8))
  await bus.start()
  await until('all are delivered', async () => (await countEffects(database)).receipts === 8)
  await until('the job is done', async () => everythingIsSettled(database))
  expect(await countEffects(database)).toEqual({ receipts: 8, effects: 8, distinct: 8 })
})

test('handlers that hold every connection keep neither the bus nor another subscription waiting', async () => {
  const database = await openDatabase()
  const bus = createBus({
    database: { connectionString: database.url, max: 11 },
    events: paymentEvents,
    source: 'payment-service',
    logger: recordingLogger(),
  })
  onTestFinished(async () => bus.stop({ graceMs: 1000 }))
  const release = Promise.withResolvers<void>()
  let running = 0
  subscribe(
    bus,
    async (event, { tx }) => {
      running += 1
      await writeEffect(tx, event)
      await release.promise
    },
    { concurrency: 50, batchSize: 1 },
  )
  let others = 0
  bus.subscribe({ name: 'plain', events: ['payment.refunded'], handler: () => void (others += 1) })
  bus.subscribe({
    name: 'once-too',
    events: ['payment.refunded'],
    mode: 'exactly-once',
    handler: async (event, { tx }) => {
      await writeEffect(tx, { id: event.id, payload: 'too' })
      others += 1
    },
  })
  await publish(bus, database, numbers(60))
  await bus.start()
  // One of the five that are for handlers is kept for the other subscription.
  await until('every connection is taken', () => running === 4)
  await bus.tryPublish({ type: 'payment.refunded', tenantId: 'a', payload: { paymentId: 'p' } })
  await until('the others go on', () => others === 2)
  expect(await bus.health()).toMatchObject({ ok: true })
  expect(running).toBe(4)
  release.resolve()
  await until('all are delivered', async () => (await countEffects(database)).receipts === 62)
  expect(await countEffects(database)).toEqual({ receipts: 62, effects: 61, distinct: 61 })
})

test('the parameters of a statement that failed are neither logged nor kept', async () => {
  const database = await openDatabase()
  const logger = recordingLogger()
  const bus = testBus(database.url, { logger })
  subscribe(
    bus,
    async (event, { tx }) => {
      await tx.execute(sql`insert into effects values (${event.id}, ${event.payload}, 1)`)
    },
    { retry: { maxAttempts: 1 } },
  )
  await publish(bus, database, [canary])
  await bus.start()
  await until('the dead letter is there', async () => (await bus.deadLetters.list()).length === 1)
  const letters = await bus.deadLetters.list()
  expect(letters[0]?.failures[0]).toMatchObject({
    code: '42601',
    message: expect.stringContaining('INSERT has more') as string,
  })
  expect(JSON.stringify([letters, logger.lines])).not.toMatch(traceOfCanary)
  expect(shownBy(new Error(canary))).toMatch(traceOfCanary)
})
