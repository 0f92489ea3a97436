import { drizzle as drizzleOnNodePostgres } from 'drizzle-orm/node-postgres'
import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import { recordingLogger, testBus } from '../../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'
import { createLogin } from '../../support/roles.ts'

const note = { type: 'note', tenantId: 'acme', payload: 1 } as const
const notStored = { code: 'BUS_EVENT_NOT_STORED', name: 'DatabaseError', retryable: false, sqlState: 'BUS02' }

/** Puts a trigger of somebody else's on a table of the bus. */
async function addTrigger(
  { rows }: TestDatabase,
  table: string,
  body: string,
  when = 'before insert',
): Promise<void> {
  await rows(`create function public.meddle() returns trigger language plpgsql as $$ begin ${body} end $$`)
  await rows(`create trigger meddle ${when} on ${table} for each row execute function public.meddle()`)
}

const removeTrigger = async ({ rows }: TestDatabase): Promise<unknown> =>
  rows('drop function public.meddle cascade')

/** Everything that publishing writes. */
const written = async ({ count }: TestDatabase): Promise<number> =>
  count(
    'select (select count(*) from bus.events) + (select count(*) from bus.outbox) + (select count(*) from bus.event_keys)',
  )

/** Every way of publishing an event with fields. */
function waysToPublish(database: TestDatabase) {
  const logger = recordingLogger()
  const bus = testBus(database.url, { logger })
  const pool = new pg.Pool({ connectionString: database.url, max: 2 })
  onTestFinished(async () => pool.end())
  const db = drizzleOnNodePostgres(pool)
  const publish = async (fields: object) =>
    database.db.transaction(async (tx) => bus.publish(tx, { ...note, ...fields }))
  return {
    bus,
    logger,
    publish,
    ways: {
      publish,
      'publish on node-postgres': async (fields: object) =>
        db.transaction(async (tx) => bus.publish(tx, { ...note, ...fields })),
      publishMany: async (fields: object) =>
        database.db.transaction(async (tx) =>
          bus.publishMany(tx, [
            { ...note, payload: 0 },
            { ...note, ...fields },
            { ...note, payload: 2 },
          ]),
        ),
      'plain SQL': async (fields: object) =>
        database.rows('select * from bus.publish($1)', [
          JSON.stringify([{ source: 'sql', ...note, ...fields }]),
        ]),
    },
  }
}

for (const [what, table, body] of [
  ['leaves an event out', 'bus.events', `if new.payload = '1' then return null; end if; return new;`],
  ['changes an id', 'bus.events', `if new.payload = '1' then new.id = bus.uuid_v7(); end if; return new;`],
  [
    'changes a tenant',
    'bus.events',
    `if new.payload = '1' then new.tenant_id = 'rival'; end if; return new;`,
  ],
  ['changes a type', 'bus.events', `if new.payload = '1' then new.type = 'other'; end if; return new;`],
  ['leaves an event out of the outbox', 'bus.outbox', 'return null;'],
] as const) {
  test(`a trigger that ${what} makes publishing fail, and no key is burnt`, async () => {
    const database = await createTestDatabase()
    const { ways, publish, bus, logger } = waysToPublish(database)
    await addTrigger(database, table, body)
    for (const [name, way] of Object.entries(ways)) {
      for (const fields of [{}, { eventId: 'e1', idempotencyKey: 'i1' }]) {
        const expected = name === 'plain SQL' ? { code: 'BUS02' } : notStored
        await expect(way(fields)).rejects.toMatchObject(expected)
      }
    }
    expect(await bus.tryPublish({ ...note, eventId: 'e1' })).toBeUndefined()
    expect((await bus.health()).failedTryPublishCount).toBe(1)
    expect(logger.lines.at(-1)?.fields['errorCode']).toBe('BUS_EVENT_NOT_STORED')
    expect(await written(database)).toBe(0)
    await removeTrigger(database)
    expect(await publish({ eventId: 'e1', idempotencyKey: 'i1' })).toMatchObject({ duplicate: false })
    expect(await publish({ eventId: 'e1' })).toMatchObject({ duplicate: true })
    expect(await written(database)).toBe(4)
  })
}

test('a rule instead of the insert makes publishing fail, also behind an event of the same transaction that was stored', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  await database.rows(
    `create rule quiet as on insert to bus.events where new.payload = '1' do instead nothing`,
  )
  const both = database.db.transaction(async (tx) => {
    await bus.publish(tx, { ...note, payload: 2 })
    await bus.publish(tx, note)
  })
  await expect(both).rejects.toMatchObject(notStored)
  expect(await written(database)).toBe(0)
})

test('a key that a trigger keeps out makes publishing fail, as the next duplicate would go through', async () => {
  const database = await createTestDatabase()
  const { ways } = waysToPublish(database)
  await addTrigger(
    database,
    'bus.event_keys',
    `if new.kind = 'idempotency_key' then return null; end if; return new;`,
  )
  for (const [name, way] of Object.entries(ways)) {
    const expected = name === 'plain SQL' ? { code: 'BUS02' } : notStored
    await expect(way({ idempotencyKey: 'i1' })).rejects.toMatchObject(expected)
    await expect(way({ eventId: name })).resolves.toBeDefined()
  }
})

test('a cancellation that a trigger keeps out makes cancel fail, and the event fires', async () => {
  const database = await createTestDatabase()
  const { bus, publish } = waysToPublish(database)
  const { id } = await publish({ availableAt: new Date(Date.now() + 3_600_000) })
  await addTrigger(database, 'bus.cancellations', 'return null;')
  await expect(bus.cancel(id)).rejects.toMatchObject(notStored)
  await expect(database.db.transaction(async (tx) => bus.cancel(tx, id))).rejects.toMatchObject(notStored)
  expect(await database.count('select count(*) from bus.outbox')).toBe(1)
  await removeTrigger(database)
  expect(await bus.cancel(id)).toBe(true)
})

test('a trigger that keeps the outbox row of a cancelled event makes cancel say that it was not cancelled', async () => {
  const database = await createTestDatabase()
  const { bus, publish } = waysToPublish(database)
  const { id } = await publish({ availableAt: new Date(Date.now() + 3_600_000) })
  await addTrigger(database, 'bus.outbox', 'return null;', 'before delete')
  expect(await bus.cancel(id)).toBe(false)
  expect(await database.count('select count(*) from bus.cancellations')).toBe(0)
})

test('triggers that change payload or metadata, or publish events of their own, are no obstacle', async () => {
  const database = await createTestDatabase()
  const { ways } = waysToPublish(database)
  await addTrigger(database, 'bus.events', `new.metadata = new.metadata || '{"region": "eu"}'; return new;`)
  // After the bus's own trigger, and before it.
  for (const name of ['zz_audit', 'aa_audit']) {
    await database.rows(`create function public.${name}() returns trigger language plpgsql as $$ begin
      if pg_trigger_depth() < 2 then
        insert into bus.events (tenant_id, type, source, payload) select tenant_id, 'audit', 'trigger', '7' from added;
      end if; return null; end $$`)
    await database.rows(`create trigger ${name} after insert on bus.events referencing new table as added
      for each statement execute function public.${name}()`)
  }
  for (const [name, way] of Object.entries(ways)) {
    for (const fields of [{}, { eventId: name }]) await expect(way(fields)).resolves.toBeDefined()
  }
  expect(await database.count(`select count(*) from bus.events where metadata->>'region' = 'eu'`)).toBe(36)
  expect(await database.count(`select count(*) from bus.outbox`)).toBe(36)
})

test('a role that may only publish is told as well, and publishes beside triggers that publish', async () => {
  const database = await createTestDatabase()
  const login = await createLogin(database, ['bus_publisher'])
  const bus = testBus(login.url)
  const publish = async () => login.db.transaction(async (tx) => bus.publish(tx, note))
  await addTrigger(database, 'bus.events', `if new.type = 'note' then return null; end if; return new;`)
  await expect(publish()).rejects.toMatchObject(notStored)
  await removeTrigger(database)
  await database.rows(`create function public.meddle() returns trigger language plpgsql security definer as $$ begin
    if pg_trigger_depth() < 2 then insert into bus.events (tenant_id, type, source, payload) values ('a', 'audit', 'trigger', '7'); end if;
    return null; end $$`)
  await database.rows(
    'create trigger meddle_later after insert on bus.events for each statement execute function public.meddle()',
  )
  expect(await publish()).toMatchObject({ duplicate: false })
})

const insertId = (id: string, createdAt = 'clock_timestamp()'): string =>
  `insert into bus.events (id, tenant_id, type, source, payload, created_at) select ${id}, 'acme', 'note', 'sql', '1', ${createdAt}`

/** A uuid of version 7 of a moment. */
const idOf = (moment: string): string =>
  `overlay(bus.uuid_v7_floor(${moment})::text placing '7' from 15)::uuid`

test('plain SQL with an id that is no uuid of version 7, or of another time, is refused with a sentence', async () => {
  const database = await createTestDatabase()
  const { rows, count } = database
  const refused = (reason: string) => ({
    code: '23514',
    constraint: 'events_id',
    message: expect.stringContaining(reason) as string,
  })
  for (const id of [
    'gen_random_uuid()',
    `'00000000-0000-0000-0000-000000000000'::uuid`,
    'bus.uuid_v7_floor(now())',
  ])
    await expect(rows(insertId(id))).rejects.toMatchObject(refused('of version 7'))
  for (const moment of [
    `now() + interval '2 months'`,
    `now() - interval '2 months'`,
    `now() + interval '8 days'`,
    `now() - interval '8 days'`,
    `'1970-01-01'::timestamptz`,
  ])
    await expect(rows(insertId(idOf(moment)))).rejects.toMatchObject(refused('within 7 days'))
  for (const createdAt of [`'infinity'`, `'-infinity'`, `now() - interval '1 year'`])
    await expect(rows(insertId(idOf(`now() - interval '2 months'`), createdAt))).rejects.toMatchObject(
      refused('within 7 days'),
    )
  // One of several is enough, and none is stored.
  await expect(
    rows(`insert into bus.events (id, tenant_id, type, source, payload)
      select case n when 500 then gen_random_uuid() else bus.uuid_v7() end, 'acme', 'note', 'sql', '1' from generate_series(1, 1000) n`),
  ).rejects.toMatchObject(refused('of version 7'))
  expect(await count('select count(*) from bus.events')).toBe(0)
})

test('ids that a client makes by a clock of its own, and those of older events with their times, are taken and found', async () => {
  const database = await createTestDatabase()
  const { rows, count } = database
  const bus = testBus(database.url)
  const seen: string[] = []
  bus.subscribe({ name: 'seen', events: ['note'], handler: ({ id }) => void seen.push(id) })
  await bus.start()
  for (const moment of ['now()', `now() + interval '1 day'`, `now() - interval '6 days'`])
    await rows(insertId(idOf(moment)))
  await rows(insertId(idOf(`'2024-02-03T00:00:00Z'::timestamptz`), `'2024-02-03T00:00:00Z'`))
  await rows(insertId('bus.uuid_v7()'))
  await until('all are delivered', () => seen.length === 5)
  const from = new Date('2024-02-01T00:00:00Z')
  const to = new Date('2024-03-01T00:00:00Z')
  expect(await bus.tenant('acme').events.find({ from, to })).toHaveLength(1)
  expect((await bus.tenant('acme').stats({ from, to })).eventCount).toBe(1)
  expect((await bus.tenant('acme').stats()).eventCount).toBe(5)
  expect(await count('select count(*) from bus.events_default')).toBe(1)
  await until('all is settled', async () => (await count('select count(*) from bus.receipts_default')) === 1)
  expect((await bus.health()).defaultPartition).toMatchObject({ eventCount: 1, deliveryCount: 1 })
})
