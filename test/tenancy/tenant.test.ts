import { sql } from 'drizzle-orm'
import { expect, test } from 'vitest'
import { RetryAfterError, type HistoryEvent } from '../../src/index.ts'
import { deliveries, events } from '../../src/schema.ts'
import { testBus, type PaymentBus } from '../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { createLogin } from '../support/roles.ts'

const note = { type: 'note', tenantId: 'acme', payload: 1 } as const

async function publish(
  { db }: TestDatabase,
  bus: PaymentBus,
  ...given: Parameters<PaymentBus['publishMany']>[1]
): Promise<string[]> {
  return (await db.transaction(async (tx) => bus.publishMany(tx, given))).map(({ id }) => id)
}

const ids = (found: readonly HistoryEvent[]): string[] => found.map(({ id }) => id)

test('find gives a page of the tenant, newest first or oldest first, and goes on behind an event', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const acme = await publish(database, bus, ...Array.from({ length: 5 }, () => note))
  const [rival = ''] = await publish(database, bus, { ...note, tenantId: 'rival' })
  const { find } = bus.tenant('acme').events
  expect(ids(await find())).toEqual(acme.toReversed())
  expect(ids(await find({ order: 'oldest' }))).toEqual(acme)
  expect(ids(await find({ limit: 2 }))).toEqual([acme[4], acme[3]])
  expect(ids(await find({ limit: 2, after: acme[3] }))).toEqual([acme[2], acme[1]])
  expect(ids(await find({ limit: 2, after: acme[3], order: 'oldest' }))).toEqual([acme[4]])
  expect(ids(await bus.tenant('rival').events.find())).toEqual([rival])
  expect(await bus.tenant('nobody').events.find()).toEqual([])
  // The operator sees both, or the one that is named.
  expect(ids(await bus.events.find())).toEqual([rival, ...acme.toReversed()])
  expect(ids(await bus.events.find({ tenantId: 'rival' }))).toEqual([rival])
})

test('find filters by type, correlation and time', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const paid = {
    type: 'payment.paid',
    tenantId: 'acme',
    payload: { paymentId: 'p', amountCents: 1 },
  } as const
  const [first = '', second = '', third = ''] = await publish(
    database,
    bus,
    { ...note, correlationId: 'flow' },
    paid,
    { ...paid, correlationId: 'flow' },
  )
  const [old] = await database.rows(
    `insert into bus.events (id, tenant_id, type, source, payload, created_at)
     values ('016f5e66-e800-7000-8000-000000000000', 'acme', 'gone.by', 'sql', '1', '2020-01-01T00:00:00Z') returning id`,
  )
  const { find } = bus.tenant('acme').events
  expect(ids(await find({ type: 'payment.paid' }))).toEqual([third, second])
  expect(ids(await find({ type: ['note', 'gone.by'] }))).toEqual([first, old?.['id']])
  expect(ids(await find({ correlationId: 'flow' }))).toEqual([third, first])
  expect(ids(await find({ correlationId: 'flow', type: 'note' }))).toEqual([first])
  expect(ids(await find({ to: new Date('2020-01-01T00:00:00.001Z') }))).toEqual([old?.['id']])
  expect(ids(await find({ to: new Date('2020-01-01T00:00:00Z') }))).toEqual([])
  expect(ids(await find({ from: new Date('2020-01-01T00:00:00.001Z') }))).toEqual([third, second, first])
  expect(await find({ type: 'never' })).toEqual([])
})

test('get gives every field of an event of the tenant, and nothing of another one', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const availableAt = new Date(Date.now() + 3_600_000)
  const expiresAt = new Date(Date.now() + 7_200_000)
  const fields = {
    ...note,
    payload: { nested: ['ü', null] },
    eventId: 'e',
    idempotencyKey: 'k',
    correlationId: 'c',
    causationId: '0190b5a0-0000-7000-8000-000000000001',
    orderingKey: 'o',
    subject: 's',
    metadata: { traceparent: '00' },
    availableAt,
    expiresAt,
  } as const
  const [id = ''] = await publish(database, bus, fields)
  const got = await bus.tenant('acme').events.get(id)
  expect(got).toEqual({
    ...fields,
    id,
    source: 'payment-service',
    schemaVersion: 1,
    cancelledAt: undefined,
    createdAt: expect.any(Date) as Date,
  })
  expect(await bus.events.get(id)).toEqual(got)
  expect(await bus.tenant('rival').events.get(id)).toBeUndefined()
  expect(await bus.tenant('acme').events.get('0190b5a0-0000-7000-8000-000000000001')).toBeUndefined()
  await bus.cancel(id)
  expect((await bus.tenant('acme').events.get(id.toUpperCase()))?.cancelledAt).toBeInstanceOf(Date)
})

test('trace gives a correlation from its root on, each event behind its cause', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({
    name: 'reacts',
    events: ['payment.paid'],
    handler: async ({ tenantId }, ctx) => {
      await ctx.publish({ type: 'note', tenantId, payload: 'caused' })
    },
  })
  await bus.start()
  const paid = { type: 'payment.paid', payload: { paymentId: 'p', amountCents: 1 } } as const
  const [root = '', rival = ''] = await publish(
    database,
    bus,
    { ...paid, tenantId: 'acme' },
    { ...paid, tenantId: 'rival' },
  )
  await until(
    'both have led to another',
    async () => (await database.count('select count(*) from bus.events')) === 4,
  )
  const trace = await bus.tenant('acme').events.trace(root)
  expect(trace.map(({ type, causationId }) => [type, causationId])).toEqual([
    ['payment.paid', undefined],
    ['note', root],
  ])
  expect(await bus.tenant('acme').events.trace(rival)).toEqual([])
  expect(await bus.events.trace(rival)).toHaveLength(2)
  expect(await bus.events.trace(rival, { tenantId: 'acme' })).toEqual([])
  expect(await bus.events.trace(root, { tenantId: 'acme' })).toEqual(trace)
  // Two tenants may use one correlation id: each sees its own part.
  for (const tenantId of ['acme', 'rival'])
    await publish(database, bus, { ...note, tenantId, correlationId: 'shared' })
  expect((await bus.tenant('rival').events.trace('shared')).map(({ tenantId }) => tenantId)).toEqual([
    'rival',
  ])
  expect(await bus.events.trace('shared')).toHaveLength(2)
  // An effect whose id is before that of its cause, because a clock was set back, still comes behind it.
  await database.rows(
    `insert into bus.events (id, tenant_id, type, source, payload, correlation_id, causation_id, created_at) values
       ('0190b5a0-0000-7000-8000-000000000001', 'acme', 'effect', 'sql', '1', 'back', '0190b5a0-0000-7000-8000-000000000002', '2024-07-15'),
       ('0190b5a0-0000-7000-8000-000000000002', 'acme', 'cause', 'sql', '1', 'back', null, '2024-07-15')`,
  )
  expect((await bus.tenant('acme').events.trace('back')).map(({ type }) => type)).toEqual(['cause', 'effect'])
})

test('deliveries say how an event stands with each subscription, to its tenant and to the operator', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  let release = (): void => {}
  const held = new Promise<void>((resolve) => (release = resolve))
  bus.subscribe({ name: 'delivered', events: ['note'], handler: () => {} })
  bus.subscribe({ name: 'delivering', events: ['note'], handler: async () => held })
  bus.subscribe({
    name: 'retrying',
    events: ['note'],
    handler: () => {
      throw new RetryAfterError(3600, 'not now')
    },
  })
  bus.subscribe({
    name: 'dead',
    events: ['note'],
    retry: { maxAttempts: 1 },
    handler: ({ tenantId }) => {
      throw Object.assign(new Error(`refused for ${tenantId}`), { code: 'E_REFUSED' })
    },
  })
  bus.subscribe({ name: 'other', events: ['payment.*'], handler: () => {} })
  const [id = ''] = await publish(database, bus, note)
  const [rival = ''] = await publish(database, bus, { ...note, tenantId: 'rival' })
  expect(await bus.deliveries(id)).toEqual([])
  await bus.start()
  const [again = ''] = await publish(database, bus, note)
  await publish(database, bus, { ...note, tenantId: 'rival' })
  const states = async (): Promise<string[]> =>
    (await bus.deliveries(again)).map(({ subscription, state }) => `${subscription} ${state}`)
  await until('each is where it will stay', async () => {
    const found = await states()
    return found.length === 4 && found.every((text) => text.split(' ')[0] === text.split(' ')[1])
  })
  const found = await bus.tenant('acme').deliveries(again)
  expect(found).toMatchObject([
    {
      subscription: 'dead',
      attempts: 1,
      lastError: {
        name: 'Error',
        message: 'refused for acme',
        code: 'E_REFUSED',
        at: expect.any(Date) as Date,
      },
    },
    { subscription: 'delivered', attempts: 1, lastError: undefined, deliveredAt: expect.any(Date) as Date },
    { subscription: 'delivering', attempts: 0, lastError: undefined },
    {
      subscription: 'retrying',
      attempts: 1,
      lastError: { code: 'BUS_RETRY_AFTER', message: 'not now' },
      dueAt: expect.any(Date) as Date,
    },
  ])
  const all = await bus.deliveries(again)
  expect(
    all.map((delivery) => ({
      ...delivery,
      timeline: delivery.timeline.map((attempt) => ({ ...attempt, instanceId: undefined })),
    })),
  ).toEqual(found)
  expect(all.flatMap(({ timeline }) => timeline.map(({ instanceId }) => typeof instanceId))).toContain(
    'string',
  )
  expect(await bus.tenant('rival').deliveries(again)).toEqual([])
  expect(await bus.tenant('acme').deliveries(rival)).toEqual([])
  release()
})

test('dead letters and statistics of a tenant are about its events alone, also where jobs hold those of several', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const fail = ({ tenantId }: { tenantId: string }): never => {
    throw new Error(`canary of ${tenantId}`)
  }
  const retry = { maxAttempts: 1 }
  bus.subscribe({ name: 'dies', events: ['note'], retry, handler: fail })
  bus.subscribe({
    name: 'parks',
    events: ['note'],
    retry,
    ordered: true,
    onKeyFailure: 'park',
    handler: fail,
  })
  bus.subscribe({ name: 'works', events: ['**'], handler: () => {} })
  await bus.start()
  const mixed = Array.from({ length: 6 }, (_, i) => ({
    ...note,
    tenantId: i % 2 === 0 ? 'acme' : 'rival',
    orderingKey: 'line',
  }))
  await publish(database, bus, ...mixed, { type: 'usage.none', tenantId: 'acme', payload: 1 } as never).catch(
    () => {},
  )
  await publish(database, bus, ...mixed)
  await until('all have failed', async () => (await bus.deadLetters.list()).length === 12)
  await until(
    'all have worked',
    async () => (await database.count('select count(*) from bus.deliveries')) === 6,
  )
  const tenant = bus.tenant('acme')
  const letters = await tenant.deadLetters.list()
  expect(letters.map(({ subscription }) => subscription).toSorted()).toEqual([
    ...['dies', 'dies', 'dies'],
    ...['parks', 'parks', 'parks'],
  ])
  expect(JSON.stringify(letters)).not.toContain('rival')
  expect(JSON.stringify(letters)).not.toContain('stack')
  expect(letters.filter(({ failures }) => failures[0]?.message === 'canary of acme')).toHaveLength(4)
  const all = await bus.deadLetters.list()
  const mine = new Set(ids(await tenant.events.find()))
  expect(letters.map(({ jobId }) => jobId)).toEqual(
    all.filter(({ id }) => mine.has(id)).map(({ jobId }) => jobId),
  )
  expect(await tenant.deadLetters.list({ subscription: 'dies', limit: 2 })).toHaveLength(2)
  await expect(tenant.deadLetters.list({ subscription: 'nothing' })).rejects.toMatchObject({
    code: 'BUS_SUBSCRIPTION_NOT_FOUND',
  })
  expect(await tenant.stats()).toEqual({
    eventCount: 3,
    types: [{ type: 'note', count: 3 }],
    deliveries: [
      { subscription: 'dies', deliveredCount: 0, expiredCount: 0, waitingCount: 0, deadCount: 3 },
      { subscription: 'parks', deliveredCount: 0, expiredCount: 0, waitingCount: 0, deadCount: 3 },
      { subscription: 'works', deliveredCount: 3, expiredCount: 0, waitingCount: 0, deadCount: 0 },
    ],
  })
  expect(await tenant.stats({ to: new Date('2020-01-01') })).toEqual({
    eventCount: 0,
    types: [],
    deliveries: [],
  })
})

test('a query that forgets its WHERE sees one tenant, in Drizzle and in SQL, joins and counts included', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  await publish(database, bus, note, note, { ...note, tenantId: 'rival' })
  await database.rows(
    `insert into bus.receipts (subscription_id, event_id, attempts, duration_ms) select 1, id, 1, 1 from bus.events`,
  )
  const tenant = bus.tenant('acme')
  expect(await tenant.query(async (db) => db.select().from(events))).toHaveLength(2)
  expect(await tenant.query(async (db) => db.select().from(deliveries))).toHaveLength(2)
  const counted = await tenant.query(async (db) =>
    db.execute(
      sql`select count(*)::int as count from bus.events e left join bus.deliveries d on d.event_id = e.id where ${'x'} = 'x'`,
    ),
  )
  expect(counted.rows).toEqual([{ count: 2 }])
  expect(await tenant.query(async (db) => db.transaction(async (tx) => tx.$count(events)))).toBe(2)
  expect(await bus.tenant('rival').query(async (db) => db.$count(events))).toBe(1)
  // What it throws comes through as it is.
  const mistake = new RangeError('mine')
  await expect(tenant.query(async () => Promise.reject(mistake))).rejects.toBe(mistake)
})

test('what would leave the scope of a query is refused, and the connection goes back as it was', async () => {
  const database = await createTestDatabase()
  const bus = testBus({ connectionString: database.url, max: 1 })
  await publish(database, bus, note, { ...note, tenantId: 'rival' })
  const tenant = bus.tenant('acme')
  const outside = { code: 'BUS_OUTSIDE_TENANT_SCOPE' }
  for (const text of [
    'reset role',
    'set role postgres',
    'set local bus.tenant_id = rival',
    ' /* a */ -- b\n set session authorization default',
    'commit',
    'rollback',
    'discard all',
    'do $$ begin execute $x$reset role$x$; end $$',
    'begin',
    'create table mine ()',
    'delete from bus.events',
    'call something()',
    'prepare x as select 1',
    'execute x',
    'copy bus.events to stdout',
  ])
    await expect(tenant.query(async (db) => db.execute(sql.raw(text)))).rejects.toMatchObject(outside)
  // Two statements in one text, which would be one message without values.
  await expect(tenant.query(async (db) => db.execute(sql.raw('select 1; reset role')))).rejects.toMatchObject(
    { name: 'DatabaseError', sqlState: '42601' },
  )
  // A function that writes, in a statement that reads.
  await expect(
    tenant.query(async (db) =>
      db.execute(sql`with gone as (delete from bus.events returning 1) select * from gone`),
    ),
  ).rejects.toMatchObject({
    name: 'DatabaseError',
    sqlState: expect.stringMatching(/^(42501|25006)$/) as string,
  })
  for (const change of [
    sql`select set_config('bus.tenant_id', 'rival', true)`,
    sql`select set_config('role', 'none', false)`,
  ])
    await expect(
      tenant.query(async (db) => {
        await db.execute(change)
        return db.select().from(events)
      }),
    ).rejects.toMatchObject(outside)
  let kept: Parameters<Parameters<typeof tenant.query>[0]>[0] | undefined
  await tenant.query(async (db) => {
    kept = db
  })
  await expect((async () => kept?.select().from(events))()).rejects.toMatchObject({ cause: outside })
  // The one connection of the pool is the bus's own again, whatever happened on it.
  expect(ids(await bus.events.find())).toHaveLength(2)
  expect(ids(await tenant.events.find())).toHaveLength(1)
})

test('arguments that are none are refused before anything is sent', async () => {
  const bus = testBus('postgres://nobody@127.0.0.1:1/nowhere')
  const invalid = { code: 'BUS_INVALID_OPTION' }
  for (const id of ['', 'x'.repeat(256), 'a\u0000b', '\ud800', 7, null, undefined])
    expect(() => bus.tenant(id as string)).toThrow(expect.objectContaining(invalid))
  const { events: history, query, deliveries: deliveriesOf, deadLetters, stats } = bus.tenant('acme')
  for (const filter of [
    ...[null, 7, [], { typ: 'note' }, { type: '' }, { type: [] }, { type: 'a\u0000' }, { type: [7] }],
    ...[{ from: '2020' }, { to: new Date(Number.NaN) }, { from: new Date(-1e15) }, { after: 'x' }],
    ...[{ limit: 0 }, { limit: 1001 }, { limit: 1.5 }, { order: 'random' }, { correlationId: '' }],
    { tenantId: 'rival' },
  ])
    await expect(history.find(filter as never)).rejects.toMatchObject(invalid)
  for (const id of ['', 'x', 7, undefined, `0190b5a0-0000-7000-8000-000000000001'`]) {
    await expect(history.get(id as string)).rejects.toMatchObject(invalid)
    await expect(deliveriesOf(id as string)).rejects.toMatchObject(invalid)
    await expect(bus.deliveries(id as string)).rejects.toMatchObject(invalid)
  }
  await expect(history.trace('')).rejects.toMatchObject(invalid)
  await expect(history.trace('c', { tenantId: 'rival' } as never)).rejects.toMatchObject(invalid)
  await expect(bus.events.trace('c', { limit: 10_001 })).rejects.toMatchObject(invalid)
  await expect(stats({ form: new Date() } as never)).rejects.toThrow('Did you mean `from`?')
  await expect(deadLetters.list({ limit: 0 })).rejects.toMatchObject(invalid)
  await expect(deadLetters.list({ subscription: 7 } as never)).rejects.toMatchObject(invalid)
  await expect(query(7 as never)).rejects.toMatchObject(invalid)
})

test('names of tenants are data, whatever they hold', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const names = [`'; reset role; --`, `\\'; drop schema bus cascade; --`, 'ü\n"€', '$$', '%s', '__proto__']
  for (const tenantId of names) await publish(database, bus, { ...note, tenantId })
  for (const tenantId of names)
    expect((await bus.tenant(tenantId).events.find()).map((event) => event.tenantId)).toEqual([tenantId])
})

test('where the role is missing or may not be taken, bus.tenant says what to run', async () => {
  const database = await createTestDatabase()
  // A role that may do all the rest, and is no member of bus_tenant.
  const login = await createLogin(database, ['bus_worker'])
  const bus = testBus(login.url)
  await expect(bus.tenant('acme').events.find()).rejects.toMatchObject({
    code: 'BUS_ROLE_MISSING',
    retryable: false,
    message: expect.stringContaining('bus.migrate()') as string,
  })
  await database.rows(`grant bus_tenant to ${login.name}`)
  expect(await bus.tenant('acme').events.find()).toEqual([])
})
