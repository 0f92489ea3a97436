import { expect, test } from 'vitest'
import { createBus, defineEvents } from '../../../src/index.ts'
import { onTestFinished } from 'vitest'
import { z } from 'zod'
import { recordingLogger, testBus, type PaymentBus } from '../../support/bus.ts'
import { createTestDatabase, until } from '../../support/database.ts'
import { refusalOf } from '../../foundation/refusal.ts'
import { subscribeDoomed, untilDead } from '../../support/dead-letters.ts'
import { publish } from '../../support/ledger.ts'

const note = { type: 'note', tenantId: 'acme' } as const

test('an edited copy is delivered to that subscription alone, with the event as its cause, and the dead letter is discarded', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const doomed = subscribeDoomed(bus, 'doomed')
  const other = subscribeDoomed(bus, 'other')
  doomed.fails = (payload) => payload === 'wrong'
  other.fails = false
  await bus.start()
  const [id = ''] = await publish(database, bus, {
    ...note,
    ...{ payload: 'wrong', eventId: 'business', subject: 'ana', metadata: { a: '1' } },
  })
  await untilDead(database, 1)
  const options = { payload: 'right', by: 'ana', reason: 'a typo' }
  expect(await bus.deadLetters.redriveEdited(id, 'doomed', { ...options, dryRun: true })).toEqual({
    id: undefined,
    changes: [{ path: 'payload', what: 'changed' }],
  })
  const { id: copyId = '' } = await bus.deadLetters.redriveEdited(id, 'doomed', options)
  await until('the copy is delivered', async () => (await bus.deliveries(copyId))[0]?.state === 'delivered')
  expect(doomed.done).toEqual(['right'])
  expect(other.done).toEqual(['wrong'])
  expect(await bus.events.get(copyId)).toMatchObject({
    ...{ type: 'note', tenantId: 'acme', payload: 'right', causationId: id, correlationId: id },
    ...{ source: 'payment-service', subject: 'ana', metadata: { a: '1' }, eventId: undefined },
  })
  expect(await bus.deliveries(copyId)).toMatchObject([{ subscription: 'doomed', state: 'delivered' }])
  expect(await bus.deliveries(id)).toMatchObject([
    {
      subscription: 'doomed',
      state: 'discarded',
      discard: { by: 'ana', reason: 'a typo', replacedBy: copyId },
    },
    { subscription: 'other', state: 'delivered' },
  ])
  expect(await bus.audit.list({ eventId: id })).toMatchObject([
    {
      ...{ action: 'deadLetters.redriveEdited', by: 'ana', subscription: 'doomed' },
      change: { copyId, changes: [{ path: 'payload', what: 'changed' }] },
    },
  ])
  expect(await database.rows('select event_id, original_id from bus.event_copies')).toEqual([
    { event_id: copyId, original_id: id },
  ])
  expect(await database.count('select count(*) from bus.outbox')).toBe(0)
  expect(await bus.deadLetters.list()).toEqual([])
  await expect(bus.deadLetters.redriveEdited(id, 'doomed', options)).rejects.toMatchObject({
    code: 'BUS_DEAD_LETTER_NOT_FOUND',
  })
})

test.each([
  ['that holds its key takes its place', 'block', ['right', 2, 3]],
  ['that was skipped goes to the end of its key', 'skip', [2, 3, 'right']],
] as const)('the copy of an event %s', async (_, onKeyFailure, expected) => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const doomed = subscribeDoomed(bus, 'in-order', { ordered: true, onKeyFailure })
  doomed.fails = (payload) => payload === 1
  await bus.start()
  const [id = ''] = await publish(
    database,
    bus,
    ...[1, 2, 3].map((payload) => ({ ...note, payload, orderingKey: 'k' })),
  )
  await untilDead(database, 1)
  await until('what can be is delivered', () => doomed.done.length === (onKeyFailure === 'skip' ? 2 : 0))
  await bus.deadLetters.redriveEdited(id, 'in-order', { payload: 'right', by: 'ana' })
  await until('all are delivered', () => doomed.done.length === 3)
  expect(doomed.done).toEqual(expected)
  await until(
    'the key is gone',
    async () => (await database.count('select count(*) from bus.ordered_keys')) === 0,
  )
})

test('an edit is validated against the catalogue, and its record names changed places without hidden ones', async () => {
  const database = await createTestDatabase()
  const events = defineEvents({
    'card.charged': {
      schema: z.object({
        cents: z.number().int(),
        card: z.object({ number: z.string(), owner: z.string() }),
        lines: z.array(z.string()).optional(),
      }),
      redact: ['card.number'],
    },
    note: { schema: z.unknown() },
  })
  const bus = createBus({ database: database.url, events, source: 'cards', logger: recordingLogger() })
  onTestFinished(async () => bus.stop())
  const doomed = subscribeDoomed(bus as unknown as PaymentBus, 'doomed', {
    events: ['card.charged'],
  } as object)
  await bus.start()
  const payload = { cents: 1, card: { number: '4242', owner: 'ana' } }
  const { id } = await database.db.transaction(async (tx) =>
    bus.publish(tx, { type: 'card.charged', tenantId: 'acme', payload }),
  )
  await untilDead(database, 1)
  const { redriveEdited } = bus.deadLetters
  await expect(
    redriveEdited(id, 'doomed', { payload: { ...payload, cents: '1' }, by: 'ana' }),
  ).rejects.toMatchObject({ code: 'BUS_INVALID_EVENT' })
  await expect(redriveEdited(id, 'doomed', { by: 'ana' })).rejects.toMatchObject({
    code: 'BUS_INVALID_OPTION',
  })
  await expect(redriveEdited(id, 'doomed', { metadata: { a: 1 } as never, by: 'ana' })).rejects.toMatchObject(
    { code: 'BUS_INVALID_EVENT' },
  )
  doomed.fails = false
  await redriveEdited(id, 'doomed', {
    payload: { cents: 2, card: { number: '4343', owner: 'ana' }, lines: ['a'] },
    metadata: { by: 'hand' },
    by: 'ana',
  })
  await until('the copy is delivered', () => doomed.done.length === 1)
  const [record] = await bus.audit.list({ eventId: id })
  expect(record?.change).toMatchObject({
    changes: [
      { path: 'payload.card.number', what: 'changed' },
      { path: 'payload.cents', what: 'changed' },
      { path: 'payload.lines', what: 'added' },
      { path: 'metadata.by', what: 'added' },
    ],
  })
  expect(JSON.stringify(record)).not.toContain('4343')
})

test('an edit of the payload as reads show it keeps the hidden values, or is refused where there is none', async () => {
  const database = await createTestDatabase()
  const events = defineEvents({
    'card.charged': {
      schema: z.object({
        cents: z.number().int(),
        card: z.object({ number: z.string(), code: z.number().optional(), note: z.string().optional() }),
        payers: z.array(z.object({ iban: z.string(), share: z.number() })),
      }),
      redact: ['card.number', 'card.code', 'card.note', 'payers.*.iban'],
    },
    note: { schema: z.unknown() },
  })
  const bus = createBus({ database: database.url, events, source: 'cards', logger: recordingLogger() })
  onTestFinished(async () => bus.stop())
  const doomed = subscribeDoomed(bus as unknown as PaymentBus, 'doomed', {
    events: ['card.charged'],
  } as object)
  await bus.start()
  const payload = {
    cents: -1,
    card: { number: '4242', code: 7 },
    payers: [
      { iban: 'A', share: 1 },
      { iban: 'B', share: 2 },
    ],
  }
  const { id } = await database.db.transaction(async (tx) =>
    bus.publish(tx, { type: 'card.charged', tenantId: 'acme', payload }),
  )
  await untilDead(database, 1)
  const shown = (await bus.events.get(id))?.payload as typeof payload
  expect(shown.card).toEqual({ number: '[redacted]', code: '[redacted]' })
  const edit = async (edited: unknown) =>
    bus.deadLetters.redriveEdited(id, 'doomed', { payload: edited, by: 'ana' })
  const [first] = shown.payers
  for (const [edited, path] of [
    [{ ...shown, payers: [first] }, 'payers.0.iban'],
    [{ ...shown, card: { ...shown.card, note: '[redacted]' } }, 'card.note'],
  ] as const) {
    const error = await refusalOf(async () => edit(edited))
    expect(error).toMatchObject({ code: 'BUS_INVALID_EVENT', issues: [{ path }] })
    expect(error.message).toContain(`${path}: the text \`[redacted]\` stands for a hidden value`)
  }
  expect(await database.count('select count(*) from bus.events')).toBe(1)
  doomed.fails = false
  const { changes } = await edit({ ...shown, cents: 1 })
  expect(changes).toEqual([{ path: 'payload.cents', what: 'changed' }])
  await until('the copy is delivered', () => doomed.done.length === 1)
  expect(doomed.done).toEqual([{ ...payload, cents: 1 }])
})

test('of many edits of one dead letter at the same time, one is delivered', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const doomed = subscribeDoomed(bus, 'doomed')
  doomed.fails = (payload) => payload === 'wrong'
  await bus.start()
  const [id = ''] = await publish(database, bus, { ...note, payload: 'wrong' })
  await untilDead(database, 1)
  const edits = await Promise.allSettled(
    Array.from({ length: 5 }, async (_, n) =>
      bus.deadLetters.redriveEdited(id, 'doomed', { payload: n, by: 'ana' }),
    ),
  )
  expect(edits.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
  await until('it is delivered', () => doomed.done.length === 1)
  // Those that were refused have left nothing.
  expect(await database.count('select count(*) from bus.events')).toBe(2)
  expect(await database.count('select count(*) from bus.audit')).toBe(1)
})
