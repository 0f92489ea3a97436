import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { defineEvents, defineSubscription } from '../../src/index.ts'
import { createFakePublisher, runHandler } from '../../src/testing/index.ts'

const events = defineEvents({
  'payment.paid': {
    schema: z.object({ paymentId: z.string(), cents: z.number().default(0) }),
    sources: ['payments'],
  },
  'case.opened': { schema: z.object({ paymentId: z.string() }), version: 2 },
  'usage.billed': { schema: z.unknown(), sources: ['billing'] },
})

const openCase = defineSubscription(events, {
  name: 'open-case',
  events: ['payment.paid'],
  handler: async ({ payload, tenantId }, ctx) => {
    if (payload.paymentId === 'bad') throw new Error('no such payment')
    await ctx.publish({ type: 'case.opened', payload: { paymentId: payload.paymentId } })
    await ctx.publish({
      type: 'case.opened',
      tenantId: 'other',
      payload: { paymentId: `${tenantId} ${payload.cents}` },
    })
    await ctx.cancel('01932f2c-5b4e-7cc0-8a2d-3f1e5d7c9b10')
    return ctx.attempt
  },
})

const paid = (paymentId: string) => ({ type: 'payment.paid', payload: { paymentId } }) as const

describe('runHandler', () => {
  test('calls a handler with the event as it would be stored, and keeps what it publishes and cancels', async () => {
    const { event, published, cancelled, returned } = await runHandler(events, openCase, paid('42'), {
      attempt: 3,
    })
    expect(event).toMatchObject({
      type: 'payment.paid',
      tenantId: 'test',
      payload: { paymentId: '42', cents: 0 },
    })
    expect(event.id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7/)
    expect(published).toMatchObject([
      {
        ...{ type: 'case.opened', tenantId: 'test', payload: { paymentId: '42' }, schemaVersion: 2 },
        ...{ causationId: event.id, correlationId: event.id },
      },
      { tenantId: 'other', payload: { paymentId: 'test 0' }, causationId: event.id },
    ])
    expect(cancelled).toEqual(['01932f2c-5b4e-7cc0-8a2d-3f1e5d7c9b10'])
    expect(returned).toBe(3)
  })

  test('rejects with what the handler throws', async () => {
    await expect(runHandler(events, openCase, paid('bad'))).rejects.toThrow('no such payment')
  })

  test('refuses an event that does not fit its schema, or that the subscription does not get', async () => {
    const wrong = { type: 'payment.paid', payload: { paymentId: 42 } } as never
    await expect(runHandler(events, openCase, wrong)).rejects.toMatchObject({ code: 'BUS_INVALID_EVENT' })
    const other = { type: 'case.opened', payload: { paymentId: '1' } } as never
    await expect(runHandler(events, openCase, other)).rejects.toThrow(
      /handles, got one of type "case.opened"/,
    )
  })

  test('refuses what the handler publishes and may not', async () => {
    const bill = defineSubscription(events, {
      name: 'bill',
      events: ['payment.paid'],
      handler: async (_event, ctx) => {
        await ctx.publish({ type: 'usage.billed', payload: 1 })
      },
    })
    await expect(runHandler(events, bill, paid('1'))).rejects.toMatchObject({
      code: 'BUS_SOURCE_NOT_ALLOWED',
    })
    const { published } = await runHandler(events, bill, paid('1'), { source: 'billing' })
    expect(published).toHaveLength(1)
  })

  test('gives an exactly-once handler the transaction of the test, and asks for it', async () => {
    const written: unknown[] = []
    const ledger = defineSubscription(events, {
      name: 'ledger',
      events: ['payment.paid'],
      mode: 'exactly-once',
      handler: async ({ payload }, { tx, publish }) => {
        await tx.execute(`insert ${payload.paymentId}`)
        await publish({ type: 'case.opened', payload })
      },
    })
    const tx = { execute: async (query: unknown) => written.push(query) } as never
    const { published } = await runHandler(events, ledger, paid('42'), { tx })
    expect(written).toEqual(['insert 42'])
    expect(published).toHaveLength(1)
    await expect(runHandler(events, ledger, paid('42'), {} as never)).rejects.toMatchObject({
      code: 'BUS_INVALID_OPTION',
      option: 'tx',
    })
  })
})

describe('a fake publisher', () => {
  test('checks what it is given as a bus does, and keeps it', async () => {
    const publisher = createFakePublisher(events, { source: 'payments' })
    const event = { ...paid('1'), tenantId: 'acme', eventId: 'e1' }
    const first = await publisher.publish({} as never, event)
    expect(await publisher.publish({} as never, event)).toEqual({ id: first.id, duplicate: true })
    expect(await publisher.publish({} as never, { ...event, tenantId: 'other' })).toMatchObject({
      duplicate: false,
    })
    expect(publisher.published).toMatchObject([
      { id: first.id, type: 'payment.paid', tenantId: 'acme', source: 'payments', payload: { cents: 0 } },
      { tenantId: 'other' },
    ])
    const wrong = { ...event, payload: {} } as never
    await expect(publisher.publish({} as never, wrong)).rejects.toMatchObject({ code: 'BUS_INVALID_EVENT' })
    await expect(publisher.publishMany({} as never, [])).rejects.toMatchObject({ code: 'BUS_INVALID_BATCH' })
    expect(await publisher.tryPublish(wrong)).toBeUndefined()
    expect(publisher.published).toHaveLength(2)
  })

  test('has defaults, and is narrowed, as a bus', async () => {
    const publisher = createFakePublisher(events, { defaults: { tenantId: 'acme' } })
    await publisher.with({ subject: 's' }).tryPublish({ type: 'case.opened', payload: { paymentId: '1' } })
    expect(publisher.published).toMatchObject([{ tenantId: 'acme', subject: 's' }])
    expect(() => createFakePublisher(events, { sauce: 'a' } as never)).toThrow(/Did you mean `source`/)
  })
})
