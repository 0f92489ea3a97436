import { sql } from 'drizzle-orm'
import { drizzle as drizzleNodePostgres } from 'drizzle-orm/node-postgres'
import { drizzle as drizzlePostgresJs, PostgresJsSession } from 'drizzle-orm/postgres-js'
import pg from 'pg'
import postgres from 'postgres'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { DrizzleTransaction } from '../../../src/index.ts'
import { testBus } from '../../support/bus.ts'
import { createTestDatabase, until } from '../../support/database.ts'
import { asIfTransaction } from '../../support/transact.ts'

const note = (payload: unknown) => ({ type: 'note', tenantId: 'a', payload }) as const

/** A transaction that can be nested, and the first text of the first row of a statement in it. */
interface TestTransaction extends DrizzleTransaction {
  readonly nest: (work: (tx: DrizzleTransaction) => Promise<unknown>) => Promise<unknown>
}

type Transact = <T>(work: (tx: TestTransaction) => Promise<T>) => Promise<T>

function openPostgresJs(url: string, options: postgres.Options<Record<string, never>> = {}) {
  const client = postgres(url, { max: 3, onnotice: () => {}, ...options })
  onTestFinished(async () => client.end({ timeout: 1 }))
  return client
}

function openPool(url: string, max = 3): pg.Pool {
  const pool = new pg.Pool({ connectionString: url, max })
  pool.on('error', () => {})
  onTestFinished(async () => pool.end())
  return pool
}

/** Ways that lead to the server: the drivers that statements are sent to directly, and Drizzle's own `execute`. */
const ways: {
  name: string
  open: (url: string) => { transact: Transact; outside: DrizzleTransaction }
}[] = [
  {
    name: 'postgres.js',
    open: (url) => {
      const db = drizzlePostgresJs({ client: openPostgresJs(url) })
      return {
        transact: async (work) =>
          db.transaction(async (tx) => work(Object.assign(tx, { nest: tx.transaction.bind(tx) }))),
        outside: asIfTransaction(db),
      }
    },
  },
  {
    name: 'postgres.js with prepare: false',
    open: (url) => {
      const db = drizzlePostgresJs({ client: openPostgresJs(url, { prepare: false }) })
      return {
        transact: async (work) =>
          db.transaction(async (tx) => work(Object.assign(tx, { nest: tx.transaction.bind(tx) }))),
        outside: asIfTransaction(db),
      }
    },
  },
  {
    name: 'node-postgres',
    open: (url) => {
      const db = drizzleNodePostgres({ client: openPool(url) })
      return {
        transact: async (work) =>
          db.transaction(async (tx) => work(Object.assign(tx, { nest: tx.transaction.bind(tx) }))),
        outside: asIfTransaction(db),
      }
    },
  },
  {
    name: 'any other driver',
    open: (url) => {
      const db = drizzleNodePostgres({ client: openPool(url) })
      const executing = (handle: DrizzleTransaction): DrizzleTransaction => ({
        execute: (query) => handle.execute(query),
        rollback: () => handle.rollback(),
      })
      return {
        transact: async (work) =>
          db.transaction(async (tx) =>
            work({
              ...executing(tx),
              nest: async (inner) => tx.transaction(async (nested) => inner(executing(nested))),
            }),
          ),
        outside: executing(asIfTransaction(db)),
      }
    },
  },
]

describe.each(ways)('publish on $name', ({ open }) => {
  const payloads = 'select payload from bus.events order by payload'

  test('is refused outside a transaction, and goes through as the first statement of one', async () => {
    const { url, rows } = await createTestDatabase()
    const bus = testBus(url)
    const { transact, outside } = open(url)
    // Twice: the first time the driver asks about the statements, from then on it knows them.
    for (const turn of [1, 2]) {
      await expect(bus.publish(outside, note('outside'))).rejects.toMatchObject({
        code: 'BUS_NOT_IN_TRANSACTION',
      })
      await transact(async (tx) => bus.publish(tx, note(turn)))
    }
    await Promise.all([3, 4, 5, 6].map(async (turn) => transact(async (tx) => bus.publish(tx, note(turn)))))
    expect((await rows(payloads)).map(({ payload }) => payload)).toEqual([1, 2, 3, 4, 5, 6])
  })

  test('takes several events at once on one handle, before anything else was sent', async () => {
    const { url, rows, count } = await createTestDatabase()
    const bus = testBus(url)
    const { transact } = open(url)
    const publishAll = async (tx: DrizzleTransaction): Promise<unknown> =>
      Promise.all([1, 2, 3].map(async (n) => bus.publish(tx, { ...note(n), eventId: `e${n}` })))
    await transact(publishAll)
    expect((await rows(payloads)).map(({ payload }) => payload)).toEqual([1, 2, 3])
    await expect(
      transact(async (tx) => {
        await Promise.all([4, 5].map(async (n) => bus.publish(tx, note(n))))
        throw new Error('business says no')
      }),
    ).rejects.toThrow('business says no')
    expect(await count('select count(*) from bus.events')).toBe(3)
    expect(await count('select count(*) from bus.outbox')).toBe(3)
  })

  test('joins nested transactions, and goes with one that is rolled back', async () => {
    const { url, rows } = await createTestDatabase()
    const bus = testBus(url)
    const { transact } = open(url)
    await transact(async (tx) => {
      await tx
        .nest(async (nested) => {
          await bus.publish(nested, note('undone'))
          throw new Error('undo it')
        })
        .catch(() => {})
      await tx.nest(async (nested) => bus.publish(nested, note('nested')))
      await bus.publish(tx, note('outer'))
    })
    expect((await rows(payloads)).map(({ payload }) => payload)).toEqual(['nested', 'outer'])
  })

  test('takes large events first, and refuses them outside', async () => {
    const { url, count } = await createTestDatabase()
    const bus = testBus(url)
    const { transact, outside } = open(url)
    const large = note('x'.repeat(50_000))
    await expect(bus.publish(outside, large)).rejects.toMatchObject({ code: 'BUS_NOT_IN_TRANSACTION' })
    expect(await count('select count(*) from bus.events')).toBe(0)
    await transact(async (tx) => bus.publish(tx, large))
    expect(await count('select count(*) from bus.events')).toBe(1)
  })
})

test('a first publish whose connection was replaced underneath is refused (postgres.js)', async () => {
  const { url, rows, count } = await createTestDatabase()
  const bus = testBus(url)
  const client = openPostgresJs(url, { max: 1 })
  const db = drizzlePostgresJs({ client })
  const refused: unknown[] = []
  const callback = Promise.withResolvers<void>()
  const transaction = db.transaction(async (tx) => {
    const [row] = await tx.execute<{ pid: number }>(sql`select pg_backend_pid() as pid`)
    await rows('select pg_terminate_backend($1)', [row?.pid])
    await until('the client has reconnected', async () =>
      client`select 1`.then(
        () => true,
        () => false,
      ),
    )
    await bus.publish(tx, note('escaped')).catch((error: unknown) => refused.push(error))
    callback.resolve()
  })
  transaction.catch(() => {})
  await callback.promise
  await expect(transaction).rejects.toBeInstanceOf(Error)
  expect(refused).toMatchObject([{ code: 'BUS_NOT_IN_TRANSACTION' }])
  expect(await count('select count(*) from bus.events')).toBe(0)
})

test('a publish that is sent outside, after its transaction was given an id, is refused (postgres.js)', async () => {
  const { url, count } = await createTestDatabase()
  const bus = testBus(url)
  const client = openPostgresJs(url)
  const db = drizzlePostgresJs({ client })
  // As if the connection were lost and replaced between the two statements, which are sent together.
  const splitAt = (inside: (text: string) => boolean, tx: object): DrizzleTransaction => {
    const { session } = tx as { session: { client: typeof client } }
    const unsafe = ((text: string, ...more: []) =>
      (inside(text) ? session.client : client).unsafe(text, ...more)) as unknown
    const split = Object.assign(Object.create(PostgresJsSession.prototype) as object, { client: { unsafe } })
    return asIfTransaction({ execute: async () => Promise.reject(new Error('not used')), session: split })
  }
  await db.transaction(async (tx) => {
    const split = splitAt((text) => text.includes('pg_current_xact_id'), tx)
    await expect(bus.publish(split, note('outside'))).rejects.toMatchObject({
      code: 'BUS_NOT_IN_TRANSACTION',
    })
  })
  expect(await count('select count(*) from bus.events')).toBe(0)
  await db.transaction(async (tx) =>
    bus.publish(
      splitAt(() => true, tx),
      note('inside'),
    ),
  )
  expect(await count('select count(*) from bus.events')).toBe(1)
})

test('a statement that fails before is what publish reports, and the transaction fails', async () => {
  const { url, count } = await createTestDatabase()
  const bus = testBus(url)
  const db = drizzlePostgresJs({ client: openPostgresJs(url) })
  const transaction = db.transaction(async (tx) => {
    await tx.execute(sql`select 1 / 0`).catch(() => {})
    await bus.publish(tx, note('after the error'))
  })
  await expect(transaction).rejects.toMatchObject({ code: 'BUS_DATABASE_ERROR', sqlState: '25P02' })
  expect(await count('select count(*) from bus.events')).toBe(0)
})

describe('statements are kept on the connection', () => {
  const kept = `select count(*)::int as count from pg_prepared_statements where statement like '%publish_in_transaction%'`

  test('by postgres.js, unless its client was opened with prepare: false', async () => {
    const { url } = await createTestDatabase()
    const bus = testBus(url)
    for (const prepare of [true, false]) {
      const client = openPostgresJs(url, { max: 1, prepare })
      const db = drizzlePostgresJs({ client })
      for (const n of [1, 2]) await db.transaction(async (tx) => bus.publish(tx, note(n)))
      const [row] = await client.unsafe<{ count: number }[]>(kept)
      expect(row?.count).toBe(prepare ? 1 : 0)
    }
  })

  test('by node-postgres, unless a pooler stands between', async () => {
    const { url } = await createTestDatabase()
    const bus = testBus(url)
    for (const hasPooler of [false, true]) {
      const pool = openPool(url, 1)
      // A pooler names a process of its own to its clients.
      if (hasPooler) pool.on('connect', (client) => void Object.assign(client, { processID: 1 }))
      const db = drizzleNodePostgres({ client: pool })
      for (const n of [1, 2]) await db.transaction(async (tx) => bus.publish(tx, note(n)))
      const { rows } = await pool.query<{ count: number }>(kept)
      expect(rows[0]?.count).toBe(hasPooler ? 0 : 1)
    }
  })
})

test("publish shows in Drizzle's log, and in none of what the client does to rows", async () => {
  const { url, count } = await createTestDatabase()
  const bus = testBus(url)
  const logged: string[] = []
  const logger = { logQuery: (text: string) => void logged.push(text) }
  const pascal = drizzlePostgresJs({ client: openPostgresJs(url, { transform: postgres.toPascal }), logger })
  await pascal.transaction(async (tx) => bus.publish(tx, note('postgres.js')))
  const db = drizzleNodePostgres({ client: openPool(url), logger })
  await db.transaction(async (tx) => bus.publish(tx, note('node-postgres')))
  expect(logged.filter((text) => text.includes('publish_in_transaction'))).toHaveLength(3)
  expect(await count('select count(*) from bus.events')).toBe(2)
})
