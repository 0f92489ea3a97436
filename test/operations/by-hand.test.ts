import { expect, test } from 'vitest'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'

const nowhere = 'postgres://127.0.0.1:1/nowhere'

test('an event that a person publishes is delivered, and the audit says who did it; a duplicate is not recorded', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const handled: unknown[] = []
  bus.subscribe({ name: 'quick', events: ['note'], handler: ({ payload }) => void handled.push(payload) })
  await bus.start()
  const event = { type: 'note', tenantId: 'acme', payload: 'test', eventId: 'once' } as const
  const { id, duplicate } = await bus.publishByHand(event, { by: 'ana', reason: 'a test' })
  expect(duplicate).toBe(false)
  await until('it is handled', () => handled.length === 1)
  expect(await bus.publishByHand(event, { by: 'ben' })).toEqual({ id, duplicate: true })
  expect(await bus.audit.list()).toMatchObject([
    {
      ...{ action: 'publishByHand', by: 'ana', reason: 'a test', tenantId: 'acme', eventId: id },
      change: { type: 'note' },
    },
  ])
  expect(await database.count('select count(*) from bus.audit')).toBe(1)
})

test('an event that does not fit, or that nobody publishes, is refused before anything is written', async () => {
  const bus = testBus(nowhere)
  const note = { type: 'note', tenantId: 'acme', payload: 1 } as const
  for (const [event, change, code] of [
    [{ ...note, type: 'unknown' }, { by: 'ana' }, 'BUS_UNKNOWN_EVENT_TYPE'],
    [{ ...note, type: 'payment.paid' }, { by: 'ana' }, 'BUS_INVALID_EVENT'],
    [{ ...note, tenantId: undefined }, { by: 'ana' }, 'BUS_TENANT_REQUIRED'],
    [null, { by: 'ana' }, 'BUS_INVALID_EVENT'],
    [note, {}, 'BUS_INVALID_OPTION'],
    [note, undefined, 'BUS_INVALID_OPTION'],
    [note, { by: 'ana', tenantId: 'acme' }, 'BUS_INVALID_OPTION'],
    [note, { by: 'a\u0000' }, 'BUS_INVALID_OPTION'],
  ] as const)
    await expect(bus.publishByHand(event as never, change as never)).rejects.toMatchObject({ code })
})

test('a cancellation by a person is in the audit, one by a service is not, and one that cancels nothing neither', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const later = { type: 'note', tenantId: 'acme', payload: 1, availableIn: { seconds: 60 } } as const
  const first = await bus.tryPublish(later)
  const second = await bus.tryPublish(later)
  expect(await bus.cancel(first?.id ?? '', { by: 'ana', reason: 'a mistake', tenantId: 'rival' })).toBe(false)
  expect(await bus.cancel(first?.id ?? '', { by: 'ana', reason: 'a mistake', tenantId: 'acme' })).toBe(true)
  expect(await bus.cancel(first?.id ?? '', { by: 'ana' })).toBe(false)
  expect(await bus.cancel(second?.id ?? '')).toBe(true)
  expect(await bus.audit.list()).toMatchObject([
    { action: 'cancel', by: 'ana', reason: 'a mistake', tenantId: 'acme', eventId: first?.id },
  ])
  expect(await database.count('select count(*) from bus.audit')).toBe(1)
  expect(await database.count('select count(*) from bus.cancellations')).toBe(2)
  await expect(bus.cancel(second?.id ?? '', { reason: 'nobody' })).rejects.toMatchObject({ option: 'by' })
  await database.db.transaction(async (tx) => {
    const withActor = { by: 'ana' } as never
    await expect(bus.cancel(tx, second?.id ?? '', withActor)).rejects.toMatchObject({
      code: 'BUS_INVALID_OPTION',
    })
  })
})

test('numbers that JavaScript cannot hold are texts where that is asked for', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const [row] = await database.rows(
    `insert into bus.events (tenant_id, type, source, correlation_id, payload)
     values ('acme', 'note', 'psql', 'flow', '{"id": 9007199254740993, "cents": 12}') returning id`,
  )
  const id = String(row?.['id'])
  const exact = { id: '9007199254740993', cents: 12 }
  const nearest = { id: 9007199254740992, cents: 12 }
  for (const { events } of [bus, bus.tenant('acme')]) {
    expect((await events.get(id))?.payload).toEqual(nearest)
    expect((await events.get(id, { exactNumbers: true }))?.payload).toEqual(exact)
    expect((await events.find({ type: 'note' }))[0]?.payload).toEqual(nearest)
    expect((await events.find({ type: 'note', exactNumbers: true }))[0]?.payload).toEqual(exact)
    expect((await events.search({ exactNumbers: true })).events[0]?.payload).toEqual(exact)
    expect((await events.trace('flow', { exactNumbers: true }))[0]?.payload).toEqual(exact)
    for (const text of ['flow', id])
      expect((await events.traceTree(text, { exactNumbers: true })).roots[0]?.event.payload).toEqual(exact)
    for (const call of [events.find, events.search])
      await expect(call({ exactNumbers: 'yes' as never })).rejects.toMatchObject({ option: 'exactNumbers' })
    for (const call of [events.get, events.trace, events.traceTree])
      await expect(call(id, { exactNumbers: 1 as never })).rejects.toMatchObject({ option: 'exactNumbers' })
    await expect(events.get(id, { limit: 1 } as never)).rejects.toMatchObject({ code: 'BUS_INVALID_OPTION' })
  }
})

test('the declared types of all services are listed', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  expect(await bus.catalogue.list()).toEqual([])
  await bus.start({ run: 'nothing' })
  const declared = await bus.catalogue.list()
  expect(declared.map(({ type, version, service }) => [type, version, service])).toEqual(
    ['note', 'payment.paid', 'payment.refunded', 'usage.billed'].map((type) => [type, 1, 'payment-service']),
  )
  expect(declared.find(({ type }) => type === 'usage.billed')).toMatchObject({ sources: ['billing'] })
})
