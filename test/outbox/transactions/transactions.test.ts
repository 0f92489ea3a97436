import knex, { type Knex } from 'knex'
import {
  CamelCasePlugin,
  Kysely,
  ParseJSONResultsPlugin,
  PostgresDialect,
  sql,
  type Transaction,
} from 'kysely'
import pg from 'pg'
import postgres from 'postgres'
import { DataSource, type EntityManager } from 'typeorm'
import { describe, expect, onTestFinished, test } from 'vitest'
import {
  fromKnex,
  fromKysely,
  fromPg,
  fromPostgresJs,
  fromPrisma,
  fromTypeOrm,
  type AdaptedTransaction,
} from '../../../src/index.ts'
import { testBus } from '../../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'
import { openPrisma, type TestPrismaTransaction } from '../../support/prisma-client.ts'

const note = (payload: unknown) => ({ type: 'note', tenantId: 'a', payload }) as const

/** An open transaction of a library. */
interface Scope {
  /** Adapts it anew, as a service does that adapts for each call. */
  readonly adapt: () => AdaptedTransaction
  /** A statement of the library itself, with one value at `?`; gives the first value of the first row. */
  readonly run: (text: string, value?: string) => Promise<unknown>
  /** Work in a savepoint, which is rolled back when it throws. */
  readonly nest: (work: (scope: Scope) => Promise<unknown>) => Promise<unknown>
}

const textType = 25
/** Its numbers are an enumeration to the types, though any number will do. */
const types = pg.types as unknown as {
  readonly getTypeParser: (oid: number) => (text: string) => unknown
  readonly setTypeParser: (oid: number, parse: (text: string) => unknown) => void
}

type Transact = <T>(work: (scope: Scope) => Promise<T>) => Promise<T>

interface Library {
  readonly name: string
  /** Its transactions, on one connection; and what gives an adapted transaction outside any, or throws. */
  readonly open: (url: string) => { readonly transact: Transact; readonly outside: () => AdaptedTransaction }
  /** Whether what the application makes of the types of node-postgres leaves the answers alone. */
  readonly readsUnparsed: boolean
}

const firstValue = (rows: unknown): unknown => Object.values((rows as object[])[0] ?? {})[0]
const numbered = (text: string): string => text.replaceAll('?', '$1')
const valuesOf = (value?: string): string[] => (value === undefined ? [] : [value])

function openPool(url: string): pg.Pool {
  const pool = new pg.Pool({ connectionString: url, max: 1 })
  pool.on('error', () => {})
  pool.on('connect', (client) => void client.on('error', () => {}))
  onTestFinished(async () => pool.end())
  return pool
}

/** Savepoints by hand, for libraries that leave them to SQL. */
async function inSavepoint(scope: Scope, work: (scope: Scope) => Promise<unknown>): Promise<unknown> {
  await scope.run('savepoint s')
  try {
    return await work(scope)
  } catch (error) {
    await scope.run('rollback to savepoint s')
    throw error
  }
}

function pgScope(client: pg.PoolClient): Scope {
  const scope: Scope = {
    adapt: () => fromPg(client),
    run: async (text, value) => firstValue((await client.query(numbered(text), valuesOf(value))).rows),
    nest: async (work) => inSavepoint(scope, work),
  }
  return scope
}

function postgresJsScope(tx: postgres.TransactionSql): Scope {
  return {
    adapt: () => fromPostgresJs(tx),
    run: async (text, value) => firstValue(await tx.unsafe(numbered(text), valuesOf(value))),
    nest: async (work) => tx.savepoint(async (nested) => work(postgresJsScope(nested))),
  }
}

function kyselyScope(trx: Transaction<unknown>): Scope {
  const scope: Scope = {
    adapt: () => fromKysely(trx),
    async run(text, value) {
      const [before = '', after] = text.split('?')
      const query = after === undefined ? sql.raw(text) : sql`${sql.raw(before)}${value}${sql.raw(after)}`
      return firstValue((await query.execute(trx)).rows)
    },
    nest: async (work) => inSavepoint(scope, work),
  }
  return scope
}

function knexScope(trx: Knex.Transaction): Scope {
  return {
    adapt: () => fromKnex(trx),
    run: async (text, value) => firstValue((await trx.raw<{ rows: unknown }>(text, valuesOf(value))).rows),
    nest: async (work) => trx.transaction(async (nested) => work(knexScope(nested))),
  }
}

function prismaScope(tx: TestPrismaTransaction): Scope {
  return {
    adapt: () => fromPrisma(tx),
    run: async (text, value) => firstValue(await tx.$queryRawUnsafe(numbered(text), ...valuesOf(value))),
    nest: async (work) => tx.$transaction(async (nested) => work(prismaScope(nested))),
  }
}

function typeOrmScope(manager: EntityManager): Scope {
  return {
    adapt: () => fromTypeOrm(manager),
    run: async (text, value) => firstValue(await manager.query(numbered(text), valuesOf(value))),
    nest: async (work) => manager.transaction(async (nested) => work(typeOrmScope(nested))),
  }
}

const libraries: readonly Library[] = [
  {
    name: 'fromPg',
    readsUnparsed: true,
    open(url) {
      const pool = openPool(url)
      return {
        async transact(work) {
          const client = await pool.connect()
          try {
            await client.query('begin')
            const result = await work(pgScope(client))
            await client.query('commit')
            client.release()
            return result
          } catch (error) {
            const isRolledBack = await client.query('rollback').then(
              () => true,
              () => false,
            )
            client.release(!isRolledBack)
            throw error
          }
        },
        // @ts-expect-error -- a pool is no client
        outside: () => fromPg(pool),
      }
    },
  },
  {
    name: 'fromPostgresJs',
    readsUnparsed: true,
    open(url) {
      const client = postgres(url, { max: 1, onnotice: () => {} })
      onTestFinished(async () => client.end({ timeout: 1 }))
      return {
        transact: async (work) => client.begin(async (tx) => work(postgresJsScope(tx))) as never,
        // @ts-expect-error -- the client is no transaction
        outside: () => fromPostgresJs(client),
      }
    },
  },
  {
    name: 'fromKysely',
    readsUnparsed: false,
    open(url) {
      const db = new Kysely<unknown>({
        dialect: new PostgresDialect({ pool: openPool(url) }),
        plugins: [new CamelCasePlugin(), new ParseJSONResultsPlugin()],
      })
      return {
        transact: async (work) => db.transaction().execute(async (trx) => work(kyselyScope(trx))),
        // @ts-expect-error -- Kysely itself is no transaction
        outside: () => fromKysely(db),
      }
    },
  },
  {
    name: 'fromKnex',
    readsUnparsed: true,
    open(url) {
      const db = knex({ client: 'pg', connection: url, pool: { min: 0, max: 1 } })
      onTestFinished(async () => db.destroy())
      return {
        transact: async (work) => db.transaction(async (trx) => work(knexScope(trx))),
        // @ts-expect-error -- Knex itself is no transaction
        outside: () => fromKnex(db),
      }
    },
  },
  {
    name: 'fromPrisma',
    readsUnparsed: false,
    open(url) {
      const prisma = openPrisma(url, 1)
      onTestFinished(async () => prisma.$disconnect())
      return {
        transact: async (work) => prisma.$transaction(async (tx) => work(prismaScope(tx))),
        // @ts-expect-error -- the client is no transaction
        outside: () => fromPrisma(prisma),
      }
    },
  },
  {
    name: 'fromTypeOrm',
    readsUnparsed: false,
    open(url) {
      const source = new DataSource({ type: 'postgres', url, extra: { max: 1 }, logging: false })
      const ready = source.initialize()
      onTestFinished(async () => source.destroy())
      return {
        async transact(work) {
          await ready
          return source.transaction(async (manager) => work(typeOrmScope(manager)))
        },
        outside: () => fromTypeOrm(source.manager),
      }
    },
  },
]

const refused = { code: 'BUS_NOT_IN_TRANSACTION' }
const payloads = `select payload from bus.events order by payload::text collate "C"`
const insertPayment = `insert into payments (id, status) values (?, 'paid')`

async function prepare({ open }: Library) {
  const database = await createTestDatabase()
  await database.rows('create table payments (id text primary key, status text not null)')
  return { database, bus: testBus(database.url, { maxPayloadBytes: 1_048_576 }), ...open(database.url) }
}

async function stored({
  count,
}: TestDatabase): Promise<{ payments: number; events: number; outbox: number }> {
  return {
    payments: await count('select count(*) from payments'),
    events: await count('select count(*) from bus.events'),
    outbox: await count('select count(*) from bus.outbox'),
  }
}

describe.each(libraries)('$name', (library) => {
  test('commits the event together with the row, whichever comes first', async () => {
    const { database, bus, transact } = await prepare(library)
    await transact(async ({ run, adapt }) => {
      await run(insertPayment, '1')
      await bus.publish(adapt(), note('after the row'))
    })
    await transact(async ({ run, adapt }) => {
      await bus.publish(adapt(), note('before the row'))
      await run(insertPayment, '2')
    })
    expect(await stored(database)).toEqual({ payments: 2, events: 2, outbox: 2 })
  })

  test('rolls the event back together with the row', async () => {
    const { database, bus, transact } = await prepare(library)
    const transaction = transact(async ({ run, adapt }) => {
      await bus.publish(adapt(), note('before'))
      await run(insertPayment, '1')
      await bus.publish(adapt(), note('after'))
      throw new Error('business says no')
    })
    await expect(transaction).rejects.toThrow('business says no')
    expect(await stored(database)).toEqual({ payments: 0, events: 0, outbox: 0 })
  })

  test('takes batches and duplicates, adapted once or for each call', async () => {
    const { database, bus, transact } = await prepare(library)
    await transact(async ({ adapt }) => {
      const tx = adapt()
      const first = await bus.publish(tx, { ...note(1), eventId: 'e1' })
      expect(first.duplicate).toBe(false)
      expect(await bus.publish(tx, { ...note(2), eventId: 'e1' })).toEqual({ ...first, duplicate: true })
      const many = await bus.publishMany(adapt(), [
        { ...note(3), eventId: 'e1', subject: 's' },
        { ...note(4), metadata: { a: 'b' } },
        { ...note(5), orderingKey: 'k' },
      ])
      expect(many.map(({ duplicate }) => duplicate)).toEqual([true, false, false])
      expect(many[0]?.id).toBe(first.id)
    })
    expect((await database.rows(payloads)).map(({ payload }) => payload)).toEqual([1, 4, 5])
  })

  test('goes with a savepoint that is rolled back, and stays with one that is not', async () => {
    const { database, bus, transact } = await prepare(library)
    await transact(async ({ nest, adapt }) => {
      const undone = nest(async (nested) => {
        await bus.publish(nested.adapt(), note('undone'))
        throw new Error('undo it')
      })
      await expect(undone).rejects.toThrow('undo it')
      await nest(async (nested) => bus.publish(nested.adapt(), note('nested')))
      await bus.publish(adapt(), note('outer'))
    })
    expect((await database.rows(payloads)).map(({ payload }) => payload)).toEqual(['nested', 'outer'])
  })

  test('is refused outside a transaction, at once', async () => {
    const { database, outside, transact } = await prepare(library)
    // Whatever it takes to connect.
    await transact(async ({ run }) => run('select 1'))
    expect(outside).toThrow(expect.objectContaining({ code: 'BUS_NOT_IN_TRANSACTION' }))
    expect(await stored(database)).toEqual({ payments: 0, events: 0, outbox: 0 })
  })

  test.each([
    ['used', true],
    ['not used', false],
  ])('is refused when the transaction has ended in which it was made and %s', async (_name, isUsed) => {
    const { database, bus, transact } = await prepare(library)
    const kept: AdaptedTransaction[] = []
    const keep = async ({ adapt, run }: Scope): Promise<void> => {
      const tx = adapt()
      kept.push(tx)
      await (isUsed ? bus.publish(tx, note('inside')) : run('select 1'))
    }
    await transact(keep)
    const undone = transact(async (scope) => {
      await keep(scope)
      throw new Error('undo it')
    })
    await expect(undone).rejects.toThrow('undo it')
    expect(kept).toHaveLength(2)
    for (const tx of kept) {
      await expect(bus.publish(tx, note('late'))).rejects.toMatchObject(refused)
      await expect(bus.publish(tx, note('late'.repeat(10_000)))).rejects.toMatchObject(refused)
      await expect(bus.cancel(tx, '01932f2c-5b4e-7cc0-8a2d-3f1e5d7c9b10')).rejects.toMatchObject(refused)
    }
    expect((await stored(database)).events).toBe(isUsed ? 1 : 0)
  })

  test('is refused in the next transaction of the same connection', async () => {
    const { database, bus, transact } = await prepare(library)
    const kept = await transact(async ({ adapt }) => {
      const tx = adapt()
      await bus.publish(tx, note('first'))
      return tx
    })
    const refusals: unknown[] = []
    const next = transact(async ({ run }) => {
      await run(insertPayment, '1')
      await bus.publish(kept, note('not mine')).catch((error: unknown) => refusals.push(error))
      throw new Error('enough')
    })
    await expect(next).rejects.toThrow('enough')
    expect(refusals).toMatchObject([refused])
    await transact(async ({ run, adapt }) => {
      await run(insertPayment, '2')
      await bus.publish(adapt(), note('second'))
    })
    expect((await database.rows(payloads)).map(({ payload }) => payload)).toEqual(['first', 'second'])
  })

  test('stores what is published as it is', async () => {
    const { database, bus, transact } = await prepare(library)
    const strange = {
      quotes: `'"''"" \\' \\\\ $1 $2 $$ ? ?? \\? :name ::text %s {{}} {"a"} \n\t`,
      unicode: 'ä 漢字 🜚 \u2028 \u200d é',
      'a ? key $1': [null, true, 1.5, -0.25, '', { nested: [[]] }],
      large: 'x'.repeat(900_000),
    }
    const texts = { eventId: `'"\\?$1{},`, subject: `s\\ "?" $2`, orderingKey: `{"k",NULL} ?` }
    await transact(async ({ adapt }) =>
      bus.publish(adapt(), { ...note(strange), ...texts, metadata: { '?': '$1' } }),
    )
    expect(
      await database.rows('select payload, event_id, subject, ordering_key, metadata from bus.events'),
    ).toEqual([
      {
        payload: strange,
        event_id: texts.eventId,
        subject: texts.subject,
        ordering_key: texts.orderingKey,
        metadata: { '?': '$1' },
      },
    ])
  })

  test('cancels together with the row, or not at all', async () => {
    const { database, bus, transact } = await prepare(library)
    const availableAt = new Date(Date.now() + 3_600_000)
    const { id } = await transact(async ({ adapt }) =>
      bus.publish(adapt(), { ...note('later'), availableAt }),
    )
    const undone = transact(async ({ adapt }) => {
      expect(await bus.cancel(adapt(), id)).toBe(true)
      throw new Error('undo it')
    })
    await expect(undone).rejects.toThrow('undo it')
    expect((await stored(database)).outbox).toBe(1)
    expect(await transact(async ({ adapt }) => bus.cancel(adapt(), id, { tenantId: 'a' }))).toBe(true)
    expect((await stored(database)).outbox).toBe(0)
  })

  test('gives the error of the server without the payload', async () => {
    const { database, bus, transact } = await prepare(library)
    const failAfter = async (text: string): Promise<unknown> => {
      const errors: unknown[] = []
      const transaction = transact(async ({ run, adapt }) => {
        await run(text).catch(() => {})
        await bus.publish(adapt(), note('secret')).catch((error: unknown) => errors.push(error))
        throw new Error('enough')
      })
      await expect(transaction).rejects.toThrow('enough')
      const [error] = errors
      expect(error).toBeInstanceOf(Error)
      const { message, cause } = error as Error
      expect(`${message} ${(cause as Error).message}`).not.toMatch(/secret|publish_in_transaction/)
      return error
    }
    expect(await failAfter('set local session_replication_role = replica')).toMatchObject({
      code: 'BUS_SETTING_UNSUPPORTED',
      sqlState: 'BUS03',
    })
    expect(await failAfter('select 1 / 0')).toMatchObject({ code: 'BUS_DATABASE_ERROR', sqlState: '25P02' })
    expect((await stored(database)).events).toBe(0)
  })

  test('works, or fails as a whole, whatever the application makes of texts', async () => {
    const { database, bus, transact } = await prepare(library)
    // Libraries ask for the version of the server, as a text, when they connect.
    await transact(async ({ run }) => run('select 1'))
    const before = types.getTypeParser(textType)
    onTestFinished(() => types.setTypeParser(textType, before))
    types.setTypeParser(textType, (text) => ({ text }))
    const transaction = transact(async ({ run, adapt }) => {
      await run(insertPayment, '1')
      await bus.publish(adapt(), note(1))
    })
    const [ended] = await Promise.allSettled([transaction])
    expect(ended).toMatchObject(
      library.readsUnparsed
        ? { status: 'fulfilled' }
        : { status: 'rejected', reason: { code: 'BUS_DATABASE_ERROR' } },
    )
    types.setTypeParser(textType, before)
    const count = library.readsUnparsed ? 1 : 0
    expect(await stored(database)).toEqual({ payments: count, events: count, outbox: count })
  })
})

test.each(libraries.filter(({ name }) => name !== 'fromPostgresJs'))(
  '$name says when the connection was lost, and nothing is written',
  async (library) => {
    const { database, bus, transact } = await prepare(library)
    const errors: unknown[] = []
    const transaction = transact(async ({ run, adapt }) => {
      await run(insertPayment, '1')
      const pid = await run('select pg_backend_pid() as pid')
      await database.rows('select pg_terminate_backend($1)', [pid])
      const backends = 'select count(*) from pg_stat_activity where pid = $1'
      await until('the backend is gone', async () => (await database.count(backends, [pid])) === 0)
      for (const n of [1, 2])
        await bus.publish(adapt(), note(n)).catch((error: unknown) => errors.push(error))
    })
    await expect(transaction).rejects.toBeInstanceOf(Error)
    const lost = { code: 'BUS_DATABASE_UNAVAILABLE', retryable: true }
    expect(errors).toMatchObject([lost, lost])
    expect(await stored(database)).toEqual({ payments: 0, events: 0, outbox: 0 })
  },
)

test('fromPostgresJs is refused where the connection was lost and replaced underneath', async () => {
  const { url, rows, count } = await createTestDatabase()
  const bus = testBus(url)
  const client = postgres(url, { max: 1, onnotice: () => {} })
  onTestFinished(async () => client.end({ timeout: 1 }))
  const refusals: unknown[] = []
  const tried = Promise.withResolvers<void>()
  const transaction = client.begin(async (tx) => {
    const used = fromPostgresJs(tx)
    await bus.publish(used, note('inside'))
    const [row] = await tx<{ pid: number }[]>`select pg_backend_pid() as pid`
    await rows('select pg_terminate_backend($1)', [row?.pid])
    await until('the client has reconnected', async () =>
      client`select 1`.then(
        () => true,
        () => false,
      ),
    )
    for (const adaptedTx of [used, fromPostgresJs(tx)])
      await bus.publish(adaptedTx, note('escaped')).catch((error: unknown) => refusals.push(error))
    tried.resolve()
  })
  transaction.catch(() => {})
  await tried.promise
  await expect(transaction).rejects.toBeInstanceOf(Error)
  expect(refusals).toMatchObject([refused, refused])
  expect(await count('select count(*) from bus.events')).toBe(0)
})

test.each([
  ['fromPg', fromPg],
  ['fromPostgresJs', fromPostgresJs],
  ['fromKysely', fromKysely],
  ['fromKnex', fromKnex],
  ['fromPrisma', fromPrisma],
  ['fromTypeOrm', fromTypeOrm],
] as const)('%s refuses what is no handle of its library, at once', (name, adapt) => {
  for (const given of [undefined, null, 1, 'tx', {}, () => {}])
    expect(() => adapt(given as never)).toThrow(
      expect.objectContaining({
        code: 'BUS_NOT_IN_TRANSACTION',
        message: expect.stringContaining(name) as string,
      }),
    )
})

test('a handler publishes in a transaction of another library, with what caused it', async () => {
  const { url, rows } = await createTestDatabase()
  const bus = testBus(url)
  const { transact } = libraries[0]?.open(url) ?? {}
  const handled = Promise.withResolvers<void>()
  bus.subscribe({
    name: 'refund',
    events: ['payment.paid'],
    handler: async ({ tenantId, payload }, { publish }) => {
      await transact?.(async ({ adapt }) =>
        publish(adapt(), { type: 'note', tenantId, payload: payload.paymentId }),
      )
      handled.resolve()
    },
  })
  await bus.start()
  const payload = { paymentId: 'p', amountCents: 1 }
  const cause = await bus.tryPublish({ type: 'payment.paid', tenantId: 'a', payload })
  await handled.promise
  expect(await rows(`select payload, causation_id from bus.events where type = 'note'`)).toEqual([
    { payload: 'p', causation_id: cause?.id },
  ])
})

test('a client that serves one transaction after the other is adapted for each, as is a query runner', async () => {
  const { url, rows } = await createTestDatabase()
  const bus = testBus(url)
  const client = await openPool(url).connect()
  onTestFinished(() => client.release())
  const source = await new DataSource({ type: 'postgres', url, logging: false }).initialize()
  const runner = source.createQueryRunner()
  onTestFinished(async () => {
    await runner.release()
    await source.destroy()
  })
  for (const n of [1, 2]) {
    await client.query('begin')
    await bus.publish(fromPg(client), note(n))
    await client.query('commit')
    await runner.startTransaction()
    await bus.publish(fromTypeOrm(runner.manager), note(n + 2))
    await runner.commitTransaction()
  }
  await expect(bus.publish(fromPg(client), note('outside'))).rejects.toMatchObject(refused)
  expect(() => fromTypeOrm(runner.manager)).toThrow(expect.objectContaining(refused))
  expect((await rows(payloads)).map(({ payload }) => payload)).toEqual([1, 2, 3, 4])
})

test('an extended client of Prisma is taken too', async () => {
  const { url, count } = await createTestDatabase()
  const bus = testBus(url)
  const prisma = openPrisma(url, 1).$extends({ name: 'tests' })
  onTestFinished(async () => prisma.$disconnect())
  await prisma.$transaction(async (tx) => bus.publish(fromPrisma(tx), note(1)))
  expect(await count('select count(*) from bus.events')).toBe(1)
})
