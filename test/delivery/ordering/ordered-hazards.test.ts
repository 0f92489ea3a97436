import { randomUUID } from 'node:crypto'
import { expect, test } from 'vitest'
import { testBus, type PaymentBus } from '../../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'
import { openBoss, takeAndDie } from '../../support/queues.ts'
import { openSession } from '../../support/session.ts'

const note = (orderingKey: string, payload: number) =>
  ({ type: 'note', tenantId: 'acme', orderingKey, payload }) as const

const quick = { maxAttempts: 3, delaySeconds: 0, backoff: false }

async function publish(
  bus: PaymentBus,
  { db }: TestDatabase,
  payloads: readonly number[],
): Promise<string[]> {
  const published = await db.transaction(async (tx) =>
    bus.publishMany(
      tx,
      payloads.map((payload) => note('k', payload)),
    ),
  )
  return published.map(({ id }) => id)
}

const receipts = async ({ count }: TestDatabase): Promise<number> =>
  count('select count(*) from bus.deliveries')

const key = (subscription: string) => ({ subscription, tenantId: 'acme', orderingKey: 'k' })

/** Registers an ordered subscription and hands events over to it with nobody there to deliver them. */
async function handOver(
  database: TestDatabase,
  payloads: readonly number[],
  options: { readonly batchSize?: number; readonly maxAttempts?: number } = {},
): Promise<string[]> {
  const { batchSize, maxAttempts = 3 } = options
  const first = testBus(database.url)
  first.subscribe({
    name: 'heir',
    events: ['note'],
    ordered: true,
    batchSize,
    retry: { ...quick, maxAttempts },
    handler: () => {},
  })
  await first.start()
  await first.stop()
  const relayOnly = testBus(database.url)
  const ids = await publish(relayOnly, database, payloads)
  await relayOnly.start()
  await until(
    'the job is there',
    async () => (await database.count(`select count(*) from pgboss.job where name = 'bus.heir'`)) === 1,
  )
  return ids
}

test('events of a key whose worker died over several of them go on one by one, the first with an attempt behind it', async () => {
  const database = await createTestDatabase()
  await handOver(database, [1, 2, 3, 4])
  const [taken] = await takeAndDie(database.url, 'bus.heir')
  expect(taken?.eventIds).toHaveLength(4)
  // Its receipt was written before the worker died.
  await database.rows(
    `insert into bus.receipts (subscription_id, event_id, attempts, duration_ms) select id, $1, 1, 0 from bus.subscriptions where name = 'heir'`,
    [taken?.eventIds[0]],
  )
  const seen: unknown[] = []
  const sizes: unknown[] = []
  const heir = testBus(database.url)
  heir.subscribe({
    name: 'heir',
    events: ['note'],
    ordered: true,
    retry: quick,
    handler: async ({ payload }, { attempt }) => {
      seen.push([payload, attempt])
      const [job] = await database.rows(
        `select jsonb_array_length(data->'eventIds') as size from pgboss.job where name = 'bus.heir' and state = 'active'`,
      )
      sizes.push(job?.['size'])
    },
  })
  await heir.start()
  await publish(heir, database, [5, 6])
  await until('all are delivered', async () => (await receipts(database)) === 6)
  expect(seen).toEqual([
    [2, 2],
    [3, 1],
    [4, 1],
    [5, 1],
    [6, 1],
  ])
  expect(sizes).toEqual([1, 1, 1, 2, 2])
})

test('a job that pg-boss gave up on blocks its key, until that is released', async () => {
  const database = await createTestDatabase()
  const [id] = await handOver(database, [1, 2], { batchSize: 1, maxAttempts: 1 })
  // As a job that somebody redrove with other options.
  await database.rows(`update pgboss.job set retry_limit = 0 where name = 'bus.heir'`)
  await takeAndDie(database.url, 'bus.heir')
  const seen: unknown[] = []
  const heir = testBus(database.url)
  heir.subscribe({
    name: 'heir',
    events: ['note'],
    ordered: true,
    retry: { ...quick, maxAttempts: 1 },
    handler: ({ payload }, { attempt }) => void seen.push([payload, attempt]),
  })
  await heir.start()
  await until('the key is blocked', async () => (await heir.blockedKeys.list()).length === 1)
  expect(await heir.blockedKeys.list()).toMatchObject([
    {
      state: 'blocked',
      id,
      attempts: 1,
      waitingCount: 1,
      failures: [{ code: 'BUS_HANDLER_TIMEOUT' }],
    },
  ])
  expect(seen).toEqual([])
  expect(await heir.blockedKeys.release(key('heir'))).toBe(true)
  await until('both are delivered', async () => (await receipts(database)) === 2)
  expect(seen).toEqual([
    [1, 2],
    [2, 1],
  ])
})

test.each(['deleted', 'cancelled', 'completed'])(
  "a key's job that was %s by hand is put back: only a receipt or a release lets a key go on",
  async (how) => {
    const database = await createTestDatabase()
    await handOver(database, [1, 2])
    const boss = await openBoss(database.url)
    const [job] = await boss.findJobs('bus.heir')
    if (how === 'deleted') await boss.deleteJob('bus.heir', job?.id ?? '')
    else if (how === 'cancelled') await boss.cancel('bus.heir', job?.id ?? '')
    else await boss.complete('bus.heir', job?.id ?? '', null, { includeQueued: true })
    expect(await boss.findJobs('bus.heir', { queued: true })).toEqual([])
    const seen: unknown[] = []
    const heir = testBus(database.url)
    heir.subscribe({
      name: 'heir',
      events: ['note'],
      ordered: true,
      handler: ({ payload }) => void seen.push(payload),
    })
    await heir.start()
    await until('both are delivered', async () => (await receipts(database)) === 2)
    expect(seen).toEqual([1, 2])
  },
)

test('a worker presumed dead that finishes late does not let its key go on', async () => {
  const database = await createTestDatabase()
  const seen: string[] = []
  const gates = { a: Promise.withResolvers<void>(), b: Promise.withResolvers<void>() }
  const subscribe = (bus: PaymentBus, name: 'a' | 'b'): void => {
    bus.subscribe({
      name: 'zombie',
      events: ['note'],
      ordered: true,
      batchSize: 1,
      retry: quick,
      handler: async ({ payload }) => {
        seen.push(`${name} begins ${payload as number}`)
        if (payload === 1) await gates[name].promise
        seen.push(`${name} ends ${payload as number}`)
      },
    })
  }
  const a = testBus(database.url)
  subscribe(a, 'a')
  await a.start()
  await publish(a, database, [1, 2])
  await until('the first one has it', () => seen.length === 1)
  await database.rows(
    `update pgboss.job set heartbeat_on = now() - interval '1 hour' where name = 'bus.zombie' and state = 'active'`,
  )
  const b = testBus(database.url)
  subscribe(b, 'b')
  await b.start()
  await until('the second one has taken it over', () => seen.includes('b begins 1'))
  gates.a.resolve()
  await until('the late receipt is written', async () => (await receipts(database)) === 1)
  // Whoever would go on has had the time that it takes to deliver another key's event.
  await database.db.transaction(async (tx) => a.publish(tx, note('other', 7)))
  await until('the other key is delivered', async () => (await receipts(database)) === 2)
  expect(seen.filter((entry) => entry.endsWith(' 2'))).toEqual([])
  gates.b.resolve()
  await until('the key goes on', async () => (await receipts(database)) === 3)
  expect(seen.filter((entry) => !entry.endsWith(' 7'))).toEqual([
    'a begins 1',
    'b begins 1',
    'a ends 1',
    'b ends 1',
    expect.stringMatching(/^[ab] begins 2$/) as string,
    expect.stringMatching(/^[ab] ends 2$/) as string,
  ])
})

test.each([1, 100])(
  'what a stopping process hands back keeps its place, with no attempt counted (batches of %i)',
  async (batchSize) => {
    const database = await createTestDatabase()
    const begun = Promise.withResolvers<void>()
    const seen: unknown[] = []
    const first = testBus(database.url)
    first.subscribe({
      name: 'moving',
      events: ['note'],
      ordered: true,
      batchSize,
      retry: quick,
      handler: async ({ payload }, { attempt, signal }) => {
        if (payload === 2 && attempt === 1) throw new Error('once')
        if (payload === 2) {
          begun.resolve()
          await new Promise((_resolve, reject) => {
            signal.addEventListener('abort', () => reject(signal.reason as Error))
          })
        }
        seen.push([payload, attempt])
      },
    })
    await publish(first, database, [1, 2, 3])
    await first.start()
    await begun.promise
    await publish(first, database, [4, 5])
    await until(
      'they wait behind',
      async () => (await database.count('select count(*) from bus.ordered_events')) === 4,
    )
    await first.stop({ graceMs: 50 })
    const second = testBus(database.url)
    second.subscribe({
      name: 'moving',
      events: ['note'],
      ordered: true,
      batchSize,
      retry: quick,
      handler: ({ payload }, { attempt }) => void seen.push([payload, attempt]),
    })
    await second.start()
    await until('all are delivered', async () => (await receipts(database)) === 5)
    expect(seen).toEqual([
      [1, 1],
      [2, 2],
      [3, 1],
      [4, 1],
      [5, 1],
    ])
  },
)

test('a stopped batch of a key goes on behind the events that it finished', async () => {
  const database = await createTestDatabase()
  const begun = Promise.withResolvers<void>()
  const release = Promise.withResolvers<void>()
  const seen: unknown[] = []
  const subscribe = (bus: PaymentBus, handled: () => void): void => {
    bus.subscribe({
      name: 'moving',
      events: ['note'],
      ordered: true,
      handler: async ({ payload }, { attempt }) => {
        if (payload === 2) {
          handled()
          await release.promise
        }
        seen.push([payload, attempt])
      },
    })
  }
  const first = testBus(database.url)
  subscribe(first, begun.resolve)
  await publish(first, database, [1, 2, 3, 4])
  await first.start()
  await begun.promise
  const stopping = first.stop({ graceMs: 10_000 })
  release.resolve()
  await stopping
  expect(seen).toHaveLength(2)
  const second = testBus(database.url)
  subscribe(second, () => {})
  await second.start()
  await until('all are delivered', async () => (await receipts(database)) === 4)
  expect(seen).toEqual([1, 2, 3, 4].map((payload) => [payload, 1]))
})

test('while one relay hands over events of a key, no other takes later ones; events without a key pass', async () => {
  const database = await createTestDatabase()
  const { count } = database
  const buses = [testBus(database.url), testBus(database.url)] as const
  const seen: unknown[] = []
  for (const bus of buses) {
    bus.subscribe({
      name: 'ordered',
      events: ['note'],
      ordered: true,
      handler: ({ payload }) => void seen.push(payload),
    })
    await bus.start()
  }
  const [bus] = buses
  // Held back in the middle of its claim, by a lock on the row that it has to take.
  const session = await openSession(database)
  await session.rows('begin')
  await session.rows(
    `insert into bus.ordered_keys (subscription_id, key_hash, tenant_id, ordering_key)
     select id, bus.ordering_key_hash('acme', 'k'), 'acme', 'k' from bus.subscriptions`,
  )
  // A claim waits for a lock for 100 ms only, and once: the server itself watches for it.
  const watcher = await openSession(database)
  const watching = watcher.rows(
    `do $$ begin
       for n in 1..12000 loop
         exit when exists (select from pg_locks l join pg_stat_activity a using (pid)
           where not l.granted and a.datname = current_database() and a.query like '%enqueue_ordered%');
         perform pg_sleep(0.005), pg_stat_clear_snapshot();
         if n = 12000 then raise 'no relay has waited in its claim'; end if;
       end loop;
     end $$`,
  )
  await publish(bus, database, [1])
  await watching
  await publish(bus, database, [2])
  await database.db.transaction(async (tx) =>
    bus.publish(tx, { type: 'note', tenantId: 'acme', payload: 'free' }),
  )
  await until('the free one is delivered', () => seen.length === 1)
  expect(seen).toEqual(['free'])
  expect(await count('select count(*) from bus.ordered_events')).toBe(0)
  await session.rows('rollback')
  await until('all are delivered', async () => (await receipts(database)) === 3)
  expect(seen).toEqual(['free', 1, 2])
})

test('an event that commits late is handed over before those that were published after its commit', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const seen: unknown[] = []
  bus.subscribe({
    name: 'ordered',
    events: ['note'],
    ordered: true,
    handler: ({ payload }) => void seen.push(payload),
  })
  await bus.start()
  const commit = Promise.withResolvers<void>()
  const published = Promise.withResolvers<void>()
  const late = database.db.transaction(async (tx) => {
    await bus.publish(tx, note('k', 1))
    published.resolve()
    await commit.promise
  })
  await published.promise
  // More than one claim of the same key goes by meanwhile.
  await publish(
    bus,
    database,
    Array.from({ length: 2500 }, (_, i) => 1000 + i),
  )
  await until('they are delivered', async () => (await receipts(database)) === 2500)
  commit.resolve()
  await late
  await publish(bus, database, [2, 3])
  await until('all are delivered', async () => (await receipts(database)) === 2503)
  expect(seen.slice(0, 2500)).toEqual(Array.from({ length: 2500 }, (_, i) => 1000 + i))
  expect(seen.slice(2500)).toEqual([1, 2, 3])
})

test('scheduled events of a key come when they are due, in the order of their times, behind what was there before', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const seen: unknown[] = []
  bus.subscribe({
    name: 'ordered',
    events: ['note'],
    ordered: true,
    handler: ({ payload }) => void seen.push(payload),
  })
  const inMs = (ms: number): Date => new Date(Date.now() + ms)
  await database.db.transaction(async (tx) =>
    bus.publishMany(tx, [
      { ...note('k', 4), availableAt: inMs(900) },
      { ...note('k', 3), availableAt: inMs(700) },
      { ...note('k', 9), availableAt: inMs(3_600_000) },
      note('k', 1),
      note('k', 2),
    ]),
  )
  await bus.start()
  await until('the others are delivered', () => seen.length >= 2)
  expect(seen.slice(0, 2)).toEqual([1, 2])
  await until('the due ones are delivered', async () => (await receipts(database)) === 4)
  await publish(bus, database, [5])
  await until('the next one is delivered', async () => (await receipts(database)) === 5)
  expect(seen).toEqual([1, 2, 3, 4, 5])
  expect(await database.count('select count(*) from bus.outbox')).toBe(1)
})

test("pg-boss's redrive of a blocked event lets its key go on, in order", async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const seen: unknown[] = []
  let healed = false
  bus.subscribe({
    name: 'blocking',
    events: ['note'],
    ordered: true,
    retry: { maxAttempts: 1 },
    handler: ({ payload }) => {
      if (payload === 1 && !healed) throw new Error('never')
      seen.push(payload)
    },
  })
  await bus.start()
  await publish(bus, database, [1, 2])
  await until('the key is blocked', async () => (await bus.blockedKeys.list()).length === 1)
  healed = true
  const boss = await openBoss(database.url)
  expect(await boss.redrive('bus.blocking.dead')).toBe(1)
  await until('both are delivered', async () => (await receipts(database)) === 2)
  expect(seen).toEqual([1, 2])
  expect(await bus.blockedKeys.list()).toEqual([])
})

test('a released key whose event fails again is blocked again, with every attempt known', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({
    name: 'stubborn',
    events: ['note'],
    ordered: true,
    retry: { maxAttempts: 2, delaySeconds: 0, backoff: false },
    handler: (_event, { attempt }) => {
      throw new Error(`failure ${attempt}`)
    },
  })
  await bus.start()
  const [id] = await publish(bus, database, [1])
  await until('the key is blocked', async () => (await bus.blockedKeys.list()).length === 1)
  await bus.blockedKeys.release(key('stubborn'))
  await until('it is blocked again', async () => (await bus.blockedKeys.list())[0]?.attempts === 4)
  const [blocked] = await bus.blockedKeys.list()
  expect(blocked).toMatchObject({ id, waitingCount: 0 })
  expect(blocked?.failures.map(({ message }) => message)).toEqual([1, 2, 3, 4].map((n) => `failure ${n}`))
  expect(await bus.deadLetters.list()).toMatchObject([{ id, attempts: 4 }])
})

test('a release that skips leaves the failed event behind as a dead letter', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const seen: unknown[] = []
  bus.subscribe({
    name: 'skippable',
    events: ['note'],
    ordered: true,
    retry: { maxAttempts: 1 },
    handler: ({ payload }) => {
      if (payload === 1) throw new Error('never')
      seen.push(payload)
    },
  })
  await bus.start()
  const [id] = await publish(bus, database, [1, 2, 3])
  await until('the key is blocked', async () => (await bus.blockedKeys.list()).length === 1)
  // From a process that only operates.
  const operator = testBus(database.url)
  expect(await operator.blockedKeys.release({ ...key('skippable'), skipFailed: true })).toBe(true)
  await until('the others are delivered', async () => (await receipts(database)) === 2)
  expect(seen).toEqual([2, 3])
  expect(await bus.deadLetters.list()).toMatchObject([{ id, blockedKey: undefined }])
  expect(await bus.blockedKeys.list()).toEqual([])
})

test('keys of any length and any characters are told apart', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const seen: unknown[] = []
  bus.subscribe({
    name: 'ordered',
    events: ['note'],
    ordered: true,
    handler: ({ payload }) => void seen.push(payload),
  })
  await bus.start()
  // As they were stored before there was a limit.
  await database.rows('alter table bus.events drop constraint events_text_lengths')
  const long = Array.from({ length: 400 }, () => randomUUID()).join('')
  for (const orderingKey of [long, `${long}x`, '', 'ab', 'b'])
    await database.rows(
      `insert into bus.events (tenant_id, ordering_key, type, source, payload) values ('a', $1, 'note', 'psql', '1')`,
      [orderingKey],
    )
  await database.rows(
    `insert into bus.events (tenant_id, ordering_key, type, source, payload) values ('aa', 'b', 'note', 'psql', '1'), ('a', 'ab', 'note', 'psql', '2')`,
  )
  await until('all are delivered', async () => (await receipts(database)) === 7)
  expect(seen).toHaveLength(7)
  expect(
    await database.rows(
      `select count(distinct bus.ordering_key_hash(tenant_id, ordering_key))::int as keys from bus.events`,
    ),
  ).toEqual([{ keys: 6 }])
})
