import { expect, test } from 'vitest'
import { recordingLogger, testBus, type PaymentBus } from '../../support/bus.ts'
import { roomFor } from '../../support/slowness.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'
import { openSession } from '../../support/session.ts'

/** While somebody holds a lock, all that does not need it goes on: within this, on a machine that is busy with other things. */
const boundMs = 3000

const subscriptions = ['plain', 'other', 'filtered', 'ordered'] as const
type Name = (typeof subscriptions)[number]

interface Stage {
  readonly bus: PaymentBus
  readonly database: TestDatabase
  /** What each subscription got, in the order it got it: `key number`. */
  readonly seen: Readonly<Record<Name, string[]>>
  readonly lines: ReturnType<typeof recordingLogger>['lines']
}

/** One process with all its subscriptions, and a key `held` that is there: its first event waits for `finish`. */
async function openStage(): Promise<Stage & { readonly finish: () => void }> {
  const database = await createTestDatabase()
  const logger = recordingLogger()
  const bus = testBus(database.url, { logger })
  const seen: Record<Name, string[]> = { plain: [], other: [], filtered: [], ordered: [] }
  const finished = Promise.withResolvers<void>()
  for (const name of subscriptions) {
    bus.subscribe({
      name,
      events: ['note'],
      ordered: name === 'ordered',
      ...(name === 'filtered' ? { where: '$.n >= 0' } : {}),
      handler: async ({ payload, orderingKey }) => {
        const { n } = payload as { n: number }
        if (name === 'ordered' && orderingKey === 'held' && n === 0) await finished.promise
        seen[name].push(`${orderingKey ?? ''} ${n}`)
      },
    })
  }
  await bus.start()
  await publish({ bus, database }, 0)
  await until(
    'the key is there',
    async () => (await database.count(`select count(*) from bus.ordered_keys`)) === 1,
  )
  await until('the first round is delivered', () => seen.plain.length === 4 && seen.other.length === 4)
  return { bus, database, seen, lines: logger.lines, finish: finished.resolve }
}

const keys = [undefined, 'held', 'free', 'freer'] as const

/** An event without a key and one of each, of tenants of their own. */
async function publish({ bus, database }: Pick<Stage, 'bus' | 'database'>, n: number): Promise<void> {
  for (const orderingKey of keys)
    await database.db.transaction(async (tx) =>
      bus.publish(tx, { type: 'note', tenantId: orderingKey ?? 'none', orderingKey, payload: { n } }),
    )
}

const rounds = [1, 2, 3, 4, 5, 6]

const countsOf = (seen: readonly string[]): Record<string, number> =>
  Object.fromEntries([...new Set(seen)].map((what) => [what, seen.filter((each) => each === what).length]))

interface Lock {
  readonly what: string
  readonly lock: string
  /** Which subscriptions wait for it with everything; `keys`: ordered ones with that key; `order`: all with all keys. */
  readonly stopped: readonly (Name | 'keys' | 'order')[]
  /** The handler of the key's first event is done while it is held. */
  readonly finishes?: true
}

const tableOf = (name: string): string =>
  `(select format('pgboss.%I', table_name) from pgboss.queue where name = '${name}')`

const lockTable = (table: string, mode: string): string =>
  `do $$ begin execute 'lock table ' || ${table} || ' in ${mode} mode'; end $$`

const locks: readonly Lock[] = [
  {
    what: 'the row of a key',
    lock: `select from bus.ordered_keys where ordering_key = 'held' for update`,
    stopped: ['keys'],
  },
  {
    what: 'the row of a key whose job is done meanwhile',
    lock: `select from bus.ordered_keys where ordering_key = 'held' for update`,
    stopped: ['keys'],
    finishes: true,
  },
  {
    what: 'the rows of all keys, and of their events',
    lock: `select from bus.ordered_keys k join bus.ordered_events e on e.key_id = k.id for update`,
    stopped: ['keys'],
  },
  {
    what: 'the row of a subscription',
    lock: `select from bus.subscriptions where name = 'plain' for update`,
    stopped: [],
  },
  {
    what: 'the row of a queue',
    lock: `select from pgboss.queue where name = 'bus.plain' for update`,
    stopped: ['plain'],
  },
  {
    what: 'the row of a dead-letter queue',
    lock: `select from pgboss.queue where name = 'bus.filtered.dead' for update`,
    stopped: ['filtered'],
  },
  {
    what: 'the row of the queue of an ordered subscription',
    lock: `select from pgboss.queue where name = 'bus.ordered' for update`,
    stopped: ['ordered'],
  },
  {
    what: 'the table of a queue, for writers',
    lock: lockTable(tableOf('bus.plain'), 'share'),
    stopped: ['plain'],
  },
  {
    what: 'the table of a queue, for all',
    lock: lockTable(tableOf('bus.plain'), 'access exclusive'),
    stopped: ['plain'],
  },
  {
    what: 'the jobs of a queue',
    lock: `select from pgboss.job where name = 'bus.plain' and state <> 'active' for update`,
    stopped: [],
  },
  {
    what: 'a partition of the log that nothing is published to',
    lock: `lock table bus.events_default in access exclusive mode`,
    stopped: [],
  },
  {
    what: 'the lock under which months are made',
    lock: `select pg_advisory_xact_lock(1651864320, 5)`,
    stopped: [],
  },
  {
    what: 'the lock under which subscriptions are registered',
    lock: `select pg_advisory_xact_lock(1651864320, 4)`,
    stopped: [],
  },
  {
    what: 'the lock on the order, by a relay that stands still',
    lock: `select pg_advisory_xact_lock(1651864320, 6)`,
    stopped: ['order'],
  },
]

test.each(locks)(
  'while somebody holds $what, all else is delivered, and what waits for it afterwards, once and in order',
  async ({ lock, stopped, finishes }) => {
    const stage = await openStage()
    const { database, seen } = stage
    const session = await openSession(database)
    await session.rows('begin')
    await session.rows(lock)
    if (finishes === true) stage.finish()
    for (const n of rounds) {
      await publish(stage, n)
      const publishedAt = performance.now()
      for (const name of subscriptions) {
        if (stopped.includes(name)) continue
        const expected = keys
          .filter((key) => key === undefined || !stopped.includes('order'))
          .filter((key) => name !== 'ordered' || key !== 'held')
          .map((key) => `${key ?? ''} ${n}`)
        // Without a lock on its key, too: the first event of the key is not done.
        await until(
          `${name} has got round ${n}`,
          () => expected.every((what) => seen[name].includes(what)),
          roomFor(boundMs) - (performance.now() - publishedAt),
        )
      }
    }
    for (const name of subscriptions.filter((each) => stopped.includes(each)))
      expect(seen[name].filter((what) => !what.endsWith(' 0'))).toEqual([])
    await session.rows('rollback')
    stage.finish()
    await until('every subscription has got everything', () =>
      subscriptions.every((name) => new Set(seen[name]).size === keys.length * (rounds.length + 1)),
    )
    await until(
      'nothing is left',
      async () => (await database.count('select count(*) from bus.outbox')) === 0,
    )
    for (const name of subscriptions)
      expect(new Set(Object.values(countsOf(seen[name])))).toEqual(new Set([1]))
    for (const key of ['held', 'free', 'freer'])
      expect(seen.ordered.filter((what) => what.startsWith(`${key} `))).toEqual(
        [0, ...rounds].map((n) => `${key} ${n}`),
      )
    expect((await stage.bus.health()).ok).toBe(true)
  },
)

/** Publishes by hand, without a bus that runs. */
const insert = async ({ rows }: TestDatabase, values: string): Promise<readonly Record<string, unknown>[]> =>
  rows(
    `insert into bus.events (id, tenant_id, type, source, ordering_key, payload, available_at) values ${values} returning id`,
  )

test('a scheduled event that is being cancelled keeps back its own key alone, in order', async () => {
  const { bus, database, seen, finish } = await openStage()
  finish()
  const [first] = await insert(
    database,
    `(bus.uuid_v7(), 'acme', 'note', 'sql', 'slow', '{"n": 1}', clock_timestamp() + interval '300 ms')`,
  )
  await insert(
    database,
    `(bus.uuid_v7(), 'acme', 'note', 'sql', 'slow', '{"n": 2}', clock_timestamp() + interval '301 ms'),
     (bus.uuid_v7(), 'acme', 'note', 'sql', 'quick', '{"n": 1}', clock_timestamp() + interval '302 ms')`,
  )
  const session = await openSession(database)
  await session.rows('begin')
  expect(await session.rows('select bus.cancel($1)', [first?.['id']])).toEqual([{ cancel: true }])
  await until('the other key has gone on', () => seen.ordered.includes('quick 1'), roomFor(boundMs))
  await publish({ bus, database }, 1)
  await until(
    'others go on',
    () => seen.ordered.includes('free 1') && seen.plain.includes(' 1'),
    roomFor(boundMs),
  )
  expect(seen.ordered.some((what) => what.startsWith('slow'))).toBe(false)
  await session.rows('rollback')
  await until(
    'it was not cancelled, and all is there',
    () => seen.ordered.includes('slow 2'),
    roomFor(boundMs),
  )
  expect(seen.ordered.filter((what) => what.startsWith('slow'))).toEqual(['slow 1', 'slow 2'])
})

test('rows of the outbox that somebody holds are handed over when they are free, though nobody rings', async () => {
  const { bus, database, seen, finish } = await openStage()
  finish()
  await until('the bus sleeps', async () => (await bus.health()).relay === 'sleeping')
  const session = await openSession(database)
  await session.rows('begin')
  // As one that publishes and locks its rows before anybody can see them.
  await session.rows(
    `insert into bus.events (tenant_id, type, source, ordering_key, payload)
     values ('acme', 'note', 'sql', null, '{"n": 7}'), ('acme', 'note', 'sql', 'k', '{"n": 7}')`,
  )
  await session.rows('commit; begin; select from bus.outbox for update')
  await publish({ bus, database }, 1)
  await until(
    'others go on',
    () => seen.ordered.includes('free 1') && seen.plain.includes(' 1'),
    roomFor(boundMs),
  )
  await session.rows('rollback')
  await until('they are there', () => seen.plain.includes(' 7') && seen.ordered.includes('k 7'))
  expect(seen.plain.filter((what) => what === ' 7')).toHaveLength(1)
})

test('what is held for a lock is handed over by whoever runs when it is gone, and nobody turns in circles meanwhile', async () => {
  const { bus, database, seen, finish, lines } = await openStage()
  const session = await openSession(database)
  await session.rows('begin')
  await session.rows(`select from pgboss.queue where name in ('bus.plain', 'bus.ordered') for update`)
  await publish({ bus, database }, 1)
  await publish({ bus, database }, 2)
  await until(
    'the others have them',
    () => seen.other.includes(' 2') && seen.filtered.includes('freer 2'),
    roomFor(boundMs),
  )
  expect(
    await database.rows('select subscription_id, count(*)::int from bus.outbox group by 1 order by 1'),
  ).toEqual([
    { subscription_id: 1, count: 8 },
    { subscription_id: 4, count: 8 },
  ])
  const transactions = async (): Promise<number> =>
    database.count(
      'select xact_commit + xact_rollback from pg_stat_database where datname = current_database()',
    )
  await until('the retries are slow', async () => {
    const before = await transactions()
    await new Promise((resolve) => setTimeout(resolve, 2000))
    return (await transactions()) - before < 60
  })
  await until(
    'it is said',
    () => lines.filter(({ message }) => message.startsWith('a lock blocks the events')).length === 2,
  )
  finish()
  await bus.stop()
  await session.rows('rollback')
  const heir = testBus(database.url)
  for (const name of subscriptions)
    heir.subscribe({
      name,
      events: ['note'],
      ordered: name === 'ordered',
      ...(name === 'filtered' ? { where: '$.n >= 0' } : {}),
      handler: ({ payload, orderingKey }) =>
        void seen[name].push(`${orderingKey ?? ''} ${(payload as { n: number }).n}`),
    })
  await heir.start()
  await until(
    'everything is there',
    () => new Set(seen.plain).size === 12 && new Set(seen.ordered).size === 12,
  )
  expect(seen.plain).toHaveLength(12)
  for (const key of ['held', 'free', 'freer'])
    expect(seen.ordered.filter((what) => what.startsWith(`${key} `))).toEqual(
      [0, 1, 2].map((n) => `${key} ${n}`),
    )
  expect(await database.count('select count(*) from bus.outbox')).toBe(0)
})

test('events in a partition of the log that somebody holds keep back nothing else', async () => {
  const { bus, database, seen, finish } = await openStage()
  finish()
  const lastMonth = `date_trunc('month', now() at time zone 'utc') - interval '15 days'`
  const [partition] = await database.rows(`select to_char(${lastMonth}, '"bus.events_"YYYY_MM') as name`)
  await bus.stop()
  // Its size is not known before it is read.
  await database.rows(
    `insert into bus.events (id, tenant_id, type, source, payload, created_at)
       select overlay(bus.uuid_v7_floor(moment)::text placing '7' from 15)::uuid, 'acme', 'note', 'sql',
         jsonb_build_object('n', 9, 'x', (select string_agg(md5(i::text), '') from generate_series(1, 1000) i)), moment
       from (select (${lastMonth}) at time zone 'utc' as moment) m`,
  )
  const session = await openSession(database)
  await session.rows('begin')
  await session.rows(`lock table ${String(partition?.['name'])} in access exclusive mode`)
  const heir = testBus(database.url)
  for (const name of ['plain', 'filtered'] as const)
    heir.subscribe({
      name,
      events: ['note'],
      ...(name === 'filtered' ? { where: '$.n >= 0' } : {}),
      handler: ({ payload, orderingKey }) =>
        void seen[name].push(`${orderingKey ?? ''} ${(payload as { n: number }).n}`),
    })
  await heir.start()
  for (const n of [1, 2, 3]) {
    await publish({ bus: heir, database }, n)
    await until(
      'others go on',
      () => seen.plain.includes(`free ${n}`) && seen.filtered.includes(`free ${n}`),
      roomFor(boundMs),
    )
  }
  await session.rows('rollback')
  await until('it is there', () => seen.plain.includes(' 9') && seen.filtered.includes(' 9'))
  expect(seen.plain.filter((what) => what === ' 9')).toHaveLength(1)
})
