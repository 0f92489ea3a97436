import { expect, test } from 'vitest'
import { createBus, defineEvents } from '../../src/index.ts'
import { paymentEvents, recordingLogger, testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { createDatabase } from '../../src/database/database.ts'
import { createReceiptPacker } from '../../src/delivery/ledger/pack-receipts.ts'
import { publish } from '../support/ledger.ts'
import { findingsOf, note, waitFor } from '../support/health.ts'
import { z } from 'zod'

test('a canary goes through outbox, relay, queue, worker and receipt, reaches no other subscription, and leaves nothing', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url, { canary: true })
  const seen: string[] = []
  bus.subscribe({ name: 'everything', events: ['**'], handler: ({ type }) => void seen.push(type) })
  bus.subscribe({ name: 'two-segments', events: ['*.*'], handler: ({ type }) => void seen.push(type) })
  await bus.start()
  const first = await bus.canary()
  expect(first).toMatchObject({
    ok: true,
    failedStep: undefined,
    service: 'payment-service',
    isScheduled: false,
  })
  for (const ms of [...Object.values(first.steps), first.totalMs]) {
    expect(ms).toBeGreaterThanOrEqual(0)
    expect(ms).toBeLessThan(10_000)
  }
  // Its positive twin: the same subscription gets other events.
  await publish(database, bus, note)
  await until('the note is there', async () => seen.length === 1)
  expect(seen).toEqual(['note'])
  expect((await bus.canary()).eventId).not.toBe(first.eventId)
  expect(await bus.events.find({ type: 'bossbus.canary' })).toEqual([])
  expect(await database.count('select count(*) from bus.outbox')).toBe(0)
  expect(await database.rows('select type from bus.events')).toEqual([{ type: 'note' }])
  expect(await database.count('select count(*) from bus.deliveries')).toBe(1)
  const health = await bus.health({ full: true })
  expect(health.canary).toMatchObject({ ok: true })
  expect(health.findings.map(({ code }) => code)).not.toContain('canary-failing')
  await bus.stop()
  const after = testBus(database.url)
  expect((await after.stats()).total).toMatchObject({ publishedCount: 1, deliveredCount: 1 })
  expect((await after.stats({ by: 'tenant' })).points.map(({ tenantId }) => tenantId)).toEqual(['acme'])
})

test('calls at the same time share one event', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url, { canary: true })
  await bus.start()
  const results = await Promise.all([bus.canary(), bus.canary(), bus.canary()])
  expect(new Set(results.map(({ eventId }) => eventId)).size).toBe(1)
})

test('two services share the canary, and either is answered, whoever handles it', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url, { canary: true })
  const shop = testBus(database.url, { canary: true, source: 'shop' })
  const publisher = testBus(database.url, { source: 'publisher' })
  await bus.start()
  await shop.start({ run: ['bossbus.canary'] })
  await publisher.start({ run: 'nothing' })
  expect(await shop.canary()).toMatchObject({ ok: true, service: 'shop' })
  expect(await publisher.canary()).toMatchObject({ ok: true, service: 'publisher' })
  expect((await bus.health()).unservedSubscriptions).toEqual([])
})

test('a canary that no worker handles fails at the worker, is a finding, and its event is removed when it has come through', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url, { canary: true })
  await bus.start()
  await bus.subscriptions.pause('bossbus.canary')
  const failed = await bus.canary({ timeoutMs: 500 })
  expect(failed).toMatchObject({ ok: false, failedStep: 'worker', totalMs: undefined })
  expect((await waitFor(bus, 'canary-failing')).data).toMatchObject({
    eventId: failed.eventId,
    failedStep: 'worker',
  })
  await bus.subscriptions.resume('bossbus.canary')
  expect(await bus.canary()).toMatchObject({ ok: true })
  await until(
    'it is handled late',
    async () => (await database.count('select count(*) from bus.receipts')) <= 1,
  )
  await bus.canary()
  expect(await database.count('select count(*) from bus.events')).toBe(0)
  expect(await findingsOf(bus)).not.toContain('canary-failing')
})

test('a canary that no relay dispatches fails at the relay', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url, { canary: true })
  await bus.start()
  await until('it sleeps', async () => (await bus.health()).relay === 'sleeping')
  // As if no relay claimed it: its row of the outbox is taken away.
  await database.rows(
    `create function public.forget() returns trigger language plpgsql as $$ begin delete from bus.outbox where event_id = new.event_id; return null; end $$`,
  )
  await database.rows(
    `create trigger forget after insert on bus.outbox for each row when (new.type = 'bossbus.canary') execute function public.forget()`,
  )
  expect(await bus.canary({ timeoutMs: 500 })).toMatchObject({ ok: false, failedStep: 'relay' })
})

test('a scheduled canary is published once, however many processes have the option', async () => {
  const database = await createTestDatabase()
  const buses = [1, 2, 3].map(() => testBus(database.url, { canary: { everySeconds: 2 } }))
  for (const bus of buses) await bus.start()
  const [first] = buses
  await until('it is over', async () => (await first?.health())?.canary?.ok === true)
  for (const bus of buses) expect((await bus.health()).canary).toMatchObject({ ok: true, isScheduled: true })
  // What one process removes, another does not remove again.
  const removed = 'select count(*) from bus.canaries where removed_at is not null'
  await until('another one is over', async () => (await database.count(removed)) >= 2, 20_000)
  // The three processes have one timer each.
  const tooSoon = `select count(*) from bus.canaries a join bus.canaries b on b.event_id > a.event_id
    and b.published_at < a.published_at + interval '1.7 seconds'`
  expect(await database.count(tooSoon)).toBe(0)
})

test('a stop of the bus says nothing about a canary that is under way', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url, { canary: true })
  await bus.start()
  await bus.subscriptions.pause('bossbus.canary')
  const call = bus.canary({ timeoutMs: 60_000 }).catch((error: unknown) => error)
  await until(
    'it is published',
    async () => (await database.count('select count(*) from bus.canaries')) === 1,
  )
  await bus.stop()
  expect(await call).toMatchObject({ code: 'BUS_INVALID_STATE' })
  expect(await database.rows('select failed_step, received_at from bus.canaries')).toEqual([
    { failed_step: null, received_at: null },
  ])
  // The next process takes it, and removes it with its own.
  const next = testBus(database.url, { canary: true })
  await next.start()
  await next.subscriptions.resume('bossbus.canary')
  expect(await next.canary()).toMatchObject({ ok: true })
  expect((await next.health({ full: true })).findings.map(({ code }) => code)).not.toContain('canary-failing')
})

test('the receipts of canaries are never packed, so that each is removed', async () => {
  const database = await createTestDatabase()
  const { rows, count } = database
  const bus = testBus(database.url, { canary: true })
  bus.subscribe({ name: 'notes', events: ['note'], handler: () => {} })
  await bus.start()
  // Many at a time, as of many processes.
  await bus.subscriptions.pause('bossbus.canary')
  await rows(
    `with stored as (
       insert into bus.events (tenant_id, type, source, payload)
       select 'bossbus', 'bossbus.canary', 'shop', '{}' from generate_series(1, 30) returning id
     )
     insert into bus.canaries (event_id, service, is_scheduled) select id, 'shop', true from stored`,
  )
  await bus.subscriptions.resume('bossbus.canary')
  await until('all have a receipt', async () => (await count('select count(*) from bus.deliveries')) === 30)
  expect(await count('select count(*) from bus.receipt_batches')).toBe(0)
  // Nor are they later, as receipts of other subscriptions are.
  await publish(database, bus, note)
  await until('the note has one', async () => (await count('select count(*) from bus.deliveries')) === 31)
  await rows(
    `insert into bus.receipts (subscription_id, event_id, attempts, duration_ms, expired)
     select subscription_id, overlay(event_id::text placing lpad(n::text, 12, '0') from 25)::uuid, 1, 1, false
     from bus.receipts cross join generate_series(1, 5) n
     where subscription_id = (select id from bus.subscriptions where name = 'notes')`,
  )
  await rows(`update bus.receipts set delivered_at = now() - interval '1 hour'`)
  const own = createDatabase(database.url, recordingLogger())
  expect(await createReceiptPacker(own)()).toBe(6)
  await own.close()
  await until('all canaries are removed', async () => {
    await bus.canary()
    return (await count('select count(*) from bus.canaries where removed_at is null')) === 0
  })
  expect(await count(`select count(*) from bus.events where type = 'bossbus.canary'`)).toBe(0)
  expect(await count('select count(*) from bus.deliveries')).toBe(6)
})

test('without a process that has the option, the call says so', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  await bus.start()
  await expect(bus.canary()).rejects.toMatchObject({ code: 'BUS_INVALID_STATE' })
  await expect(bus.canary({ timeoutMs: 1 })).rejects.toMatchObject({ code: 'BUS_INVALID_OPTION' })
  expect((await bus.health()).canary).toBeUndefined()
})

test('the names of the canary are reserved', () => {
  const schema = z.object({})
  expect(() => defineEvents({ 'bossbus.canary': { schema } })).toThrow('by which the bus tests itself')
  const bus = createBus({
    database: 'postgres://nowhere',
    events: paymentEvents,
    source: 's',
    logger: recordingLogger(),
  })
  expect(() => bus.subscribe({ name: 'bossbus.canary', events: ['note'], handler: () => {} })).toThrow(
    'by which the bus tests itself',
  )
  expect(() =>
    createBus({
      ...{ database: 'postgres://nowhere', events: paymentEvents, source: 's', logger: recordingLogger() },
      canary: { everySeconds: 1 },
    }),
  ).toThrow('`canary.everySeconds`')
})
