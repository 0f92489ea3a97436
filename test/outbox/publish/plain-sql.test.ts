import { randomUUID } from 'node:crypto'
import { expect, onTestFinished, test } from 'vitest'
import { testBus } from '../../support/bus.ts'
import { createTestDatabase, until } from '../../support/database.ts'
import { openSession } from '../../support/session.ts'

test('rows inserted by plain SQL are delivered, whichever statement inserts them', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const seen: string[] = []
  bus.subscribe({ name: 'seen', events: ['note'], handler: ({ payload }) => void seen.push(String(payload)) })
  await bus.start()
  const columns = 'bus.events (tenant_id, type, source, payload)'
  await database.rows(`insert into ${columns} values ('acme', 'note', 'psql', '"one row"')`)
  await database.rows(
    `insert into ${columns} values ('acme', 'note', 'psql', '"row 1 of 2"'), ('acme', 'note', 'psql', '"row 2 of 2"')`,
  )
  await database.rows(
    `insert into ${columns} select 'acme', 'note', 'psql', to_jsonb('select ' || i) from generate_series(1, 3) i`,
  )
  await database.rows(
    `with added as (insert into ${columns} values ('acme', 'note', 'psql', '"in a cte"') returning id) select id from added`,
  )
  await database.rows(
    `insert into ${columns} values ('acme', 'note', 'psql', '"no conflict"') on conflict do nothing`,
  )
  const copy = await database.sql`copy bus.events (tenant_id, type, source, payload) from stdin`.writable()
  copy.end('acme\tnote\tpsql\t"copied"\n')
  const expected = [
    'copied',
    'in a cte',
    'no conflict',
    'one row',
    'row 1 of 2',
    'row 2 of 2',
    'select 1',
    'select 2',
    'select 3',
  ]
  await until('all were handled', () => seen.length >= expected.length)
  expect(seen.toSorted()).toEqual(expected)
})

test('a plain insert fills the defaults, and is undone by a rollback', async () => {
  const { rows, count, url } = await createTestDatabase()
  const [event] = await rows(
    `insert into bus.events (tenant_id, type, source, payload) values ('acme', 'note', 'psql', 'null') returning *, extract(epoch from clock_timestamp() - created_at)::float as age`,
  )
  expect(event).toMatchObject({
    id: expect.stringMatching(/^[0-9a-f]{8}-[0-9a-f]{4}-7/) as string,
    schema_version: 1,
    payload: null,
    metadata: {},
    available_at: null,
    event_id: null,
    ordering_key: null,
  })
  expect(event?.['age']).toBeGreaterThanOrEqual(0)
  expect(event?.['age']).toBeLessThan(1)
  expect(await rows('select event_id from bus.outbox')).toEqual([{ event_id: event?.['id'] }])
  const session = await openSession({ url, count })
  await session.rows('begin')
  await session.rows(
    `insert into bus.events (tenant_id, type, source, payload) values ('acme', 'note', 'psql', '1')`,
  )
  expect(await session.rows('select count(*)::int as waiting from bus.outbox')).toEqual([{ waiting: 2 }])
  await session.rows('rollback')
  expect(await count('select count(*) from bus.outbox')).toBe(1)
})

test('the outbox has one row for each event, in the order of the insert', async () => {
  const { rows } = await createTestDatabase()
  await rows(
    `insert into bus.events (tenant_id, type, source, payload) select 'acme', 'note', 'psql', to_jsonb(i) from generate_series(1, 500) i`,
  )
  const outbox = await rows(
    `select e.payload, o.ordering_key, o.available_at from bus.outbox o join bus.events e on e.id = o.event_id order by o.position`,
  )
  expect(outbox).toEqual(
    Array.from({ length: 500 }, (_, i) => ({ payload: i + 1, ordering_key: null, available_at: null })),
  )
})

test('an event with an ordering key stands in the outbox with it, apart from those without', async () => {
  const { rows } = await createTestDatabase()
  await rows(
    `insert into bus.events (tenant_id, ordering_key, type, source, payload, available_at) values
       ('acme', null, 'note', 'psql', '1', null), ('acme', 'k', 'note', 'psql', '2', null),
       ('acme', 'k', 'note', 'psql', '3', now() + interval '1 hour'), ('acme', 'k', 'note', 'psql', '4', now() - interval '1 hour')`,
  )
  expect(
    await rows(
      `select e.payload, o.ordering_key, o.position >= (1::bigint << 61) as ordered, o.position >= (1::bigint << 62) as scheduled
       from bus.outbox o join bus.events e on e.id = o.event_id order by e.payload`,
    ),
  ).toEqual([
    { payload: 1, ordering_key: null, ordered: false, scheduled: false },
    { payload: 2, ordering_key: 'k', ordered: true, scheduled: false },
    { payload: 3, ordering_key: 'k', ordered: true, scheduled: true },
    { payload: 4, ordering_key: 'k', ordered: true, scheduled: false },
  ])
})

test('an event is ready at once when its time has passed, and scheduled when it is to come', async () => {
  const { rows } = await createTestDatabase()
  await rows(
    `insert into bus.events (tenant_id, type, source, payload, available_at) values
     ('acme', 'note', 'psql', '"past"', now() - interval '1 second'),
     ('acme', 'note', 'psql', '"ages ago"', '-infinity'),
     ('acme', 'note', 'psql', '"soon"', now() + interval '1 hour'),
     ('acme', 'note', 'psql', '"never"', 'infinity')`,
  )
  const outbox = await rows(
    `select e.payload, o.available_at is null as ready, o.available_at = e.available_at as "sameTime",
       isfinite(o.available_at - now()) as finite
     from bus.outbox o join bus.events e on e.id = o.event_id order by o.position`,
  )
  expect(outbox).toEqual([
    { payload: 'past', ready: true, sameTime: null, finite: null },
    { payload: 'ages ago', ready: true, sameTime: null, finite: null },
    { payload: 'soon', ready: false, sameTime: true, finite: true },
    { payload: 'never', ready: false, sameTime: false, finite: true },
  ])
})

test('the doorbell rings at commit while the relay sleeps, and not while one is awake', async () => {
  const database = await createTestDatabase()
  const listener = await openSession(database)
  const heard: string[] = []
  listener.client.on('notification', ({ channel }) => heard.push(channel))
  await listener.rows('listen bus_outbox')
  await listener.rows('listen marker')
  const publisher = await openSession(database)
  const insert = async () =>
    publisher.rows(
      `insert into bus.events (tenant_id, type, source, payload) values ('acme', 'note', 'psql', '1')`,
    )
  const mark = async () => {
    const before = heard.length
    await publisher.rows('notify marker')
    await until('the marker was heard', () => heard.slice(before).includes('marker'))
    return heard.splice(0)
  }
  await insert()
  expect(await mark(), 'nobody sleeps').toEqual(['marker'])
  // A relay falls asleep.
  const relay = await openSession(database)
  expect(await relay.rows('select pg_try_advisory_lock(1651864320, 1) as held')).toEqual([{ held: true }])
  await publisher.rows('begin')
  await insert()
  await insert()
  await relay.rows('notify marker')
  await until('the marker was heard', () => heard.includes('marker'))
  expect(heard.splice(0), 'not before the commit').toEqual(['marker'])
  await publisher.rows('commit')
  expect(await mark(), 'once a transaction').toEqual(['bus_outbox', 'marker'])
  await publisher.rows('begin')
  await insert()
  await publisher.rows('rollback')
  expect(await mark(), 'nothing to find').toEqual(['marker'])
  await publisher.rows(
    `insert into bus.events (tenant_id, type, source, payload) select 'acme', 'note', 'psql', '1' where false`,
  )
  expect(await mark(), 'nothing inserted').toEqual(['marker'])
  await insert()
  expect(await mark(), 'still asleep').toEqual(['bus_outbox', 'marker'])
  // It wakes.
  await relay.rows('select pg_advisory_unlock(1651864320, 1)')
  await insert()
  expect(await mark(), 'awake').toEqual(['marker'])
})

test('a relay cannot fall asleep before every publisher that saw it awake has committed', async () => {
  const database = await createTestDatabase()
  const [publisher, relay] = [await openSession(database), await openSession(database)]
  const sleep = async () =>
    (await relay.rows('select pg_try_advisory_lock(1651864320, 1) as held'))[0]?.['held']
  await publisher.rows('begin')
  await publisher.rows(
    `insert into bus.events (tenant_id, type, source, payload) values ('acme', 'note', 'psql', '1')`,
  )
  expect(await sleep()).toBe(false)
  await publisher.rows('commit')
  expect(await sleep()).toBe(true)
})

test('a hostile search path, temporary tables and functions do not change where the trigger writes', async () => {
  const role = `hostile_${randomUUID().replaceAll('-', '')}`
  // Last registered, first run: the role goes before the database, after its own objects.
  const database = await createTestDatabase()
  onTestFinished(async () => {
    await database.rows(`drop owned by ${role} cascade`)
    await database.rows(`drop role ${role}`)
  })
  const { rows, count } = database
  await rows(`create role ${role}`)
  await rows(`create schema evil authorization ${role}`)
  await rows(`grant usage on schema bus to ${role}`)
  await rows(`grant insert on bus.events to ${role}`)
  const session = await openSession(database)
  const attack = [
    `set role ${role}`,
    `create table evil.outbox (event_id uuid, ordering_key text, available_at timestamptz)`,
    `create temp table outbox (like evil.outbox)`,
    `create temp table inserted (id uuid, tenant_id text, ordering_key text, available_at timestamptz)`,
    `insert into inserted values (gen_random_uuid(), 'evil', 'evil', null)`,
    `create function evil.trap() returns text language plpgsql as $$ begin raise exception 'trapped as %', current_user; end $$`,
    `create function evil.hashtextextended(text, bigint) returns bigint language sql as 'select evil.trap()::bigint'`,
    `create function evil.clock_timestamp() returns timestamptz language sql as 'select evil.trap()::timestamptz'`,
    `create function evil.later(timestamptz, timestamptz) returns boolean language sql as 'select evil.trap()::boolean'`,
    `create operator evil.> (leftarg = timestamptz, rightarg = timestamptz, function = evil.later)`,
    `create function evil.pg_try_advisory_xact_lock_shared(int, int) returns boolean language sql as 'select evil.trap()::boolean'`,
    `create function evil.uuid_v7() returns uuid language sql as 'select evil.trap()::uuid'`,
    `set search_path = evil, pg_temp, pg_catalog`,
  ]
  for (const statement of attack) await session.rows(statement)
  // The trap is set: the same operator springs it outside the trigger.
  await expect(session.rows('select now() > now()')).rejects.toThrow(`trapped as ${role}`)
  await session.rows(
    `insert into bus.events (tenant_id, type, source, payload, ordering_key, available_at)
     values ('acme', 'note', 'psql', '1', 'key', pg_catalog.now() + interval '1 hour')`,
  )
  expect(await count('select count(*) from bus.outbox')).toBe(1)
  expect(
    await rows(`select o.ordering_key from bus.outbox o join bus.events e on e.id = o.event_id`),
  ).toEqual([{ ordering_key: 'key' }])
  expect(await count('select count(*) from evil.outbox')).toBe(0)
  expect(await session.rows('select count(*)::int as n from pg_temp.outbox')).toEqual([{ n: 0 }])
  // The outbox itself is out of reach, also by putting the trigger's function on a table of one's own.
  await expect(
    session.rows('insert into bus.outbox (event_id) values (gen_random_uuid())'),
  ).rejects.toMatchObject({
    code: '42501',
  })
  await expect(
    session.rows(
      `create trigger forged after insert on pg_temp.inserted referencing new table as inserted
       for each statement execute function bus.dispatch_inserted_events()`,
    ),
  ).rejects.toMatchObject({ code: '42501' })
})

test('a role that is bus_publisher can publish, and reads nothing', async () => {
  const database = await createTestDatabase()
  const session = await openSession(database)
  await session.rows('set role bus_publisher')
  const event = (key: string, eventId: string) =>
    `{"tenantId": "acme", "type": "note", "source": "psql", "payload": 1, "idempotencyKey": "${key}", "eventId": "${eventId}"}`
  const [first] = await session.rows(`select * from bus.publish('[${event('k', 'a')}]')`)
  expect(first).toMatchObject({ duplicate: false })
  expect(await session.rows(`select * from bus.publish('[${event('k', 'b')}]')`)).toEqual([
    { ...first, duplicate: true },
  ])
  for (const table of ['events', 'outbox', 'deliveries', 'subscriptions', 'event_keys'])
    await expect(session.rows(`select * from bus.${table}`)).rejects.toMatchObject({ code: '42501' })
  expect(await database.count('select count(*) from bus.outbox')).toBe(1)
})
