import { inspect } from 'node:util'
import { DrizzleQueryError, sql } from 'drizzle-orm'
import { drizzle as drizzleNodePostgres } from 'drizzle-orm/node-postgres'
import { drizzle as drizzlePostgresJs } from 'drizzle-orm/postgres-js'
import pg from 'pg'
import postgres from 'postgres'
import { describe, expect, onTestFinished, test } from 'vitest'
import { BusError, type DrizzleTransaction, InvalidEventError } from '../../src/index.ts'
import { toBusError } from '../../src/database/database-errors.ts'
import { testBus } from '../support/bus.ts'
import { createTestDatabase } from '../support/database.ts'

const canary = 'canary-1795-payload'

describe('toBusError', () => {
  const unavailable = { code: 'BUS_DATABASE_UNAVAILABLE', retryable: true }
  const repeatable = { code: 'BUS_DATABASE_ERROR', retryable: true }
  const missing = { code: 'BUS_SCHEMA_MISSING', retryable: false }
  const refused = { code: 'BUS_DATABASE_ERROR', retryable: false }

  test.each<readonly [string, { readonly code: string; readonly retryable: boolean }]>([
    ['08000', unavailable],
    ['08006', unavailable],
    ['08P01', unavailable],
    ['53100', unavailable],
    ['53200', unavailable],
    ['53300', unavailable],
    ['57P01', unavailable],
    ['57P02', unavailable],
    ['57P03', unavailable],
    ['57P05', unavailable],
    ['25P03', unavailable],
    ['25P04', unavailable],
    ['ECONNREFUSED', unavailable],
    ['ECONNRESET', unavailable],
    ['ENOTFOUND', unavailable],
    ['ETIMEDOUT', unavailable],
    ['EADDRNOTAVAIL', unavailable],
    ['CONNECTION_CLOSED', unavailable],
    ['CONNECTION_ENDED', unavailable],
    ['CONNECTION_DESTROYED', unavailable],
    ['CONNECT_TIMEOUT', unavailable],
    ['40001', repeatable],
    ['40P01', repeatable],
    ['55P03', repeatable],
    ['3F000', missing],
    ['42P01', missing],
    ['42883', missing],
    ['25P02', refused],
    ['25006', repeatable],
    ['57014', refused],
    ['22P02', refused],
    ['23505', refused],
    ['42501', { code: 'BUS_PERMISSION_DENIED', retryable: false }],
    ['28P01', refused],
    ['XX000', refused],
    ['UNSAFE_TRANSACTION', refused],
    ...[
      ...[
        'DEPTH_ZERO_SELF_SIGNED_CERT',
        'SELF_SIGNED_CERT_IN_CHAIN',
        'CERT_HAS_EXPIRED',
        'CERT_NOT_YET_VALID',
      ],
      ...[
        'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
        'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
        'EPROTO',
        'HOSTNAME_MISMATCH',
      ],
      ...[
        'ERR_TLS_CERT_ALTNAME_INVALID',
        'ERR_SSL_WRONG_VERSION_NUMBER',
        'ERR_OSSL_WRONG_FINAL_BLOCK_LENGTH',
      ],
    ].map((code) => [code, unavailable] as const),
  ])('makes %s a %o', (code, expected) => {
    const error = toBusError(Object.assign(new Error('said so'), { code }))
    expect(error).toMatchObject({ name: 'DatabaseError', sqlState: code, ...expected })
    expect(error.message).toMatch(/: said so$/)
    expect(error.cause).toMatchObject({ message: 'said so', code })
  })

  test('makes the refusal of bus.publish_in_transaction a TransactionError', () => {
    const error = toBusError(Object.assign(new Error('not in it'), { code: 'BUS01' }))
    expect(error).toMatchObject({
      name: 'TransactionError',
      code: 'BUS_NOT_IN_TRANSACTION',
      retryable: false,
    })
  })

  test('calls nothing a refused statement that the server did not say', () => {
    const messageOf = (code: string): string => toBusError(Object.assign(new Error('no'), { code })).message
    expect(messageOf('23505')).toBe('The database refused a statement: no')
    expect(messageOf('CERT_HAS_EXPIRED')).toBe('No secure connection to the database could be opened: no')
    expect(messageOf('UNSAFE_TRANSACTION')).toBe('The database driver could not run a statement: no')
    expect(messageOf('EPERM')).toBe('The database driver could not run a statement: no')
  })

  test('leaves errors of the bus as they are', () => {
    const error = new InvalidEventError('BUS_INVALID_EVENT', 'no')
    expect(toBusError(error)).toBe(error)
  })

  test('takes an error without a code for a lost connection, and a mistake in code for what it is', () => {
    expect(toBusError(new Error('Connection terminated unexpectedly'))).toMatchObject({
      ...unavailable,
      sqlState: undefined,
    })
    expect(toBusError(new TypeError('x is not a function'))).toMatchObject(refused)
    expect(toBusError('thrown as a text')).toMatchObject({ code: 'BUS_DATABASE_UNAVAILABLE' })
    expect(toBusError(undefined).message).toContain('undefined')
  })

  test('finds the code under wrappers, and the reason of a name with several addresses', () => {
    const server = Object.assign(new Error('lost'), { code: '40001' })
    const wrapped = new Error('outer', { cause: new Error('middle', { cause: server }) })
    expect(toBusError(wrapped)).toMatchObject({ ...repeatable, sqlState: '40001' })
    const connect = Object.assign(new Error('connect ECONNREFUSED ::1:1'), { code: 'ECONNREFUSED' })
    const several = Object.assign(new AggregateError([connect]), { code: 'ECONNREFUSED' })
    expect(toBusError(several)).toMatchObject(unavailable)
    expect(toBusError(several).message).toContain('connect ECONNREFUSED ::1:1')
    expect(toBusError(new AggregateError([connect]))).toMatchObject({
      ...unavailable,
      sqlState: 'ECONNREFUSED',
    })
  })

  test('names every address that refused', () => {
    const refusals = ['::1', '127.0.0.1'].map((address) => new Error(`connect ECONNREFUSED ${address}:5432`))
    const several = Object.assign(new AggregateError(refusals), { code: 'ECONNREFUSED' })
    expect(toBusError(several).message).toMatch(
      /: connect ECONNREFUSED ::1:5432 and connect ECONNREFUSED 127\.0\.0\.1:5432$/,
    )
  })

  test('says nothing of the parameters, whatever Drizzle wraps', () => {
    for (const inside of [
      Object.assign(new Error('refused'), {
        code: '23505',
        detail: canary,
        where: canary,
        parameters: [canary],
      }),
      new Error('Connection terminated'),
      undefined,
    ]) {
      const wrapped = new DrizzleQueryError('insert $1', [canary], inside)
      expect(inspect(wrapped)).toContain(canary)
      const error = toBusError(wrapped)
      expect(inspect(error, { depth: 9, showHidden: true })).not.toContain(canary)
      expect(JSON.stringify(error)).not.toContain(canary)
    }
  })
})

describe.each([
  {
    name: 'postgres.js',
    open: (url: string) => {
      const client = postgres(url, { max: 1, onnotice: () => {} })
      onTestFinished(async () => client.end({ timeout: 1 }))
      const db = drizzlePostgresJs(client)
      return async (work: (tx: DrizzleTransaction) => Promise<unknown>) =>
        db.transaction(async (tx) => work(tx))
    },
  },
  {
    name: 'node-postgres',
    open: (url: string) => {
      const pool = new pg.Pool({ connectionString: url, max: 1 })
      pool.on('error', () => {})
      onTestFinished(async () => pool.end())
      const db = drizzleNodePostgres(pool)
      return async (work: (tx: DrizzleTransaction) => Promise<unknown>) =>
        db.transaction(async (tx) => work(tx))
    },
  },
])('a publish with $name that the server refuses', ({ open }) => {
  const event = { type: 'note', tenantId: 'acme', payload: { secret: canary } } as const

  test.each([
    {
      when: 'a constraint of the log is violated',
      prepare: `alter table bus.events add constraint no_notes check (type <> 'note')`,
      expected: { code: 'BUS_DATABASE_ERROR', sqlState: '23514', retryable: false },
    },
    {
      when: 'the schema is gone',
      prepare: 'drop schema bus cascade',
      expected: { code: 'BUS_SCHEMA_MISSING', sqlState: '3F000', retryable: false },
    },
    {
      when: 'the transaction has failed before',
      prepare: 'select 1',
      before: 'select 1 / 0',
      expected: { code: 'BUS_DATABASE_ERROR', sqlState: '25P02', retryable: false },
    },
    {
      when: 'the transaction may only read',
      prepare: 'select 1',
      before: 'set transaction read only',
      expected: { code: 'BUS_DATABASE_ERROR', sqlState: '25006', retryable: true },
    },
  ])('shows nothing of the payload when $when', async ({ prepare, before, expected }) => {
    const { url, rows } = await createTestDatabase()
    await rows(prepare)
    const bus = testBus(url)
    let thrown: unknown
    let unwrapped: unknown
    await open(url)(async (tx) => {
      if (before !== undefined) await Promise.resolve(tx.execute(sql.raw(before))).catch(() => {})
      thrown = await bus.publish(tx, event).catch((error: unknown) => error)
      // What Drizzle itself says of a failed statement: everything.
      unwrapped = await Promise.resolve(tx.execute(sql`select ${canary}::text, 1 / 0`)).catch(
        (error: unknown) => error,
      )
    }).catch(() => {})
    expect(inspect(unwrapped)).toContain(canary)
    expect(thrown).toBeInstanceOf(BusError)
    expect(thrown).toMatchObject(expected)
    for (let error = thrown; error instanceof Error; error = error.cause)
      expect(`${error.message} ${error.stack} ${JSON.stringify(error)}`).not.toContain(canary)
    expect(inspect(thrown, { depth: 9, showHidden: true })).not.toContain(canary)
  })
})
