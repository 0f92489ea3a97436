import { describe, expect, test } from 'vitest'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, type TestDatabase } from '../support/database.ts'
import { refusalOf } from './refusal.ts'

const paid = {
  type: 'payment.paid',
  tenantId: 'acme',
  payload: { paymentId: 'p1', amountCents: 100 },
} as const

/** Each kind of event that publish refuses, by the code it is refused with. */
const refused: readonly (readonly [code: string, event: unknown])[] = [
  ['BUS_INVALID_EVENT', { ...paid, payload: { paymentId: 'p1', amountCents: 'a lot' } }],
  ['BUS_INVALID_EVENT', { ...paid, eventId: '' }],
  ['BUS_INVALID_EVENT', { ...paid, metadata: { a: 1 } }],
  ['BUS_INVALID_EVENT', { ...paid, source: 'billing' }],
  ['BUS_INVALID_EVENT', null],
  ['BUS_UNKNOWN_EVENT_TYPE', { ...paid, type: 'payment.lost' }],
  ['BUS_TENANT_REQUIRED', { ...paid, tenantId: undefined }],
  ['BUS_PAYLOAD_NOT_JSON', { ...paid, type: 'note', payload: { at: new Date() } }],
  ['BUS_PAYLOAD_TOO_LARGE', { ...paid, type: 'note', payload: 'x'.repeat(300_000) }],
  ['BUS_SOURCE_NOT_ALLOWED', { ...paid, type: 'usage.billed', payload: { units: 1 } }],
]

async function written({ count }: TestDatabase): Promise<readonly number[]> {
  return Promise.all(
    ['events', 'outbox', 'event_keys'].map(async (table) => count(`select count(*) from bus.${table}`)),
  )
}

describe('a refused event', () => {
  test('writes nothing, and the transaction goes on to publish a good one', async () => {
    const database = await createTestDatabase()
    const bus = testBus(database.url)
    for (const [code, event] of refused) {
      await database.db.transaction(async (tx) => {
        const error = await refusalOf(async () => bus.publish(tx, event as typeof paid))
        expect(error).toMatchObject({ code, name: 'InvalidEventError', retryable: false })
      })
    }
    expect(await written(database)).toEqual([0, 0, 0])

    await database.db.transaction(async (tx) => {
      for (const [, event] of refused) await refusalOf(async () => bus.publish(tx, event as typeof paid))
      await bus.publish(tx, { ...paid, eventId: 'e1' })
    })
    expect(await written(database)).toEqual([1, 1, 1])
  })

  test('takes the whole of its batch with it, and the batch without it is written', async () => {
    const database = await createTestDatabase()
    const bus = testBus(database.url)
    await database.db.transaction(async (tx) => {
      for (const [code, event] of refused) {
        const error = await refusalOf(async () => bus.publishMany(tx, [paid, event as typeof paid, paid]))
        expect(error).toMatchObject({ code, message: expect.stringMatching(/^Event 1: /) as string })
      }
      expect(await refusalOf(async () => bus.publishMany(tx, []))).toMatchObject({
        code: 'BUS_INVALID_BATCH',
      })
      const tooMany = Array.from({ length: 10_001 }, () => paid)
      expect(await refusalOf(async () => bus.publishMany(tx, tooMany))).toMatchObject({
        code: 'BUS_INVALID_BATCH',
      })
    })
    expect(await written(database)).toEqual([0, 0, 0])

    await database.db.transaction(async (tx) => bus.publishMany(tx, [paid, paid]))
    expect(await written(database)).toEqual([2, 2, 0])
  })

  test('lets an adapter publish what it may and never what is billed', async () => {
    const database = await createTestDatabase()
    const adapter = testBus(database.url, { source: 'zoom-adapter' })
    const billing = testBus(database.url, { source: 'billing' })
    const billed = { type: 'usage.billed', tenantId: 'acme', payload: { units: 3 } } as const
    await database.db.transaction(async (tx) => {
      expect(await refusalOf(async () => adapter.publish(tx, billed))).toMatchObject({
        code: 'BUS_SOURCE_NOT_ALLOWED',
      })
      await adapter.publish(tx, { type: 'note', tenantId: 'acme', payload: 'from the adapter' })
      await billing.publish(tx, billed)
    })
    expect(await adapter.tryPublish(billed)).toBeUndefined()
    expect(await database.rows('select type, source from bus.events order by id')).toEqual([
      { type: 'note', source: 'zoom-adapter' },
      { type: 'usage.billed', source: 'billing' },
    ])
  })
})

describe('an event at the limits', () => {
  test('is stored by PostgreSQL as it was given', async () => {
    const { url, db, rows } = await createTestDatabase()
    const bus = testBus(url)
    const wide = '☃'.repeat(255)
    let deep: unknown = 'inside'
    for (let i = 0; i < 512; i += 1) deep = [deep]
    const payloads = [
      null,
      '',
      '☃'.repeat(87_380),
      deep,
      [5e-324, 1.797_693_134_862_315_7e308, -1e21, 0.1 + 0.2, 9_007_199_254_740_991 * 1024],
      JSON.parse('{"__proto__": 1, "": 2, "a.b": 3, "constructor": {"prototype": 4}}') as unknown,
      'ünï \u2028 \u007f \\ " \' \uffff 😀',
    ]
    await db.transaction(async (tx) => {
      const notes = payloads.map((payload) => ({ type: 'note', tenantId: wide, payload }) as const)
      await bus.publishMany(tx, notes)
      await bus.publish(tx, {
        type: 'note',
        tenantId: wide,
        payload: 'all fields',
        eventId: wide,
        idempotencyKey: wide,
        correlationId: wide,
        orderingKey: wide,
        subject: '☃'.repeat(1024),
        causationId: '0190163d-8694-739b-aea5-966c26f8ad90',
        availableAt: new Date('9999-12-31T23:59:59.999Z'),
        metadata: { big: 'x'.repeat(16_000) },
      })
    })
    const stored = await rows('select payload from bus.events order by id')
    expect(stored.map(({ payload }) => payload)).toEqual([...payloads, 'all fields'])
    expect(
      await rows(`select length(subject) as n, available_at from bus.events where event_id is not null`),
    ).toEqual([{ n: 1024, available_at: new Date('9999-12-31T23:59:59.999Z') }])
  })
})
