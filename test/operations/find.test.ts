import { expect, onTestFinished, test } from 'vitest'
import { z } from 'zod'
import { createBus, defineEvents, type EventSearch } from '../../src/index.ts'
import { recordingLogger, testBus } from '../support/bus.ts'
import { canary } from '../support/canary.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { publish, retryAtOnce } from '../support/ledger.ts'

const note = { type: 'note', tenantId: 'acme', payload: 1 } as const
const paid = { type: 'payment.paid', tenantId: 'acme', payload: { paymentId: 'p1', amountCents: 5 } } as const

const ids = (events: readonly { readonly id: string }[]): string[] => events.map(({ id }) => id)

/** Inserts events of several months as plain SQL, without the outbox, and returns their ids, oldest first. */
async function insertMonths({ rows }: TestDatabase, monthCount: number, perMonth: number): Promise<string[]> {
  const inserted = await rows(
    `insert into bus.events (id, created_at, tenant_id, type, source, subject, payload)
     select overlay(bus.uuid_v7_floor(t)::text placing '7' from 15)::uuid, t, 'tenant-' || n % 3, case when n % 2 = 0 then 'payment.paid' else 'note' end,
       'sql-' || n % 5, 'subject-' || n % 7, jsonb_build_object('n', n, 'm', m)
     from generate_series(${monthCount - 1}, 0, -1) m
     cross join generate_series(1, ${perMonth}) n
     cross join lateral (select now() - m * interval '31 days' - interval '1 hour' + n * interval '1 second' as t) t
     order by t returning id`,
  )
  await rows('truncate bus.outbox')
  return inserted.map(({ id }) => String(id))
}

test('each attribute finds its events, and nothing of other tenants where two have the same', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const [a = '', b = '', c = ''] = await publish(
    database,
    bus,
    { ...note, eventId: 'order-7', idempotencyKey: 'key-7', subject: 'customer-7', correlationId: 'flow' },
    { ...paid, subject: 'customer-7', correlationId: 'flow', orderingKey: 'line' },
    { ...note, tenantId: 'rival', eventId: 'order-7', subject: 'customer-7', orderingKey: 'line' },
  )
  await database.rows(`update bus.events set causation_id = $1 where id = $2`, [a, b])
  const find = async (filter: Parameters<typeof bus.events.find>[0]) => ids(await bus.events.find(filter))
  expect(await find({ eventId: 'order-7' })).toEqual([c, a])
  expect(await find({ eventId: 'order-7', tenantId: 'acme' })).toEqual([a])
  expect(await find({ eventId: 'order-7', type: 'payment.paid' })).toEqual([])
  expect(await find({ idempotencyKey: 'key-7' })).toEqual([a])
  expect(await find({ subject: 'customer-7' })).toEqual([c, b, a])
  expect(await find({ subject: 'customer-7', tenantId: 'rival' })).toEqual([c])
  expect(await find({ subject: 'customer-7', source: 'payment-service', order: 'oldest' })).toEqual([a, b, c])
  expect(await find({ subject: 'customer-7', source: 'other' })).toEqual([])
  expect(await find({ correlationId: 'flow' })).toEqual([b, a])
  expect(await find({ causationId: a })).toEqual([b])
  expect(await find({ orderingKey: 'line' })).toEqual([c, b])
  expect(await find({ orderingKey: 'line', tenantId: 'acme' })).toEqual([b])
  expect(await find({ orderingKey: 'line', correlationId: 'flow' })).toEqual([b])
  expect(await find({ orderingKey: 'other' })).toEqual([])
  expect(await find({ pattern: 'payment.*' })).toEqual([b])
  expect(await find({ pattern: ['payment.*', 'note'] })).toEqual([c, b, a])
  expect(await find({ pattern: '**', tenantId: 'acme' })).toEqual([b, a])
  expect(await find({ pattern: 'payment.*', type: 'note' })).toEqual([])
  expect(await find({ pattern: 'payment.*', tenantId: 'acme' })).toEqual([b])
  expect(await find({ payload: { paymentId: 'p1' } })).toEqual([b])
  expect(await find({ payload: { paymentId: 'p2' } })).toEqual([])
  expect(await find({ source: 'payment-service', limit: 2 })).toEqual([c, b])
  expect(await find({ source: 'payment-service', limit: 2, after: b })).toEqual([a])
  const mine = bus.tenant('rival').events
  expect(ids(await mine.find({ eventId: 'order-7' }))).toEqual([c])
  expect(ids(await mine.find({ subject: 'customer-7' }))).toEqual([c])
  expect(ids(await mine.find({ pattern: '*' }))).toEqual([c])
  expect(ids(await mine.find({ orderingKey: 'line' }))).toEqual([c])
  for (const filter of [
    { correlationId: 'flow' },
    { causationId: a },
    { idempotencyKey: 'key-7' },
    { payload: { paymentId: 'p1' } },
  ])
    expect([filter, await mine.find(filter)]).toEqual([filter, []])
  expect(ids(await bus.tenant('acme').events.find({ payload: { paymentId: 'p1' } }))).toEqual([b])
})

test('a filter that is not one is refused', async () => {
  const bus = testBus((await createTestDatabase()).url)
  const bad = [
    { pattern: 'a.**.b' },
    { pattern: [] },
    { source: '' },
    { causationId: '7' },
    { status: 'lost' },
    { status: { state: 'dead', queue: 'x' } },
    { payload: 'text' },
    { payload: [] },
    { payload: { text: 'x'.repeat(10_000) } },
    { payload: { text: '\u0000' } },
    { payload: { n: 1n } },
    { readLimit: 5 },
  ]
  for (const filter of bad) {
    const error: unknown = await bus.events.find(filter as never).catch((thrown: unknown) => thrown)
    expect([Object.keys(filter), (error as { code?: unknown }).code]).toEqual([
      Object.keys(filter),
      expect.stringMatching(/^BUS_INVALID_(?:OPTION|PATTERN)$/),
    ])
  }
  await expect(bus.events.search({ readLimit: 0 })).rejects.toMatchObject({ code: 'BUS_INVALID_OPTION' })
  await expect(bus.events.find({ status: { state: 'dead', subscription: 'never' } })).rejects.toMatchObject({
    code: 'BUS_SUBSCRIPTION_NOT_FOUND',
  })
})

test('a search reads a bounded part of the log, says how far it came, and finds each event once when it goes on', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const all = await insertMonths(database, 3, 200)
  for (const order of ['newest', 'oldest'] as const)
    for (const filter of [
      { source: 'sql-2' },
      { source: 'sql-2', tenantId: 'tenant-1' },
      { source: 'sql-2', type: ['note', 'payment.paid'] },
      { source: 'sql-2', pattern: ['no*te', 'payment.*', 'note'].slice(1) },
      { subject: 'subject-3' },
      { payload: { n: 7 } },
    ]) {
      const wanted = await database.rows(
        `select id from bus.events where case $1 when 'source' then source = 'sql-2' when 'subject' then subject = 'subject-3' else type = 'payment.paid' and payload @> '{"n": 7}' or type = 'note' and payload @> '{"n": 7}' end
           and ($2::text is null or tenant_id = $2) order by id ${order === 'newest' ? 'desc' : 'asc'}`,
        [Object.keys(filter)[0], (filter as { tenantId?: string }).tenantId ?? null],
      )
      const found: string[] = []
      let page: EventSearch | undefined
      let pages = 0
      do {
        page = await bus.events.search({ ...filter, order, readLimit: 100, limit: 15, after: page?.next })
        expect(page.searched.readCount).toBeLessThanOrEqual(101)
        expect(page.searched.through === undefined).toBe(page.next === undefined)
        found.push(...ids(page.events))
        pages += 1
      } while (page.next !== undefined && pages < 200)
      expect([filter, found]).toEqual([filter, wanted.map(({ id }) => id)])
      expect(ids(await bus.events.find({ ...filter, order, limit: 1000 }))).toEqual(found)
      expect(pages).toBeGreaterThan('subject' in filter ? 1 : 2)
    }
  const first = await bus.events.search({ source: 'never', readLimit: 100 })
  expect(first).toMatchObject({ events: [], searched: { readCount: 100 } })
  // Since when: the hundredth event from the end.
  const [hundredth] = await database.rows(
    `select extract(epoch from created_at) * 1000 as ms from bus.events where id = $1`,
    [all.at(-100)],
  )
  expect(Math.abs(Number(first.searched.through) - Number(hundredth?.['ms']))).toBeLessThan(2)
  // What is published meanwhile is newer than the next page.
  await publish(database, bus, note)
  const second = await bus.events.search({ source: 'never', readLimit: 100, after: first.next })
  expect(Number(second.searched.through)).toBeLessThan(Number(first.searched.through))
  // What an index answers is complete at once.
  expect(
    await bus.events.search({ tenantId: 'tenant-1', subject: 'subject-3', readLimit: 1, limit: 1000 }),
  ).toMatchObject({
    next: undefined,
    searched: { readCount: 0, through: undefined, unsearchedTypes: [] },
  })
})

test("a tenant's events by type: the same as all of its events, filtered, in both orders and page by page", async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  await insertMonths(database, 3, 60)
  await database.rows(`insert into bus.receipts (subscription_id, event_id, attempts, duration_ms)
    select 1, id, 1, 1 from bus.events where (payload ->> 'n')::int % 3 = 0`)
  const all = await bus.events.find({ tenantId: 'tenant-1', limit: 1000 })
  expect(all.length).toBeGreaterThan(50)
  const filters = [
    { type: 'payment.paid' },
    { type: 'never' },
    { type: ['payment.paid', 'note'] },
    { pattern: 'payment.*' },
    { pattern: ['*.paid', 'other'], type: 'payment.paid' },
    { type: 'note', source: 'sql-3' },
    { pattern: '**', payload: { m: 1 }, type: 'note' },
  ] as const
  for (const filter of filters) {
    const { type, source, payload } = { type: undefined, source: undefined, payload: undefined, ...filter }
    const wanted = all.filter(
      (event) =>
        (type === undefined
          ? event.type === 'payment.paid'
          : [type].flat().some((name) => name === event.type)) &&
        (source === undefined || event.source === source) &&
        (payload === undefined || (event.payload as { m: number }).m === payload.m),
    )
    expect(wanted.length > 0).toBe(type !== 'never')
    for (const order of ['newest', 'oldest'] as const) {
      const expected = ids(order === 'newest' ? wanted : wanted.toReversed())
      const given = { tenantId: 'tenant-1', order, ...filter }
      expect(ids(await bus.events.find({ ...given, limit: 1000 }))).toEqual(expected)
      const paged: string[] = []
      for (let after: string | undefined, isFirst = true; isFirst || after !== undefined; isFirst = false) {
        const page = await bus.events.search({ ...given, after, limit: 7, readLimit: 25 })
        paged.push(...ids(page.events))
        after = page.next
      }
      expect(paged).toEqual(expected)
    }
  }
  await bus.stop()
})

test('by state: of any subscription or of one, in the words of an outbox table too, with redriven and parked events', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const { promise, resolve } = Promise.withResolvers<void>()
  const fail = (): never => {
    throw new Error('refused')
  }
  bus.subscribe({ name: 'fine', events: ['**'], handler: () => {} })
  bus.subscribe({ name: 'dies', events: ['note'], retry: { ...retryAtOnce, maxAttempts: 1 }, handler: fail })
  bus.subscribe({
    name: 'retries',
    events: ['payment.paid'],
    retry: { maxAttempts: 3, delaySeconds: 600 },
    handler: fail,
  })
  bus.subscribe({
    ...{
      name: 'parks',
      events: ['note'],
      ordered: true,
      onKeyFailure: 'park',
      retry: { ...retryAtOnce, maxAttempts: 1 },
    },
    handler: fail,
  })
  bus.subscribe({
    name: 'slow',
    events: ['payment.refunded'],
    concurrency: 1,
    batchSize: 1,
    handler: async () => promise,
  })
  await bus.start()
  const refunded = { type: 'payment.refunded', tenantId: 'rival', payload: { paymentId: 'p' } } as const
  const [n1 = '', n2 = '', p1 = ''] = await publish(
    database,
    bus,
    { ...note, orderingKey: 'k' },
    { ...note, orderingKey: 'k' },
    paid,
  )
  const refunds = await publish(database, bus, refunded, refunded, refunded)
  const later = await publish(database, bus, { ...paid, availableAt: new Date(Date.now() + 3_600_000) })
  const find = async (status: NonNullable<Parameters<typeof bus.events.find>[0]>['status']) =>
    ids(await bus.events.find({ status, order: 'oldest' }))
  await until(
    'all are where they stay',
    async () =>
      (await find('delivering')).length === 1 &&
      (await find('retrying')).length === 1 &&
      (await find('dead')).length === 2 &&
      (await find({ state: 'dead', subscription: 'parks' })).length === 2 &&
      (await find({ state: 'delivered', subscription: 'fine' })).length === 6,
  )
  expect(await find('dead')).toEqual([n1, n2])
  expect(await find('DEAD_LETTER')).toEqual([n1, n2])
  expect(await find({ state: 'dead', subscription: 'fine' })).toEqual([])
  expect(await find('FAILED')).toEqual([p1])
  expect(await find({ state: 'FAILED', subscription: 'retries' })).toEqual([p1])
  expect(await find('PROCESSING')).toEqual([refunds[0]])
  expect(await find({ state: 'waiting', subscription: 'slow' })).toEqual(refunds.slice(1))
  expect(await find('PENDING')).toEqual([...refunds.slice(1), ...later])
  expect(await find({ state: 'waiting', subscription: 'dies' })).toEqual([])
  expect(await find({ state: 'PUBLISHED', subscription: 'fine' })).toEqual([n1, n2, p1, ...refunds])
  expect(await find({ state: 'delivered', subscription: 'slow' })).toEqual([])
  expect(await find('expired')).toEqual([])
  expect(ids(await bus.events.find({ status: 'dead', type: 'payment.paid' }))).toEqual([])
  expect(ids(await bus.events.find({ status: 'retrying', payload: { paymentId: 'p1' } }))).toEqual([p1])
  expect(ids(await bus.events.find({ status: 'retrying', payload: { paymentId: 'p2' } }))).toEqual([])
  // Of a tenant: its own.
  const rival = bus.tenant('rival').events
  expect(await rival.find({ status: 'dead' })).toEqual([])
  expect(ids(await rival.find({ status: 'waiting' }))).toEqual(refunds.slice(1).toReversed())
  expect(ids(await rival.find({ status: 'delivered', order: 'oldest' }))).toEqual(refunds)
  expect(ids(await bus.tenant('acme').events.find({ status: 'dead' }))).toEqual([n2, n1])
  resolve()
  await until(
    'the others are delivered',
    async () => (await find({ state: 'delivered', subscription: 'slow' })).length === 3,
  )
  expect(await find('PENDING')).toEqual(later)
})

test('many waiting and dead events: the newest ones first, and each once', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({ name: 'behind', events: ['note'], batchSize: 10, handler: () => {} })
  await bus.start()
  await bus.subscriptions.pause('behind')
  const all: string[] = []
  for (let n = 0; n < 10; n += 1)
    all.push(...(await publish(database, bus, ...Array.from({ length: 100 }, () => note))))
  await until('they wait', async () => (await bus.subscriptions.list())[0]?.waitingCount === 1000)
  const found: string[] = []
  let page: EventSearch | undefined
  do {
    page = await bus.events.search({ status: 'waiting', limit: 1000, after: page?.next })
    expect(page.searched.readCount).toBeLessThanOrEqual(200)
    found.push(...ids(page.events))
  } while (page.next !== undefined)
  expect(found).toEqual(all.toReversed())
  await database.rows(
    `insert into bus.failing (subscription_id, event_id, state, attempts, tenant_id, job_id)
     select s.id, e.id, 'dead', 1, e.tenant_id, gen_random_uuid() from bus.subscriptions s cross join bus.events e`,
  )
  expect(ids(await bus.events.find({ status: 'dead', limit: 1000 }))).toEqual(all.toReversed())
  expect(ids(await bus.events.find({ status: 'dead', limit: 2, after: all[500], order: 'oldest' }))).toEqual(
    all.slice(501, 503),
  )
})

test('what may not be shown cannot be found out by searching for it', async () => {
  const { url, db, rows } = await createTestDatabase()
  const payload = z
    .object({ card: z.object({ number: z.string(), kind: z.string() }), items: z.array(z.unknown()) })
    .partial()
    .loose()
  const events = defineEvents({
    secret: { schema: payload, redact: ['card.number', 'items.0.pin', 'other.*'] },
    open: { schema: payload },
  })
  const bus = createBus({ database: url, events, source: 'tests', logger: recordingLogger() })
  onTestFinished(async () => bus.stop({ graceMs: 1000 }))
  const value = {
    card: { number: canary, kind: 'x' },
    items: [{ pin: canary }],
    other: { a: canary },
    number: 1,
  }
  const published = await db.transaction(async (tx) =>
    bus.publishMany(tx, [
      { type: 'secret', tenantId: 'acme', payload: value, subject: 'someone' },
      { type: 'open', tenantId: 'acme', payload: value, subject: 'someone' },
    ]),
  )
  await rows(
    `insert into bus.events (tenant_id, type, source, payload) values ('acme', 'unheard-of', 'sql', $1)`,
    [JSON.stringify(value)],
  )
  const [secret, open] = ids(published)
  const find = async (part: Record<string, unknown>) => ids(await bus.events.find({ payload: part }))
  expect(await find({ number: 1 })).toEqual([open, secret])
  expect(await find({ card: { kind: 'x' } })).toEqual([open, secret])
  for (const part of [
    { card: { number: canary } },
    { number: 1, card: { number: canary, kind: 'x' } },
    { items: [{ pin: canary }] },
    // An item is compared with items at any place.
    { items: [{}, { pin: canary }] },
    { items: [[{ pin: canary }]] },
    { other: { a: canary } },
    { other: { b: null } },
    { card: [{ number: canary }] },
  ]) {
    const { events: found, searched } = await bus.events.search({ payload: part })
    expect([part, ids(found).includes(secret ?? '')]).toEqual([part, false])
    expect(searched.unsearchedTypes).toEqual(['secret'])
    await expect(bus.events.find({ payload: part, type: 'secret' })).rejects.toMatchObject({
      code: 'BUS_INVALID_OPTION',
    })
    await expect(bus.tenant('acme').events.find({ payload: part, type: 'secret' })).rejects.toMatchObject({
      code: 'BUS_INVALID_OPTION',
    })
  }
  // The answer of `find` is complete: it does not leave types out.
  const hidden = { payload: { card: { number: canary } } }
  const message = expect.stringMatching(/`payload`.* for "secret"\. .*events\.search/) as string
  for (const type of [undefined, ['open', 'secret']] as const)
    for (const { find: findAll } of [bus.events, bus.tenant('acme').events])
      await expect(findAll({ ...hidden, type })).rejects.toMatchObject({
        code: 'BUS_INVALID_OPTION',
        message,
      })
  expect(ids(await bus.events.find({ ...hidden, type: 'open' }))).toEqual([open])
  // Nobody has said what of a type that the catalogue does not know may be shown.
  await expect(bus.events.find({ payload: { number: 1 }, type: 'unheard-of' })).rejects.toMatchObject({
    code: 'BUS_INVALID_OPTION',
  })
  await bus.erase({ tenantId: 'acme', subject: 'someone', by: 'ada' })
  expect(await find({ number: 1 })).toEqual([])
  expect(await find({})).toEqual([])
  expect(ids(await bus.events.find({ subject: 'someone' }))).toEqual([open, secret])
})
