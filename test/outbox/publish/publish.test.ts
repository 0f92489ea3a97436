import { sql } from 'drizzle-orm'
import { drizzle as drizzleNodePostgres } from 'drizzle-orm/node-postgres'
import { drizzle as drizzlePostgresJs } from 'drizzle-orm/postgres-js'
import pg from 'pg'
import postgres from 'postgres'
import { describe, expect, onTestFinished, test } from 'vitest'
import type { DrizzleTransaction } from '../../../src/index.ts'
import { paymentEvents, testBus } from '../../support/bus.ts'
import { createTestDatabase, until } from '../../support/database.ts'
import { asIfTransaction } from '../../support/transact.ts'

const paid = (paymentId: string) =>
  ({ type: 'payment.paid', tenantId: 'acme', payload: { paymentId, amountCents: 100 } }) as const

type Transact = <T>(work: (tx: DrizzleTransaction) => Promise<T>) => Promise<T>

/** A service's own database handle, on either driver. */
const drivers: {
  name: string
  open: (url: string) => { transact: Transact; outside: DrizzleTransaction }
}[] = [
  {
    name: 'postgres.js',
    open: (url) => {
      const client = postgres(url, { max: 3 })
      onTestFinished(async () => client.end({ timeout: 1 }))
      const db = drizzlePostgresJs({ client })
      return {
        transact: async (work) => db.transaction(async (tx) => work(tx)),
        outside: asIfTransaction(db),
      }
    },
  },
  {
    name: 'node-postgres',
    open: (url) => {
      const pool = new pg.Pool({ connectionString: url, max: 3 })
      pool.on('error', () => {})
      onTestFinished(async () => pool.end())
      const db = drizzleNodePostgres({ client: pool })
      return {
        transact: async (work) => db.transaction(async (tx) => work(tx)),
        outside: asIfTransaction(db),
      }
    },
  },
]

describe.each(drivers)('publish with Drizzle on $name', ({ open }) => {
  test('through the handle of a savepoint goes with it; through one that was rolled back, into the outer transaction', async () => {
    const { url, rows } = await createTestDatabase()
    const bus = testBus(url)
    const { transact } = open(url)
    type Nesting = DrizzleTransaction & { transaction: Transact }
    await transact(async (tx) => {
      let kept: DrizzleTransaction | undefined
      const savepoint = (tx as Nesting).transaction(async (sp) => {
        kept = sp
        await bus.publish(sp, paid('undone'))
        throw new Error('undo it')
      })
      await expect(savepoint).rejects.toThrow('undo it')
      await (tx as Nesting).transaction(async (sp) => bus.publish(sp, paid('kept')))
      // docs/drivers.md says so: the server knows of no savepoint that a statement was meant for.
      await bus.publish(kept as DrizzleTransaction, paid('late'))
    })
    const stored = await rows(`select payload ->> 'paymentId' as id from bus.events order by id`)
    expect(stored.map(({ id }) => String(id)).toSorted()).toEqual(['kept', 'late'])
  })

  test('stores every field of the event and commits with the transaction', async () => {
    const { url, rows } = await createTestDatabase()
    const bus = testBus(url)
    const { transact } = open(url)
    const causationId = '0190b5a0-0000-7000-8000-000000000001'
    const { id, duplicate } = await transact(async (tx) =>
      bus.publish(tx, {
        ...paid('p1'),
        eventId: 'e1',
        idempotencyKey: 'k1',
        correlationId: 'c1',
        causationId,
        orderingKey: 'o1',
        subject: 'payments/p1',
        metadata: { traceparent: '00-1-2-3' },
      }),
    )
    expect(duplicate).toBe(false)
    expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7/)
    const [row] = await rows('select * from bus.events')
    expect(row).toMatchObject({
      id,
      tenant_id: 'acme',
      type: 'payment.paid',
      source: 'payment-service',
      subject: 'payments/p1',
      schema_version: 1,
      payload: { paymentId: 'p1', amountCents: 100 },
      event_id: 'e1',
      idempotency_key: 'k1',
      correlation_id: 'c1',
      causation_id: causationId,
      ordering_key: 'o1',
      metadata: { traceparent: '00-1-2-3' },
      available_at: null,
    })
  })

  test('leaves nothing after a rollback, and the event after a commit', async () => {
    const { url, rows, count } = await createTestDatabase()
    const bus = testBus(url)
    const { transact } = open(url)
    const rolledBack = transact(async (tx) => {
      await bus.publish(tx, { ...paid('rolled back'), idempotencyKey: 'k' })
      throw new Error('business says no')
    })
    await expect(rolledBack).rejects.toThrow('business says no')
    expect(await count('select count(*) from bus.events')).toBe(0)
    expect(await count('select count(*) from bus.outbox')).toBe(0)
    expect(await count('select count(*) from bus.event_keys')).toBe(0)
    const { duplicate } = await transact(async (tx) =>
      bus.publish(tx, { ...paid('committed'), idempotencyKey: 'k' }),
    )
    expect(duplicate).toBe(false)
    expect((await rows('select payload from bus.events')).map(({ payload }) => payload)).toEqual([
      { paymentId: 'committed', amountCents: 100 },
    ])
    expect(await count('select count(*) from bus.outbox')).toBe(1)
  })

  test('refuses a handle outside any transaction and writes nothing', async () => {
    const { url, count } = await createTestDatabase()
    const bus = testBus(url)
    const { transact, outside } = open(url)
    await expect(bus.publish(outside, paid('p1'))).rejects.toMatchObject({ code: 'BUS_NOT_IN_TRANSACTION' })
    expect(await count('select count(*) from bus.events')).toBe(0)
    await transact(async (tx) => bus.publish(tx, paid('p1')))
    expect(await count('select count(*) from bus.events')).toBe(1)
  })

  test('refuses the handle of a transaction that has ended', async () => {
    const { url, count } = await createTestDatabase()
    const bus = testBus(url)
    const { transact } = open(url)
    const ended = await transact(async (tx) => {
      await bus.publish(tx, paid('inside'))
      return { tx }
    })
    await expect(bus.publish(ended.tx, paid('too late'))).rejects.toMatchObject({
      name: expect.stringMatching(/Error$/) as string,
    })
    expect(await count('select count(*) from bus.events')).toBe(1)
  })

  test('publishes in the first statement of a transaction, after a write, and inside savepoints', async () => {
    const { url, rows } = await createTestDatabase()
    const bus = testBus(url)
    const { transact } = open(url)
    await rows('create table public.state (note text)')
    await transact(async (tx) => {
      await bus.publish(tx, paid('first statement'))
      await bus.publish(tx, paid('second'))
    })
    await transact(async (tx) => {
      await tx.execute(sql`insert into public.state values ('written before')`)
      await bus.publish(tx, paid('after a write'))
    })
    await transact(async (tx) => {
      await tx.execute(sql`savepoint a`)
      await bus.publish(tx, paid('undone'))
      await tx.execute(sql`rollback to savepoint a`)
      await bus.publish(tx, paid('after the savepoint'))
    })
    const published = await rows(`select payload->>'paymentId' as id from bus.events order by id`)
    expect(new Set(published.map(({ id }) => id))).toEqual(
      new Set(['after a write', 'after the savepoint', 'first statement', 'second']),
    )
    expect(published).toHaveLength(4)
  })

  test('gives a duplicate the id of the first event, by either key, per tenant', async () => {
    const { url, count } = await createTestDatabase()
    const bus = testBus(url)
    const { transact } = open(url)
    const publish = async (more: object) => transact(async (tx) => bus.publish(tx, { ...paid('p'), ...more }))
    const first = await publish({ eventId: 'e1', idempotencyKey: 'k1' })
    expect(await publish({ eventId: 'e1' })).toEqual({ id: first.id, duplicate: true })
    expect(await publish({ idempotencyKey: 'k1' })).toEqual({ id: first.id, duplicate: true })
    expect(await publish({ tenantId: 'other', eventId: 'e1', idempotencyKey: 'k1' })).toMatchObject({
      duplicate: false,
    })
    expect(await count('select count(*) from bus.events')).toBe(2)
    expect(await count('select count(*) from bus.outbox')).toBe(2)
  })

  test('gives the loser of a race on one key the id of the winner', async () => {
    const { url, count } = await createTestDatabase()
    const bus = testBus(url)
    const { transact } = open(url)
    const published = await Promise.all(
      Array.from({ length: 12 }, async (_, i) =>
        transact(async (tx) => bus.publish(tx, { ...paid(`p${i}`), idempotencyKey: 'same' })),
      ),
    )
    expect(new Set(published.map(({ id }) => id)).size).toBe(1)
    expect(published.filter(({ duplicate }) => !duplicate)).toHaveLength(1)
    expect(await count('select count(*) from bus.events')).toBe(1)
  })

  test('publishes many events in one statement, in order, duplicates among them', async () => {
    const { url, rows } = await createTestDatabase()
    const bus = testBus(url)
    const { transact } = open(url)
    const many = Array.from({ length: 1000 }, (_, i) => ({ ...paid(`p${i}`), eventId: `e${i % 900}` }))
    const published = await transact(async (tx) => bus.publishMany(tx, many))
    expect(published).toHaveLength(1000)
    expect(published.slice(0, 900).every(({ duplicate }) => !duplicate)).toBe(true)
    expect(published.slice(900)).toEqual(published.slice(0, 100).map(({ id }) => ({ id, duplicate: true })))
    const stored = await rows('select id, event_id from bus.events order by id')
    expect(stored.map((row) => row['event_id'])).toEqual(many.slice(0, 900).map(({ eventId }) => eventId))
  })
})

test('publish refuses a handle whose connection died and was replaced underneath (postgres.js)', async () => {
  const { url, rows, count } = await createTestDatabase()
  const bus = testBus(url)
  await rows('create table public.state (note text)')
  const client = postgres(url, { max: 1, onnotice: () => {} })
  onTestFinished(async () => client.end({ timeout: 1 }))
  const db = drizzlePostgresJs({ client })
  const refused: unknown[] = []
  // The transaction rejects at once, while its callback goes on.
  const callback = Promise.withResolvers<void>()
  const transaction = db.transaction(async (tx) => {
    await tx.execute(sql`insert into public.state values ('before')`)
    await bus.publish(tx, paid('before'))
    const [row] = await tx.execute<{ pid: number }>(sql`select pg_backend_pid() as pid`)
    await rows('select pg_terminate_backend($1)', [row?.pid])
    // Another query makes the client reconnect, and the dead transaction's handle now sends to the new connection.
    await until('the client has reconnected', async () =>
      client`select 1`.then(
        () => true,
        () => false,
      ),
    )
    await tx.execute(sql`insert into public.state values ('escaped into autocommit')`)
    await bus.publish(tx, paid('escaped')).catch((error: unknown) => refused.push(error))
    callback.resolve()
  })
  transaction.catch(() => {})
  await callback.promise
  await expect(transaction).rejects.toBeInstanceOf(Error)
  // The driver's fault is real: the caller's own statement stayed behind ...
  expect(await rows('select note from public.state')).toEqual([{ note: 'escaped into autocommit' }])
  // ... but no event did.
  expect(refused).toMatchObject([{ code: 'BUS_NOT_IN_TRANSACTION' }])
  expect(await count('select count(*) from bus.events')).toBe(0)
})

test('publish fails the transaction with a clear error when the connection dies under it', async () => {
  const { url, rows, count } = await createTestDatabase()
  const bus = testBus(url)
  const pool = new pg.Pool({ connectionString: url, max: 2 })
  pool.on('error', () => {})
  pool.on('connect', (client) => client.on('error', () => {}))
  onTestFinished(async () => pool.end())
  const db = drizzleNodePostgres({ client: pool })
  const errors: unknown[] = []
  const transaction = db.transaction(async (tx) => {
    const { rows: found } = await tx.execute<{ pid: number }>(sql`select pg_backend_pid() as pid`)
    await rows('select pg_terminate_backend($1)', [found[0]?.pid])
    await bus.publish(tx, paid('p1')).catch((error: unknown) => {
      errors.push(error)
      throw error
    })
  })
  await expect(transaction).rejects.toBeInstanceOf(Error)
  expect(errors).toMatchObject([{ code: 'BUS_DATABASE_UNAVAILABLE', retryable: true }])
  expect(await count('select count(*) from bus.events')).toBe(0)
  await db.transaction(async (tx) => bus.publish(tx, paid('p2')))
  expect(await count('select count(*) from bus.events')).toBe(1)
})

test('tryPublish publishes on its own, and never throws when the database is away', async () => {
  const { url, count } = await createTestDatabase()
  const bus = testBus(url)
  expect(await bus.tryPublish(paid('p1'))).toMatchObject({ duplicate: false })
  expect(await count('select count(*) from bus.events')).toBe(1)
  const away = testBus('postgres://nobody@127.0.0.1:1/nowhere')
  expect(await away.tryPublish(paid('p2'))).toBeUndefined()
  expect(await away.health()).toMatchObject({ ok: false, database: 'down', failedTryPublishCount: 1 })
})

test('a bus with a source outside the allow-list cannot publish the type, one inside can', async () => {
  const { url, db, count } = await createTestDatabase()
  const usage = { type: 'usage.billed', tenantId: 'acme', payload: { units: 1 } } as const
  const adapter = testBus(url, { source: 'adapter' })
  await expect(db.transaction(async (tx) => adapter.publish(tx, usage))).rejects.toMatchObject({
    code: 'BUS_SOURCE_NOT_ALLOWED',
  })
  expect(await count('select count(*) from bus.events')).toBe(0)
  const billing = testBus(url, { source: 'billing' })
  await db.transaction(async (tx) => billing.publish(tx, usage))
  expect(await count('select count(*) from bus.events')).toBe(1)
  expect(Object.keys(paymentEvents)).toContain('usage.billed')
})
