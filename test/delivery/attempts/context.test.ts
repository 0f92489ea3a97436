import { expect, onTestFinished, test } from 'vitest'
import { z } from 'zod'
import { createBus, defineEvents } from '../../../src/index.ts'
import { recordingLogger, testBus } from '../../support/bus.ts'
import { createTestDatabase, until } from '../../support/database.ts'

test('a handler publishes events that carry on the correlation and name their cause', async () => {
  const { url, db, rows } = await createTestDatabase()
  const bus = testBus(url)
  bus.subscribe({
    name: 'refunder',
    events: ['payment.paid'],
    handler: async ({ payload }, { publish }) => {
      const refund = {
        type: 'payment.refunded',
        tenantId: 'a',
        payload: { paymentId: payload.paymentId },
      } as const
      if (payload.paymentId === 'own') await publish(refund)
      else await db.transaction(async (tx) => publish(tx, refund))
    },
  })
  await bus.start()
  const paid = (paymentId: string, correlationId?: string) =>
    ({ type: 'payment.paid', tenantId: 'a', payload: { paymentId, amountCents: 1 }, correlationId }) as const
  const [own, joined] = await db.transaction(async (tx) =>
    bus.publishMany(tx, [paid('own', 'c-1'), paid('joined')]),
  )
  const refunds = async () =>
    rows(
      `select payload->>'paymentId' as id, correlation_id, causation_id from bus.events where type = 'payment.refunded' order by 1`,
    )
  await until('both refunds are published', async () => (await refunds()).length === 2)
  expect(await refunds()).toEqual([
    { id: 'joined', correlation_id: joined?.id, causation_id: joined?.id },
    { id: 'own', correlation_id: 'c-1', causation_id: own?.id },
  ])
})

test('a handler sees the event as it was stored, and logs with its fields', async () => {
  const { url, db } = await createTestDatabase()
  const logger = recordingLogger()
  const bus = testBus(url, { logger })
  const seen: unknown[] = []
  bus.subscribe({
    name: 'logger',
    events: ['note'],
    handler: (event, ctx) => {
      ctx.log.info({ more: 1 }, 'from the handler')
      seen.push(event, ctx.attempt, ctx.signal.aborted)
    },
  })
  await bus.start()
  const { id } = await db.transaction(async (tx) =>
    bus.publish(tx, {
      type: 'note',
      tenantId: 'a',
      payload: { deep: [1, 'ü', null] },
      subject: 's',
      metadata: { k: 'v' },
    }),
  )
  await until('it was handled', () => seen.length === 3)
  expect(seen[0]).toMatchObject({
    id,
    type: 'note',
    source: 'payment-service',
    subject: 's',
    tenantId: 'a',
    payload: { deep: [1, 'ü', null] },
    schemaVersion: 1,
    eventId: undefined,
    metadata: { k: 'v' },
    createdAt: expect.any(Date) as Date,
  })
  expect(seen.slice(1)).toEqual([1, false])
  expect(logger.lines).toContainEqual({
    level: 'info',
    fields: { subscription: 'logger', id, type: 'note', tenantId: 'a', attempt: 1, more: 1 },
    message: 'from the handler',
  })
})

test('handlers see the newest shape of an event that was stored in an older one', async () => {
  const { url, db } = await createTestDatabase()
  const older = defineEvents({ 'order.placed': { schema: z.object({ total: z.number() }) } })
  const newer = defineEvents({
    'order.placed': {
      version: 3,
      schema: z.object({ totalCents: z.number(), currency: z.string() }),
      upcast: {
        1: ({ total }: { total: number }) => ({ totalCents: total * 100 }),
        2: (payload: object) => ({ ...payload, currency: 'EUR' }),
      },
    },
  })
  const publisher = createBus({ database: url, events: older, source: 'orders' })
  const consumer = createBus({ database: url, events: newer, source: 'orders' })
  onTestFinished(async () => {
    await publisher.stop()
    await consumer.stop()
  })
  const seen: unknown[] = []
  consumer.subscribe({
    name: 'totals',
    events: ['order.placed'],
    handler: ({ payload, schemaVersion }) => void seen.push({ ...payload, schemaVersion }),
  })
  await consumer.start()
  await db.transaction(async (tx) =>
    publisher.publish(tx, { type: 'order.placed', tenantId: 'a', payload: { total: 12 } }),
  )
  await until('it was handled', () => seen.length === 1)
  expect(seen).toEqual([{ totalCents: 1200, currency: 'EUR', schemaVersion: 3 }])
})

test.each(['at-least-once', 'exactly-once'] as const)(
  'a handler publishes and cancels for the tenant of its event, unless it says another: %s',
  async (mode) => {
    const { url, db, rows } = await createTestDatabase()
    const bus = testBus(url)
    const results: unknown[] = []
    bus.subscribe({
      name: 'publisher',
      events: ['payment.paid'],
      mode: mode as 'at-least-once',
      handler: async (event, ctx) => {
        const refund = { type: 'payment.refunded', payload: { paymentId: event.payload.paymentId } } as const
        await ctx.publish({ ...refund, subject: 'one' })
        await ctx.publish({ ...refund, subject: 'other', tenantId: 'other' })
        await ctx.publishMany([{ ...refund, subject: 'many' }])
        await ctx.tryPublish({ ...refund, subject: 'try' })
        await db.transaction(async (tx) => {
          await ctx.publish(tx, { ...refund, subject: 'joined' })
          await ctx.publishMany(tx, [{ ...refund, subject: 'joined many' }])
          await ctx.with({ subject: 'with' }).publish(tx, refund)
        })
        const later = await ctx.publish({ ...refund, subject: 'later', availableIn: { seconds: 3600 } })
        const others = await ctx.publish({
          ...refund,
          subject: 'later',
          tenantId: 'other',
          availableIn: { seconds: 3600 },
        })
        results.push(await ctx.cancel(later.id), await ctx.cancel(others.id))
        results.push(await ctx.cancel(others.id, { tenantId: 'other' }))
        await expect(ctx.publish(undefined as never, refund)).rejects.toMatchObject({
          code: 'BUS_NOT_IN_TRANSACTION',
        })
        await expect(ctx.cancel('no id')).rejects.toMatchObject({ code: 'BUS_INVALID_OPTION' })
      },
    })
    await bus.start()
    const { id } = await db.transaction(async (tx) =>
      bus.publish(tx, {
        type: 'payment.paid',
        tenantId: 'acme',
        payload: { paymentId: 'p', amountCents: 1 },
      }),
    )
    await until('it is delivered', async () =>
      (await bus.deliveries(id)).some(({ state }) => state === 'delivered'),
    )
    expect(results).toEqual([true, false, true])
    const published = await rows(
      `select subject, tenant_id, causation_id from bus.events where type = 'payment.refunded' order by 1, 2`,
    )
    expect(new Set(published.map((row) => row['causation_id']))).toEqual(new Set([id]))
    expect(published.map((row) => `${String(row['subject'])}: ${String(row['tenant_id'])}`)).toEqual([
      'joined: acme',
      'joined many: acme',
      'later: acme',
      'later: other',
      'many: acme',
      'one: acme',
      'other: other',
      'try: acme',
      'with: acme',
    ])
  },
)
