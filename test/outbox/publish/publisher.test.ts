import { AsyncLocalStorage } from 'node:async_hooks'
import { drizzle } from 'drizzle-orm/node-postgres'
import pg from 'pg'
import { describe, expect, onTestFinished, test } from 'vitest'
import { createBus, type EventDefaults, type Publisher } from '../../../src/index.ts'
import { paymentEvents, recordingLogger, testBus } from '../../support/bus.ts'
import { createTestDatabase } from '../../support/database.ts'

const note = { type: 'note', payload: 1 } as const
type Notes = Publisher<typeof paymentEvents, 'tenantId'>

const fields = `select tenant_id, correlation_id, causation_id, subject, metadata from bus.events order by id`

describe('defaults', () => {
  test('are given to events that do not have them, the nearest first, entry by entry of metadata', async () => {
    const { url, db, rows } = await createTestDatabase()
    const bus = createBus({
      database: url,
      events: paymentEvents,
      source: 'payment-service',
      defaults: { tenantId: 'acme', subject: 'far', metadata: { a: 'far', b: 'far' } },
    })
    onTestFinished(async () => bus.stop())
    const near = bus.with({ subject: 'near', correlationId: 'c', metadata: { b: 'near', c: 'near' } })
    await db.transaction(async (tx) => {
      await bus.publish(tx, note)
      await near.publish(tx, note)
      await near.publishMany(tx, [{ ...note, tenantId: 'other', subject: 'own', metadata: { c: 'own' } }])
    })
    expect(
      await near.tryPublish({ ...note, causationId: '01890000-0000-7000-8000-000000000000' }),
    ).toMatchObject({
      duplicate: false,
    })
    expect(await rows(fields)).toEqual([
      {
        tenant_id: 'acme',
        correlation_id: null,
        causation_id: null,
        subject: 'far',
        metadata: { a: 'far', b: 'far' },
      },
      {
        ...{ tenant_id: 'acme', correlation_id: 'c', causation_id: null, subject: 'near' },
        metadata: { a: 'far', b: 'near', c: 'near' },
      },
      {
        ...{ tenant_id: 'other', correlation_id: 'c', causation_id: null, subject: 'own' },
        metadata: { a: 'far', b: 'near', c: 'own' },
      },
      {
        ...{ tenant_id: 'acme', correlation_id: 'c', causation_id: '01890000-0000-7000-8000-000000000000' },
        ...{ subject: 'near', metadata: { a: 'far', b: 'near', c: 'near' } },
      },
    ])
  })

  test('of a function are asked for at each publish, as in the context of a request', async () => {
    const { url, db, rows } = await createTestDatabase()
    const context = new AsyncLocalStorage<{ readonly tenantId: string }>()
    const bus = testBus(url).with(() => context.getStore())
    const publish = async (tenantId?: string): Promise<unknown> =>
      db.transaction(async (tx) => bus.publish(tx, { ...note, tenantId } as never))
    await Promise.all(['a', 'b'].map(async (tenantId) => context.run({ tenantId }, async () => publish())))
    await context.run({ tenantId: 'c' }, async () => publish('d'))
    await expect(publish()).rejects.toMatchObject({ code: 'BUS_TENANT_REQUIRED' })
    expect(
      (await rows(`select tenant_id from bus.events order by 1`)).map((row) => row['tenant_id']),
    ).toEqual(['a', 'b', 'd'])
  })

  test.each([
    ['no object', 'acme'],
    ['an unknown name', { tenant: 'acme' }],
    ['a list', [{ tenantId: 'acme' }]],
    ['null', null],
    ['a promise', Promise.resolve({ tenantId: 'acme' })],
  ])('are refused at once where they are %s', (_what, defaults) => {
    const bus = testBus('postgres://nobody@127.0.0.1:1/none')
    const refused = expect.objectContaining({ code: 'BUS_INVALID_OPTION' }) as Error
    expect(() => bus.with(defaults as EventDefaults)).toThrow(refused)
    const options = { database: 'postgres://localhost', events: paymentEvents, source: 'a' }
    expect(() => createBus({ ...options, defaults: defaults as EventDefaults })).toThrow(refused)
  })

  test('that a function cannot give fail the publish, and tryPublish quietly', async () => {
    const { url, db } = await createTestDatabase()
    const logger = recordingLogger()
    const bus = testBus(url, { logger })
    const throwing = bus.with((): EventDefaults => {
      throw new Error('no session')
    })
    const later = bus.with((async () => ({ tenantId: 'a' })) as unknown as () => EventDefaults)
    for (const [publisher, message] of [
      [throwing, /`defaults` threw.*no session/],
      [later, /got a promise/],
    ] as const) {
      const notes = publisher as Notes
      const refused = { code: 'BUS_INVALID_OPTION', message: expect.stringMatching(message) as string }
      await expect(db.transaction(async (tx) => notes.publish(tx, note))).rejects.toMatchObject(refused)
      await expect(db.transaction(async (tx) => notes.publishMany(tx, [note]))).rejects.toMatchObject(refused)
      expect(await notes.tryPublish(note)).toBeUndefined()
    }
    expect((await bus.health()).failedTryPublishCount).toBe(2)
    expect(logger.lines.filter(({ message }) => message === 'an event could not be published')).toHaveLength(
      2,
    )
  })

  test('leave what is no event, or no list of events, to publish to refuse', async () => {
    const { url, db } = await createTestDatabase()
    const notes = testBus(url).with({ tenantId: 'acme' })
    const refusals = [
      [async (tx: never) => notes.publish(tx, 'note' as never), 'BUS_INVALID_EVENT'],
      [async (tx: never) => notes.publish(tx, { ...note, metadata: 'x' } as never), 'BUS_INVALID_EVENT'],
      [async (tx: never) => notes.publishMany(tx, {} as never), 'BUS_INVALID_BATCH'],
      [async (tx: never) => notes.publishMany(tx, []), 'BUS_INVALID_BATCH'],
    ] as const
    for (const [refused, code] of refusals)
      await expect(db.transaction(async (tx) => refused(tx as never))).rejects.toMatchObject({ code })
  })
})

describe('availableIn', () => {
  test('counts from the clock of the database, alone and among other times', async () => {
    const { url, db, rows } = await createTestDatabase()
    const bus = testBus(url)
    const at = new Date('2100-01-01T00:00:00.123Z')
    const event = { ...note, tenantId: 'acme' }
    await db.transaction(async (tx) => {
      await bus.publish(tx, { ...event, availableIn: { seconds: 3600 } })
      await bus.publishMany(tx, [
        { ...event, availableIn: { seconds: 0.5 } },
        { ...event, availableAt: at },
        event,
      ])
    })
    await bus.tryPublish({ ...event, availableIn: { seconds: 7200 } })
    const stored = await rows(
      `select extract(epoch from available_at - created_at)::float8 as seconds, available_at from bus.events order by id`,
    )
    const seconds = stored.map((row) => row['seconds'] as number | null)
    expect(seconds[0]).toBeCloseTo(3600, 0)
    expect(seconds[1]).toBeGreaterThan(0.4)
    expect(seconds[1]).toBeLessThan(2)
    expect(stored[2]?.['available_at']).toEqual(at)
    expect(seconds[3]).toBeNull()
    expect(seconds[4]).toBeCloseTo(7200, 0)
  })

  test('counts the same whatever is set for the database, and whatever shadows functions', async () => {
    const { url, rows } = await createTestDatabase()
    await rows('create schema evil')
    for (const name of ['clock_timestamp()', 'make_interval(secs float8)', 'starts_with(text, text)'])
      await rows(`create function evil.${name} returns text language sql as 'select null::text'`)
    for (const setting of [
      ...['search_path = evil, pg_catalog', `datestyle = 'SQL, DMY'`, `intervalstyle = 'sql_standard'`],
      ...[
        'standard_conforming_strings = off',
        'extra_float_digits = -15',
        'array_nulls = off',
        `timezone = 'Asia/Tokyo'`,
      ],
    ])
      await rows(`alter database ${new URL(url).pathname.slice(1)} set ${setting}`)
    const client = new pg.Pool({ connectionString: url, max: 1 })
    onTestFinished(async () => client.end())
    const bus = testBus(url)
    const event = { ...note, tenantId: '会社', availableIn: { seconds: 90.5 } }
    await drizzle({ client }).transaction(async (tx) =>
      bus.publishMany(tx, [event, { ...note, tenantId: '会社' }]),
    )
    await bus.tryPublish(event)
    const stored = await rows(
      `select extract(epoch from available_at - created_at)::float8 as seconds from bus.events order by available_at is null, id`,
    )
    const seconds = stored.map((row) => row['seconds'] as number | null)
    expect(seconds[0]).toBeCloseTo(90.5, 0)
    expect(seconds[1]).toBeCloseTo(90.5, 0)
    expect(seconds[2]).toBeNull()
  })

  test.each([
    [60],
    [{ seconds: -1 }],
    [{ seconds: Number.NaN }],
    [{ seconds: '60' }],
    [{ minutes: 1 }],
    [null],
    [{}],
  ])('is refused as %o', async (availableIn) => {
    const { url, db, count } = await createTestDatabase()
    const bus = testBus(url)
    const event = { ...note, tenantId: 'acme', availableIn } as never
    await expect(db.transaction(async (tx) => bus.publish(tx, event))).rejects.toMatchObject({
      code: 'BUS_INVALID_EVENT',
      message: expect.stringContaining('availableIn') as string,
    })
    expect(await count('select count(*) from bus.events')).toBe(0)
  })

  test('is refused beside availableAt', async () => {
    const { url, db } = await createTestDatabase()
    const event = { ...note, tenantId: 'acme', availableIn: { seconds: 1 }, availableAt: new Date() }
    await expect(db.transaction(async (tx) => testBus(url).publish(tx, event))).rejects.toMatchObject({
      code: 'BUS_INVALID_EVENT',
      message: expect.stringMatching(/not both/) as string,
    })
  })
})
