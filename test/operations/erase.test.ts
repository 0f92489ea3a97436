import { expect, onTestFinished, test } from 'vitest'
import { NonRetryableError } from '../../src/index.ts'
import { testBus, recordingLogger, type PaymentBus } from '../support/bus.ts'
import { canary, traceOfCanary } from '../support/canary.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { createLogin } from '../support/roles.ts'
import { openSession } from '../support/session.ts'

const subject = 'customers/7'
const about = (payload: unknown, fields: Record<string, unknown> = {}) =>
  ({ type: 'note', tenantId: 'acme', subject, payload, ...fields }) as const
const by = 'dpo@example.org'

async function publish(
  bus: PaymentBus,
  { db }: TestDatabase,
  events: readonly ReturnType<typeof about>[],
): Promise<string[]> {
  return (await db.transaction(async (tx) => bus.publishMany(tx, events))).map(({ id }) => id)
}

/** Everything that is stored of payloads, in the bus's tables and pg-boss's. */
async function stored({ rows }: TestDatabase): Promise<string> {
  const tables = await rows(
    `select format('%I.%I', n.nspname, c.relname) as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.relkind = 'r' and n.nspname in ('bus', 'pgboss')`,
  )
  const texts = await Promise.all(
    tables.map(async ({ name }) => JSON.stringify(await rows(`select * from ${String(name)}`))),
  )
  return texts.join('\n')
}

test('erasing a subject replaces what its events carry, and leaves their ids, keys and receipts, and others', async () => {
  const database = await createTestDatabase()
  const { rows } = database
  const bus = testBus(database.url)
  const seen: unknown[] = []
  bus.subscribe({ name: 'seen', events: ['note'], handler: ({ payload }) => void seen.push(payload) })
  await bus.start()
  const [id = ''] = await publish(bus, database, [
    about({ secret: canary }, { metadata: { header: canary }, eventId: 'e-1', correlationId: 'c' }),
    about({ secret: canary.repeat(3000) }),
  ])
  await publish(bus, database, [
    about('another tenant', { tenantId: 'other' }),
    about('another subject', { subject: 'customers/70' }),
    about('no subject', { subject: undefined }),
  ])
  await until('all are delivered', () => seen.length === 5)
  expect(await stored(database)).toMatch(traceOfCanary)

  const erased = await bus.erase({ tenantId: 'acme', subject, by, reason: 'asked for it' })
  expect(erased).toMatchObject({ eventCount: 2, failureCount: 0 })
  expect(await stored(database)).not.toMatch(traceOfCanary)
  expect(
    await rows(
      `select payload, metadata, event_id, correlation_id, subject, erased_at is not null as erased,
         (select count(*)::int from bus.deliveries d where d.event_id = e.id and d.erased is null) as receipts
       from bus.events e where id = $1`,
      [id],
    ),
  ).toEqual([
    {
      payload: null,
      metadata: {},
      event_id: 'e-1',
      correlation_id: 'c',
      subject,
      erased: true,
      receipts: 1,
    },
  ])
  expect(await rows(`select payload from bus.events where erased_at is null order by id`)).toEqual([
    { payload: 'another tenant' },
    { payload: 'another subject' },
    { payload: 'no subject' },
  ])
  expect(await bus.events.get(id)).toMatchObject({
    payload: null,
    metadata: {},
    erasedAt: expect.any(Date) as Date,
  })
  expect((await bus.tenant('acme').events.get(id))?.erasedAt).toBeInstanceOf(Date)
  // A repetition of the publish does not bring it back.
  expect(
    await database.db.transaction(async (tx) =>
      bus.publish(tx, about({ secret: canary }, { eventId: 'e-1' })),
    ),
  ).toEqual({ id, duplicate: true })
  expect(await stored(database)).not.toMatch(traceOfCanary)

  const again = await bus.erase({ tenantId: 'acme', subject, by: 'somebody else' })
  expect(again).toMatchObject({ eventCount: 0, failureCount: 0 })
  expect(await bus.erasures.list({ tenantId: 'acme' })).toEqual([
    {
      ...{ id: again.id, tenantId: 'acme', subject, by: 'somebody else', reason: undefined },
      ...{ eventCount: 0, failureCount: 0 },
      ...{ startedAt: expect.any(Date) as Date, finishedAt: expect.any(Date) as Date },
    },
    {
      ...{ id: erased.id, tenantId: 'acme', subject, by, reason: 'asked for it' },
      ...{ eventCount: 2, failureCount: 0 },
      ...{ startedAt: expect.any(Date) as Date, finishedAt: expect.any(Date) as Date },
    },
  ])
  expect(await bus.erasures.list({ tenantId: 'other' })).toEqual([])
})

test.each(['at-least-once', 'exactly-once', 'ordered'] as const)(
  'events that wait, or that a process has fetched, are settled as erased and not delivered: %s',
  async (mode) => {
    const database = await createTestDatabase()
    const logger = recordingLogger()
    const bus = testBus(database.url, { logger })
    const seen: unknown[] = []
    const { promise: released, resolve: release } = Promise.withResolvers<void>()
    onTestFinished(() => release())
    const handler = async ({ payload }: { readonly payload: unknown }): Promise<void> => {
      seen.push(payload)
      if (payload === 'first') await released
    }
    const options = { name: 'seen', events: ['note'], concurrency: 1, handler } as const
    if (mode === 'ordered') bus.subscribe({ ...options, ordered: true })
    else bus.subscribe({ ...options, mode })
    await bus.start()
    // One job: its events are fetched while the first one runs.
    const key = { orderingKey: 'k' }
    await publish(bus, database, [
      about('first', { ...key, subject: 'customers/8' }),
      about({ secret: canary }, key),
      about('last', { ...key, subject: 'customers/8' }),
    ])
    await until('the first one runs', () => seen.length === 1)
    await publish(bus, database, [about({ secret: canary, later: true }, key)])
    expect(await bus.erase({ tenantId: 'acme', subject, by })).toMatchObject({ eventCount: 2 })
    release()
    await until(
      'all have receipts',
      async () => (await database.count('select count(*) from bus.deliveries')) === 4,
    )
    expect(seen).toEqual(['first', 'last'])
    expect(
      await database.rows(
        `select d.erased, d.expired, d.attempts from bus.deliveries d join bus.events e on e.id = d.event_id order by e.id`,
      ),
    ).toEqual([
      { erased: null, expired: false, attempts: 1 },
      { erased: true, expired: true, attempts: 0 },
      { erased: null, expired: false, attempts: 1 },
      { erased: true, expired: true, attempts: 0 },
    ])
    const all = await database.rows('select id from bus.events order by id')
    const states = await Promise.all(all.map(async ({ id }) => (await bus.deliveries(String(id)))[0]?.state))
    expect(states).toEqual(['delivered', 'erased', 'delivered', 'erased'])
    expect(
      logger.lines.filter(({ message }) => message === 'an event was erased before it was delivered'),
    ).toHaveLength(2)
    expect(await bus.deadLetters.list()).toEqual([])
    expect(JSON.stringify(logger.lines)).not.toMatch(traceOfCanary)
  },
)

test('scheduled events fire as erased, retries end, and what failed attempts quoted is emptied', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const retry = { maxAttempts: 2, delaySeconds: 8, backoff: false } as const
  const quoting = (payload: unknown): Error => new Error(`cannot take ${JSON.stringify(payload)}`)
  bus.subscribe({
    name: 'retrying',
    events: ['note'],
    retry,
    handler: async ({ payload }) => Promise.reject(quoting(payload)),
  })
  bus.subscribe({
    name: 'dead',
    events: ['note'],
    handler: ({ payload }) => {
      throw new NonRetryableError(quoting(payload).message)
    },
  })
  bus.subscribe({
    name: 'blocked',
    events: ['note'],
    ordered: true,
    retry: { ...retry, maxAttempts: 1 },
    handler: async ({ payload }) => Promise.reject(quoting(payload)),
  })
  await bus.start()
  await publish(bus, database, [about({ secret: canary }, { orderingKey: 'k' })])
  await publish(bus, database, [
    about({ secret: canary }, { availableAt: new Date(Date.now() + 7000), orderingKey: 'j' }),
  ])
  await until('one is dead', async () => (await bus.deadLetters.list({ subscription: 'dead' })).length === 1)
  await until('one is blocked', async () => (await bus.blockedKeys.list()).length === 1)
  await until(
    'one waits for its next attempt',
    async () =>
      (await database.count(
        `select count(*) from pgboss.job where name = 'bus.retrying' and state = 'retry' and output is not null`,
      )) === 1,
  )
  expect(await stored(database)).toMatch(traceOfCanary)

  const { failureCount } = await bus.erase({ tenantId: 'acme', subject, by })
  expect(failureCount).toBeGreaterThanOrEqual(4)
  expect(await stored(database)).not.toMatch(traceOfCanary)
  const [dead] = await bus.deadLetters.list({ subscription: 'dead' })
  expect(dead).toMatchObject({ attempts: 1, failures: [{ message: 'erased', code: 'BUS_NON_RETRYABLE' }] })
  expect((await bus.blockedKeys.list())[0]?.failures).toMatchObject([{ message: 'erased', name: 'Error' }])
  await bus.blockedKeys.release({ subscription: 'blocked', tenantId: 'acme', orderingKey: 'k' })
  // The first event: to `retrying` and `blocked`; the scheduled one: to all three.
  await until(
    'what waited is settled as erased',
    async () => (await database.count('select count(*) from bus.deliveries where erased')) === 5,
  )
  expect(await bus.blockedKeys.list()).toEqual([])
  expect(await stored(database)).not.toMatch(traceOfCanary)
})

test('an erasure that was cut off is gone on with, two at once count each event once, and publishing goes on', async () => {
  const database = await createTestDatabase()
  const { rows, count } = database
  const bus = testBus(database.url)
  await rows(
    `insert into bus.events (tenant_id, type, source, subject, payload)
     select 'acme', 'note', 'sql', $1, '{"a": 1}' from generate_series(1, 1800)`,
    [subject],
  )
  // The connection dies after the second part.
  await rows(`create function public.cut() returns trigger language plpgsql as $$
    begin
      if new.event_count >= 1000 and new.erased_by = 'cut' then perform pg_terminate_backend(pg_backend_pid()); end if;
      return new;
    end $$`)
  await rows('create trigger cut before update on bus.erasures for each row execute function public.cut()')
  await expect(bus.erase({ tenantId: 'acme', subject, by: 'cut' })).rejects.toMatchObject({
    code: 'BUS_DATABASE_UNAVAILABLE',
  })
  expect(await count('select count(*) from bus.events where erased_at is not null')).toBe(500)
  expect((await bus.erasures.list())[0]).toMatchObject({ by: 'cut', eventCount: 500, finishedAt: undefined })

  const erasing = Promise.all([
    bus.erase({ tenantId: 'acme', subject, by: 'a' }),
    bus.erase({ tenantId: 'acme', subject, by: 'b' }),
  ])
  await publish(bus, database, [about('published meanwhile', { tenantId: 'other' })])
  const counts = (await erasing).map(({ eventCount }) => eventCount)
  expect((counts[0] ?? 0) + (counts[1] ?? 0)).toBe(1300)
  expect(await count('select count(*) from bus.events where erased_at is null')).toBe(1)
  await publish(bus, database, [about('published later')])
  expect(await rows('select payload from bus.events where erased_at is null order by id')).toEqual([
    { payload: 'published meanwhile' },
    { payload: 'published later' },
  ])
})

test.each<[string, unknown]>([
  ['nothing', undefined],
  ['no tenant', { subject, by }],
  ['no subject', { tenantId: 'acme', subject: '', by }],
  ['nobody', { tenantId: 'acme', subject }],
  ['a subject that is too long', { tenantId: 'acme', subject: canary.repeat(100), by }],
  ['NUL', { tenantId: 'acme', subject: `${canary}\u0000`, by }],
  ['an unknown option', { tenantId: 'acme', subject, by, force: true }],
])('erase refuses %s, and does not show the subject', async (_what, options) => {
  const bus = testBus('postgres://nobody@127.0.0.1:1/none')
  const error: unknown = await bus.erase(options as never).catch((thrown: unknown) => thrown)
  expect(error).toMatchObject({ code: 'BUS_INVALID_OPTION' })
  expect(String(error)).not.toMatch(traceOfCanary)
})

test('the longest subject can be published and erased', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  // Four bytes each, and hard to compress: an index entry could not hold them.
  const longest = Array.from({ length: 512 }, (_, i) =>
    String.fromCodePoint(0x20000 + ((i * 7919) % 40_000)),
  ).join('')
  await publish(bus, database, [about('x', { subject: longest })])
  expect(await bus.erase({ tenantId: 'acme', subject: longest, by })).toMatchObject({ eventCount: 1 })
})

test('an operator erases, and can change the log in no other way; who only works or publishes cannot', async () => {
  const database = await createTestDatabase()
  await publish(testBus(database.url), database, [about({ secret: canary })])
  const erase = { tenantId: 'acme', subject, by }
  const worker = await createLogin(database, ['bus_worker'])
  await expect(testBus(worker.url).erase(erase)).rejects.toMatchObject({ sqlState: '42501' })
  const operator = await createLogin(database, ['bus_operator'])
  const session = await openSession({ ...database, url: operator.url })
  await expect(session.rows(`update bus.events set payload = '1'`)).rejects.toMatchObject({ code: '42501' })
  expect(await testBus(operator.url).erase(erase)).toMatchObject({ eventCount: 1 })
  expect(await stored(database)).not.toMatch(traceOfCanary)
})
