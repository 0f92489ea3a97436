import { expect, test } from 'vitest'
import { testBus } from '../../support/bus.ts'
import { createTestDatabase, type TestDatabase } from '../../support/database.ts'
import { openSession } from '../../support/session.ts'

type Rows = TestDatabase['rows']
type Fields = Readonly<Record<string, unknown>>

/** `bus.publish` as a caller in any language would use it. */
async function publish(
  rows: Rows,
  ...events: readonly Fields[]
): Promise<{ id: string; duplicate: boolean }[]> {
  const given = events.map((fields) => ({
    tenantId: 'acme',
    type: 'note',
    source: 'psql',
    payload: 1,
    ...fields,
  }))
  const published = await rows('select * from bus.publish($1)', [JSON.stringify(given)])
  expect(published.map(({ ordinal }) => Number(ordinal))).toEqual(events.map((_, i) => i + 1))
  return published.map(({ id, duplicate }) => ({ id: String(id), duplicate: duplicate === true }))
}

/** The one event of a call that publishes one. */
async function publishOne(rows: Rows, fields: Fields): Promise<{ id: string; duplicate: boolean }> {
  const [published] = await publish(rows, fields)
  return published ?? { id: '', duplicate: false }
}

/** Every key means an event that is in the log, and no event is twice in the outbox. */
async function expectConsistent({ count }: TestDatabase): Promise<void> {
  expect(
    await count(
      `select count(*) from bus.event_keys k where not exists (select from bus.events e where e.id = k.event_id)`,
    ),
    'keys that mean no event',
  ).toBe(0)
  expect(
    await count(`select count(*) from bus.events e where
      (e.event_id is not null and not exists (select from bus.event_keys k where k.event_id = e.id and k.kind = 'event_id' and k.key = e.event_id))
      or (e.idempotency_key is not null and not exists (select from bus.event_keys k where k.tenant_id = e.tenant_id and k.kind = 'idempotency_key' and k.key = e.idempotency_key))`),
    'events whose keys are not kept',
  ).toBe(0)
  expect(await count('select count(*) - count(distinct event_id) from bus.outbox')).toBe(0)
  expect(await count('select (select count(*) from bus.outbox) - (select count(*) from bus.events)')).toBe(0)
}

test('bus.publish stores every field it is given, and defaults for those it is not', async () => {
  const { rows } = await createTestDatabase()
  const fields = {
    tenantId: 'acme',
    type: 'payment.paid',
    source: 'psql',
    payload: { amount: 1, nested: [null, 'ü'] },
    subject: 'payments/1',
    schemaVersion: 3,
    eventId: 'e',
    idempotencyKey: 'k',
    correlationId: 'c',
    causationId: '0190b5a0-0000-7000-8000-000000000001',
    orderingKey: 'o',
    metadata: { traceparent: '00-1' },
    availableAt: '2100-01-01T00:00:00.123456Z',
  }
  const [full, bare] = await publish(rows, fields, {})
  const stored = await rows(
    `select id, tenant_id as "tenantId", type, source, payload, subject, schema_version as "schemaVersion",
       event_id as "eventId", idempotency_key as "idempotencyKey", correlation_id as "correlationId",
       causation_id as "causationId", ordering_key as "orderingKey", metadata,
       to_char(available_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as "availableAt"
     from bus.events order by id`,
  )
  const nothing = {
    subject: null,
    correlationId: null,
    causationId: null,
    orderingKey: null,
    availableAt: null,
  }
  expect(stored).toEqual([
    { id: full?.id, ...fields },
    {
      ...{ id: bare?.id, tenantId: 'acme', type: 'note', source: 'psql', payload: 1 },
      ...{ ...nothing, schemaVersion: 1, eventId: null, idempotencyKey: null, metadata: {} },
    },
  ])
})

test('bus.publish takes null as a payload, refuses events without one, and takes an empty array', async () => {
  const { rows, count } = await createTestDatabase()
  await publish(rows, { payload: null }, { payload: 'text' }, { payload: null })
  expect(await rows('select payload, jsonb_typeof(payload) as type from bus.events order by id')).toEqual([
    { payload: null, type: 'null' },
    { payload: 'text', type: 'string' },
    { payload: null, type: 'null' },
  ])
  for (const missing of ['payload', 'tenantId', 'type', 'source'])
    await expect(publish(rows, {}, { [missing]: undefined })).rejects.toMatchObject({
      code: '23502',
    })
  await expect(rows(`select * from bus.publish('{}')`)).rejects.toMatchObject({ code: '22023' })
  expect(await publish(rows)).toEqual([])
  expect(await count('select count(*) from bus.events')).toBe(3)
})

test('bus.publish refuses a field that it does not know, and stores nothing', async () => {
  const { rows, count } = await createTestDatabase()
  const event = `"tenantId": "acme", "type": "note", "source": "psql", "payload": {}`
  await expect(
    rows(`select * from bus.publish('[{${event}}, {${event}, "eventID": "42"}]')`),
  ).rejects.toMatchObject({ code: '22023', message: 'Unknown field "eventID" of an event' })
  expect(await count('select count(*) from bus.events')).toBe(0)
  await rows(`select * from bus.publish('[{${event}, "eventId": "42"}]')`)
  expect(await count('select count(*) from bus.events')).toBe(1)
})

test('a second event with the same business id or idempotency key is a duplicate, per tenant and per kind', async () => {
  const database = await createTestDatabase()
  const { rows, count } = database
  const first = await publishOne(rows, { eventId: 'a', idempotencyKey: 'b' })
  expect(first.duplicate).toBe(false)
  expect(await publishOne(rows, { eventId: 'a' })).toEqual({ ...first, duplicate: true })
  expect(await publishOne(rows, { idempotencyKey: 'b' })).toEqual({ ...first, duplicate: true })
  expect(await publishOne(rows, { eventId: 'a', idempotencyKey: 'b' })).toEqual({ ...first, duplicate: true })
  expect(await count('select count(*) from bus.events')).toBe(1)
  // The same text as the other kind of key, or of another tenant, is another key.
  expect(await publishOne(rows, { eventId: 'b' })).toMatchObject({ duplicate: false })
  expect(await publishOne(rows, { idempotencyKey: 'a' })).toMatchObject({ duplicate: false })
  expect(await publishOne(rows, { tenantId: 'other', eventId: 'a' })).toMatchObject({ duplicate: false })
  expect(await publishOne(rows, {})).toMatchObject({ duplicate: false })
  expect(await publishOne(rows, { eventId: null, idempotencyKey: null })).toMatchObject({ duplicate: false })
  expect(await count('select count(*) from bus.events')).toBe(6)
  await expectConsistent(database)
})

test('duplicates inside one call are found, and the order of the others stays', async () => {
  const database = await createTestDatabase()
  const published = await publish(
    database.rows,
    { payload: 'a', eventId: '1' },
    { payload: 'b' },
    { payload: 'c', eventId: '1' },
    { payload: 'd', idempotencyKey: 'k' },
    { payload: 'e', eventId: '2', idempotencyKey: 'k' },
    { payload: 'f' },
  )
  const [a, b, c, d, e, f] = published
  expect(published.map(({ duplicate }) => duplicate)).toEqual([false, false, true, false, true, false])
  expect([c?.id, e?.id]).toEqual([a?.id, d?.id])
  const stored = await database.rows(
    'select e.id, e.payload from bus.outbox o join bus.events e on e.id = o.event_id order by o.position',
  )
  expect(stored).toEqual([
    { id: a?.id, payload: 'a' },
    { id: b?.id, payload: 'b' },
    { id: d?.id, payload: 'd' },
    { id: f?.id, payload: 'f' },
  ])
  expect(await publishOne(database.rows, { eventId: '2' })).toEqual({ id: d?.id, duplicate: true })
  await expectConsistent(database)
})

test('a key that a duplicate brings along means the first event from then on', async () => {
  const database = await createTestDatabase()
  const { rows } = database
  const first = await publishOne(rows, { eventId: '1', idempotencyKey: 'x' })
  expect(await publishOne(rows, { eventId: '2', idempotencyKey: 'x' })).toEqual({ ...first, duplicate: true })
  expect(await publishOne(rows, { eventId: '2', idempotencyKey: 'y' })).toEqual({ ...first, duplicate: true })
  expect(await publishOne(rows, { eventId: '3', idempotencyKey: 'y' })).toEqual({ ...first, duplicate: true })
  expect(await publishOne(rows, { eventId: '3' })).toEqual({ ...first, duplicate: true })
  expect(await publishOne(rows, { eventId: '4' })).toMatchObject({ duplicate: false })
  await expectConsistent(database)
})

test('a chain of duplicates inside one call leads to its first event, by every key of every link', async () => {
  const database = await createTestDatabase()
  const { rows, count } = database
  // 1 and 2 share an idempotency key, 2 and 3 a business id, 3 and 4 an idempotency key, and so on.
  const chain = Array.from({ length: 300 }, (_, i) => ({
    eventId: `e${Math.floor((i + 1) / 2)}`,
    idempotencyKey: `k${Math.floor(i / 2)}`,
  }))
  const published = await publish(rows, ...chain)
  expect(published.map(({ duplicate }) => duplicate)).toEqual([false, ...Array<boolean>(299).fill(true)])
  expect(new Set(published.map(({ id }) => id)).size).toBe(1)
  const again = await publish(
    rows,
    ...chain.map(({ eventId }) => ({ eventId })),
    ...chain.map(({ idempotencyKey }) => ({ idempotencyKey })),
  )
  expect(new Set(again.map(({ id, duplicate }) => `${id} ${duplicate}`))).toEqual(
    new Set([`${published[0]?.id} true`]),
  )
  expect(await count('select count(*) from bus.events')).toBe(1)
  await expectConsistent(database)
})

test('whatever keys come together, every key means an event of the log, and equal keys the same one', async () => {
  const database = await createTestDatabase()
  const { rows } = database
  // Few keys, so that calls overlap with themselves and with each other. The seed makes failures repeatable.
  let seed = 1795
  const random = (below: number): number => {
    seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648
    return Math.floor((seed / 2_147_483_648) * below)
  }
  for (let call = 0; call < 60; call += 1) {
    const events = Array.from({ length: 1 + random(12) }, () => ({
      tenantId: `t${random(2)}`,
      ...(random(4) > 0 ? { eventId: `e${random(60)}` } : {}),
      ...(random(4) > 0 ? { idempotencyKey: `k${random(60)}` } : {}),
    }))
    const published = await publish(rows, ...events)
    const known = new Set((await rows('select id from bus.events')).map(({ id }) => id))
    for (const { id } of published) expect(known.has(id)).toBe(true)
    // Publishing the same again is a duplicate of the same, wherever there is a key.
    const keyed = events.filter((event) => Object.keys(event).length > 1)
    const again = await publish(rows, ...keyed)
    expect(again.filter(({ duplicate }) => duplicate)).toHaveLength(keyed.length)
  }
  await expectConsistent(database)
})

test('a publisher waits for an open one with the same key, and publishes when that one rolls back', async () => {
  const database = await createTestDatabase()
  const [one, other] = [await openSession(database), await openSession(database)]
  await one.rows('begin')
  const undone = await publishOne(one.rows, { eventId: 'e', idempotencyKey: 'k' })
  expect(undone.duplicate).toBe(false)
  const waiting = publishOne(other.rows, { idempotencyKey: 'k' })
  await other.waits('the second publisher waits')
  await one.rows('rollback')
  const published = await waiting
  expect(published.duplicate).toBe(false)
  expect(await database.rows('select id from bus.events')).toEqual([{ id: published.id }])
  expect(published.id).not.toBe(undone.id)
  await expectConsistent(database)
})

test('a publisher waits for an open one with the same key, and gets its id when that one commits', async () => {
  const database = await createTestDatabase()
  const [one, other] = [await openSession(database), await openSession(database)]
  await one.rows('begin')
  const first = await publishOne(one.rows, { eventId: 'e', idempotencyKey: 'k' })
  const waiting = publishOne(other.rows, { eventId: 'another', idempotencyKey: 'k' })
  await other.waits('the second publisher waits')
  await one.rows('commit')
  expect(await waiting).toEqual({ id: first.id, duplicate: true })
  expect(await database.count('select count(*) from bus.events')).toBe(1)
  expect(await publishOne(other.rows, { eventId: 'another' })).toEqual({ id: first.id, duplicate: true })
  await expectConsistent(database)
})

test('what a savepoint undid is no duplicate afterwards', async () => {
  const database = await createTestDatabase()
  const session = await openSession(database)
  await session.rows('begin')
  await session.rows('savepoint s')
  const undone = await publishOne(session.rows, { eventId: 'e' })
  expect(await publishOne(session.rows, { eventId: 'e' })).toEqual({ id: undone.id, duplicate: true })
  await session.rows('rollback to savepoint s')
  const kept = await publishOne(session.rows, { eventId: 'e' })
  await session.rows('commit')
  expect(kept.duplicate).toBe(false)
  expect(await database.rows('select id from bus.events')).toEqual([{ id: kept.id }])
})

test('calls with the same keys in opposite order wait for each other and never deadlock', async () => {
  const database = await createTestDatabase()
  const sessions = [await openSession(database), await openSession(database), await openSession(database)]
  for (const session of sessions) await session.rows(`set deadlock_timeout = '5ms'`)
  for (let round = 0; round < 50; round += 1) {
    const events = Array.from({ length: 20 }, (_, i) => ({
      tenantId: `t${i % 3}`,
      eventId: `${round}-${i}`,
      idempotencyKey: `${round}-${20 - i}`,
    }))
    const shuffled = [events, events.toReversed(), [...events.slice(7), ...events.slice(0, 7)]]
    const published = await Promise.all(
      sessions.map(async (session, i) => publish(session.rows, ...(shuffled[i] ?? []))),
    )
    expect(published.flat().filter(({ duplicate }) => !duplicate)).toHaveLength(20)
  }
  expect(await database.count('select count(*) from bus.events')).toBe(1000)
  await expectConsistent(database)
})

test('transactions that publish one key after the other in opposite order deadlock: one may be repeated', async () => {
  const database = await createTestDatabase({ max: 2 })
  const bus = testBus(database.url)
  const reached = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const publishBoth = async (own: number, keys: readonly string[]) =>
    database.db.transaction(async (tx) => {
      await tx.execute(`set local deadlock_timeout = '5ms'`)
      for (const [i, eventId] of keys.entries()) {
        await bus.publish(tx, { type: 'note', tenantId: 'acme', payload: eventId, eventId })
        if (i === 0) reached[own]?.resolve()
        await Promise.all(reached.map(async ({ promise }) => promise))
      }
    })
  const outcomes = await Promise.allSettled([publishBoth(0, ['a', 'b']), publishBoth(1, ['b', 'a'])])
  const [lost] = outcomes.filter((outcome) => outcome.status === 'rejected')
  expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
  expect(lost?.reason).toMatchObject({ code: 'BUS_DATABASE_ERROR', sqlState: '40P01', retryable: true })
  expect(await database.count('select count(*) from bus.events')).toBe(2)
})

test('in REPEATABLE READ a key that came after the snapshot is a serialization failure, an older one a duplicate', async () => {
  const database = await createTestDatabase()
  const older = await publishOne(database.rows, { eventId: 'older' })
  const session = await openSession(database)
  await session.rows('begin isolation level repeatable read')
  expect(await publishOne(session.rows, { eventId: 'older' })).toEqual({ id: older.id, duplicate: true })
  await publish(database.rows, { eventId: 'newer' })
  await expect(publishOne(session.rows, { eventId: 'newer' })).rejects.toMatchObject({ code: '40001' })
  await session.rows('rollback')
  expect(await publishOne(session.rows, { eventId: 'newer' })).toMatchObject({ duplicate: true })
})

test('a session that planned while there were few keys stays fast when there are many', async () => {
  const database = await createTestDatabase()
  const session = await openSession(database)
  await database.rows('alter table bus.event_keys set (autovacuum_enabled = off)')
  await publish(database.rows, { eventId: 'a', idempotencyKey: 'a' })
  await database.rows('vacuum analyze bus.event_keys')
  // The plans of a session settle after five runs.
  for (let i = 0; i < 8; i += 1) {
    await publish(session.rows, { eventId: `b${i}` })
    await publish(session.rows, { eventId: `c${i}`, idempotencyKey: 'a' })
  }
  await database.rows(
    `insert into bus.event_keys (tenant_id, kind, key, event_id)
     select 'acme', 'event_id', 'many-' || i, bus.uuid_v7() from generate_series(1, 20000) i`,
  )
  const readBefore = await tuplesRead(database)
  for (let i = 0; i < 5; i += 1) {
    await publish(session.rows, { eventId: `d${i}` })
    await publish(session.rows, { eventId: `e${i}`, idempotencyKey: 'a' })
  }
  // A session hands its statistics in when it ends.
  await session.client.end()
  // Each call looks up a handful of keys; a plan that scans reads 20,000 each time.
  expect((await tuplesRead(database)) - readBefore).toBeLessThan(1000)
})

/** Rows that index and table scans of the keys have read so far. */
async function tuplesRead({ count }: TestDatabase): Promise<number> {
  return count(
    `select coalesce(s.seq_tup_read, 0) + (select sum(idx_tup_read) from pg_stat_user_indexes i where i.relid = s.relid)
     from pg_stat_user_tables s where s.relid = 'bus.event_keys'::regclass`,
  )
}

test('ten thousand events with both keys are published in one call, and again as duplicates', async () => {
  const database = await createTestDatabase()
  const events = Array.from({ length: 10_000 }, (_, i) => ({
    payload: i,
    eventId: `e${i}`,
    idempotencyKey: `k${i}`,
    tenantId: `t${i % 7}`,
  }))
  const published = await publish(database.rows, ...events)
  expect(published.filter(({ duplicate }) => !duplicate)).toHaveLength(10_000)
  const stored = await database.rows(
    'select e.id, e.payload from bus.outbox o join bus.events e on e.id = o.event_id order by o.position',
  )
  expect(stored).toEqual(published.map(({ id }, i) => ({ id, payload: i })))
  expect(await publish(database.rows, ...events)).toEqual(
    published.map(({ id }) => ({ id, duplicate: true })),
  )
  expect(await database.count('select count(*) from bus.events')).toBe(10_000)
})
