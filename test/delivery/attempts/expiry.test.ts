import { expect, test } from 'vitest'
import { createEventReader, hasExpired } from '../../../src/delivery/attempts/event-reader.ts'
import { RetryAfterError, type StoredEvent } from '../../../src/index.ts'
import { recordingLogger, testBus, type PaymentBus } from '../../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'
import { countEffects, createEffects, writeEffect } from '../../support/effects.ts'

const note = (payload: string, expiresAt?: Date, availableAt?: Date) =>
  ({ type: 'note', tenantId: 'acme', payload, expiresAt, availableAt }) as const
const past = () => new Date(Date.now() - 60_000)
const inAnHour = () => new Date(Date.now() + 3_600_000)

async function publish(
  bus: PaymentBus,
  { db }: TestDatabase,
  events: readonly ReturnType<typeof note>[],
): Promise<string[]> {
  return (await db.transaction(async (tx) => bus.publishMany(tx, events))).map(({ id }) => id)
}

/** The receipts, by payload. */
async function receipts({ rows }: TestDatabase) {
  return rows(
    `select e.payload, d.expired, d.attempts from bus.deliveries d join bus.events e on e.id = d.event_id order by e.payload`,
  )
}

test.each(['at-least-once', 'exactly-once'] as const)(
  'an event that has expired is recorded as such and not delivered, alone or in a batch: %s',
  async (mode) => {
    const database = await createTestDatabase()
    await createEffects(database)
    const logger = recordingLogger()
    const bus = testBus(database.url, { logger })
    const seen: unknown[] = []
    bus.subscribe({ name: 'seen', events: ['note'], mode, handler: ({ payload }) => void seen.push(payload) })
    await bus.start()
    await publish(bus, database, [note('alone', past())])
    await publish(bus, database, [
      note('late', past()),
      note('in time', inAnHour()),
      note('never', undefined),
    ])
    await until('all have receipts', async () => (await receipts(database)).length === 4)
    expect(await receipts(database)).toEqual([
      { payload: 'alone', expired: true, attempts: 0 },
      { payload: 'in time', expired: false, attempts: 1 },
      { payload: 'late', expired: true, attempts: 0 },
      { payload: 'never', expired: false, attempts: 1 },
    ])
    expect(new Set(seen)).toEqual(new Set(['in time', 'never']))
    const expired = logger.lines.filter(
      ({ message }) => message === 'an event expired before it was delivered',
    )
    expect(expired).toHaveLength(2)
    expect(expired[0]).toMatchObject({ level: 'info', fields: { subscription: 'seen', attempts: 0 } })
    expect(await bus.deadLetters.list()).toEqual([])
  },
)

test.each(['alone', 'in a batch'])(
  'an event that expires between two attempts, %s, gets no other',
  async (how) => {
    const database = await createTestDatabase()
    await createEffects(database)
    for (const mode of ['at-least-once', 'exactly-once'] as const) {
      const bus = testBus(database.url)
      let attempts = 0
      bus.subscribe({
        name: mode,
        events: ['note'],
        mode,
        handler: async (event, context) => {
          if ('tx' in context) await writeEffect(context.tx, event)
          if (event.payload === 'free') return
          attempts += 1
          throw new RetryAfterError(2)
        },
      })
      await bus.start()
      await database.rows('truncate bus.receipts, bus.receipt_batches')
      const expiresAt = new Date(Date.now() + 1500)
      await publish(
        bus,
        database,
        how === 'alone' ? [note('busy', expiresAt)] : [note('busy', expiresAt), note('free')],
      )
      await until('it has a receipt', async () =>
        (await receipts(database)).some(({ payload }) => payload === 'busy'),
      )
      expect((await receipts(database))[0]).toEqual({ payload: 'busy', expired: true, attempts })
      // None, when this machine took longer than that to begin.
      expect(attempts).toBeLessThanOrEqual(1)
      expect(await bus.deadLetters.list()).toEqual([])
      await bus.stop()
    }
    expect((await countEffects(database)).effects).toBe(how === 'alone' ? 0 : 1)
  },
)

test('an event that waits for its turn in the process longer than it lives is not delivered late', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const seen: unknown[] = []
  const release = Promise.withResolvers<void>()
  bus.subscribe({
    name: 'narrow',
    events: ['note'],
    concurrency: 1,
    handler: async ({ payload }) => {
      seen.push(payload)
      if (payload === 'first') await release.promise
    },
  })
  await bus.start()
  const expiresAt = new Date(Date.now() + 2000)
  await publish(bus, database, [note('first'), note('second', expiresAt)])
  await until('the first one runs', () => seen.length > 0)
  await until('the second one has expired', () => Date.now() > expiresAt.getTime())
  release.resolve()
  await until('both have receipts', async () => (await receipts(database)).length === 2)
  expect(seen).toEqual(['first'])
  expect((await receipts(database))[1]).toEqual({ payload: 'second', expired: true, attempts: 0 })
})

test('a scheduled event can expire, and its handler sees when', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const seen: (Date | undefined)[] = []
  bus.subscribe({ name: 'seen', events: ['note'], handler: ({ expiresAt }) => void seen.push(expiresAt) })
  await bus.start()
  const expiresAt = inAnHour()
  await publish(bus, database, [note('a', expiresAt, new Date(Date.now() + 200)), note('b')])
  await until('both are delivered', () => seen.length === 2)
  expect(seen).toContainEqual(expiresAt)
  expect(seen).toContain(undefined)
})

test('an expiry that is none, or not after the time it is scheduled for, is refused', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const at = inAnHour()
  for (const event of [
    note('x', 'tomorrow' as never),
    note('x', new Date(Number.NaN)),
    note('x', at, at),
    note('x', past(), at),
  ]) {
    await expect(publish(bus, database, [event])).rejects.toMatchObject({
      code: 'BUS_INVALID_EVENT',
      message: expect.stringMatching(/expiresAt/) as string,
    })
  }
  expect(await database.count('select count(*) from bus.events')).toBe(0)
  await publish(bus, database, [note('x', new Date(at.getTime() + 1), at)])
  expect(await database.count('select count(*) from bus.events where expires_at > available_at')).toBe(1)
})

test("expiry is judged by the database's clock, also for an event kept in memory and for plain SQL's infinity", async () => {
  const database = await createTestDatabase()
  const inserted = await database.rows(
    `insert into bus.events (tenant_id, type, source, payload, expires_at) values
     ('acme', 'note', 'psql', '"soon"', clock_timestamp() + interval '1 second'), ('acme', 'note', 'psql', '"never"', 'infinity'),
     ('acme', 'note', 'psql', '"always"', '-infinity') returning id`,
  )
  const reader = createEventReader(
    { query: async (text, values) => ({ rows: (await database.rows(text, values)) as never[] }) },
    () => 2,
  )
  const load = async (): Promise<Readonly<Record<string, StoredEvent>>> => {
    const ids = inserted.map(({ id }) => String(id))
    const events = await reader.load(ids)
    return Object.fromEntries(
      ids.flatMap((id) => events.get(id) ?? []).map((event) => [String(event.payload), event]),
    )
  }
  const first = await load()
  expect(first['never']?.expiresAt).toBeUndefined()
  expect([first['never'], first['always']].map((event) => event && hasExpired(event))).toEqual([false, true])
  await until('it has expired', async () => {
    const { soon } = await load()
    return soon !== undefined && hasExpired(soon)
  })
  expect(
    await database.count(
      `select count(*) from bus.events where payload = '"soon"' and expires_at <= clock_timestamp() + interval '50 ms'`,
    ),
  ).toBe(1)
})
