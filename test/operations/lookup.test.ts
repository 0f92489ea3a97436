import { expect, test } from 'vitest'
import type { LookupMatch } from '../../src/index.ts'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { publish, retryAtOnce } from '../support/ledger.ts'

const note = { type: 'note', tenantId: 'acme', payload: 1 } as const

test('any id that somebody has in hand: what it is, and what opens it', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({
    ...{ name: 'doomed', events: ['note'], ordered: true, retry: { ...retryAtOnce, maxAttempts: 1 } },
    handler: () => {
      throw new Error('refused')
    },
  })
  await bus.start()
  const [id = '', other = ''] = await publish(
    database,
    bus,
    {
      ...note,
      eventId: 'order-7',
      idempotencyKey: 'same',
      subject: 'customer',
      correlationId: 'flow',
      orderingKey: 'line',
    },
    { ...note, tenantId: 'rival', eventId: 'order-7', subject: 'customer', correlationId: 'same' },
  )
  await until('both are dead', async () => (await bus.deadLetters.list()).length === 2)
  const look = async (text: string): Promise<readonly LookupMatch[]> => {
    const { matches, isPartial } = await bus.lookup(text)
    expect(isPartial).toBe(false)
    return matches
  }
  expect(await bus.lookup(` ${id.toUpperCase()} `)).toEqual({
    text: id.toUpperCase(),
    matches: [{ kind: 'event', id, tenantId: 'acme', type: 'note' }],
    isPartial: false,
  })
  expect(await look('order-7')).toEqual([
    { kind: 'business-id', tenantId: 'acme', id },
    { kind: 'business-id', tenantId: 'rival', id: other },
  ])
  expect(await look('same')).toEqual([
    { kind: 'idempotency-key', tenantId: 'acme', id },
    { kind: 'correlation', tenantId: 'rival', id: other },
  ])
  expect(await look('customer')).toEqual(
    expect.arrayContaining([
      { kind: 'subject', tenantId: 'acme', id },
      { kind: 'subject', tenantId: 'rival', id: other },
    ]),
  )
  expect(await look('flow')).toEqual([{ kind: 'correlation', tenantId: 'acme', id }])
  expect(await look('line')).toEqual([
    { kind: 'ordering-key', tenantId: 'acme', id, subscription: 'doomed', state: 'blocked' },
  ])
  expect(await look('rival')).toEqual([{ kind: 'tenant', tenantId: 'rival', id: other }])
  expect(await look('doomed')).toEqual([{ kind: 'subscription', name: 'doomed', service: 'payment-service' }])
  expect(await look('note')).toEqual([{ kind: 'type', type: 'note', id: other }])
  expect(await look('nothing')).toEqual([])
  // The job of a dead letter: its own id, and that of the job that failed.
  const [letter] = await bus.deadLetters.list()
  const [dead] = await database.rows(
    `select id, source_root_id from pgboss.job where name = 'bus.doomed.dead' and source_root_id = $1`,
    [letter?.jobId],
  )
  const match = {
    kind: 'job',
    queue: 'bus.doomed.dead',
    subscription: 'doomed',
    isDeadLetter: true,
    eventIds: [letter?.id],
    eventCount: 1,
    jobId: dead?.['id'],
  }
  expect(await look(String(dead?.['id']))).toMatchObject([match])
  expect(await look(letter?.jobId ?? '')).toEqual(expect.arrayContaining([expect.objectContaining(match)]))
  const [instance] = await database.rows('select id from bus.instances')
  expect(await look(String(instance?.['id']))).toMatchObject([
    { kind: 'instance', service: 'payment-service', pid: process.pid },
  ])
  const [operation] = await database.rows(
    `insert into bus.operations (kind, actor, selection, subscription_ids, state) values ('replay', 'ada', '{}', '{}', 'paused') returning id`,
  )
  expect(await look(String(operation?.['id']))).toEqual([
    { kind: 'operation', id: operation?.['id'], operation: 'replay', state: 'paused' },
  ])
  const [audit] = await database.rows(
    `insert into bus.audit (actor, action) values ('ada', 'test.act') returning id`,
  )
  expect(await look(String(audit?.['id']))).toEqual([
    { kind: 'audit', id: audit?.['id'], action: 'test.act', by: 'ada', at: expect.any(Date) as Date },
  ])
  expect(await look('019a2279-8604-70ad-bda8-b7b51b3cd606')).toEqual([])
  for (const text of ['', 'x'.repeat(1025), '\u0000', 7 as never])
    await expect(bus.lookup(text)).rejects.toMatchObject({ code: 'BUS_INVALID_OPTION' })

  // A tenant: its own, and nothing of how the bus works.
  const rival = bus.tenant('rival')
  expect((await rival.lookup('order-7')).matches).toEqual([
    { kind: 'business-id', tenantId: 'rival', id: other },
  ])
  expect((await rival.lookup('customer')).matches).toEqual([
    { kind: 'subject', tenantId: 'rival', id: other },
  ])
  for (const text of [
    id,
    'flow',
    'line',
    'acme',
    'doomed',
    'note',
    String(dead?.['id']),
    String(instance?.['id']),
    String(audit?.['id']),
  ])
    expect([text, (await rival.lookup(text)).matches]).toEqual([text, []])
  expect((await rival.lookup(other)).matches).toEqual([
    { kind: 'event', id: other, tenantId: 'rival', type: 'note' },
  ])
})

test('a job of pg-boss that is none of the bus', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  await database.rows(`select pgboss.create_queue('mails', '{"policy": "standard"}'::jsonb)`)
  const [job] = await database.rows(
    `insert into pgboss.job (name, data, policy) values ('mails', '{"to": "ada"}', 'standard') returning id`,
  )
  expect((await bus.lookup(String(job?.['id']))).matches).toEqual([
    {
      ...{ kind: 'job', jobId: job?.['id'], queue: 'mails', state: 'created', subscription: undefined },
      ...{ isDeadLetter: false, eventIds: [], eventCount: 0 },
    },
  ])
})
