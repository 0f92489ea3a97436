// oxlint-disable vitest/expect-expect -- a line that must not compile is an assertion too
import type { PostgresJsDatabase } from 'drizzle-orm/postgres-js'
import type { NodePgDatabase } from 'drizzle-orm/node-postgres'
import type pg from 'pg'
import { describe, expectTypeOf, test } from 'vitest'
import { z } from 'zod'
import {
  createBus,
  defineEvents,
  fromPg,
  type DrizzleTransaction,
  type EventFields,
  type EventType,
  type NewEvent,
  type PayloadInput,
  type PayloadOutput,
  type Published,
} from '../../src/index.ts'
import { bus, events, type Events } from './support.ts'

declare const tx: DrizzleTransaction

describe('a catalogue', () => {
  test('knows its names', () => {
    expectTypeOf<EventType<Events>>().toEqualTypeOf<
      'payment.paid' | 'payment.refunded' | 'payment.dispute.opened' | 'order.placed' | 'note'
    >()
  })

  test('knows what each schema takes and what it gives', () => {
    expectTypeOf<PayloadInput<Events, 'payment.paid'>>().toEqualTypeOf<{
      cents: string
      currency?: string | undefined
    }>()
    expectTypeOf<PayloadOutput<Events, 'payment.paid'>>().toEqualTypeOf<{ cents: number; currency: string }>()
    expectTypeOf<PayloadInput<Events, 'payment.dispute.opened'>>().toEqualTypeOf<{ at: string }>()
    expectTypeOf<PayloadOutput<Events, 'payment.dispute.opened'>>().toEqualTypeOf<{ at: number }>()
    expectTypeOf<PayloadInput<Events, 'order.placed'>>().toEqualTypeOf<{ total: string }>()
    expectTypeOf<PayloadOutput<Events, 'order.placed'>>().toEqualTypeOf<{ total: number }>()
    expectTypeOf<PayloadInput<Events, 'note'>>().toBeUnknown()
  })

  test('takes no definition without a schema, with an unknown source type or a version that is no number', () => {
    const schema = z.string()
    // @ts-expect-error -- no schema
    defineEvents({ note: {} })
    // @ts-expect-error -- a JSON schema is no Standard Schema
    defineEvents({ note: { schema: { type: 'string' } } })
    // @ts-expect-error -- sources are names
    defineEvents({ note: { schema, sources: [5] } })
    // @ts-expect-error -- sources are a list
    defineEvents({ note: { schema, sources: 'billing' } })
    // @ts-expect-error -- a version is a number
    defineEvents({ note: { schema, version: '2' } })
    // @ts-expect-error -- a step is a function
    defineEvents({ note: { schema, version: 2, upcast: { 1: 'rename' } } })
    defineEvents({ note: { schema, sources: undefined, version: undefined, upcast: undefined } })
  })
})

describe('publish', () => {
  test('takes what the schema takes and gives the id', () => {
    expectTypeOf(
      bus.publish(tx, { type: 'payment.paid', tenantId: 'acme', payload: { cents: '5' } }),
    ).resolves.toEqualTypeOf<Published>()
    expectTypeOf(
      bus.publishMany(tx, [
        { type: 'payment.paid', tenantId: 'acme', payload: { cents: '5', currency: 'USD' } },
        { type: 'note', tenantId: 'acme', payload: null },
      ]),
    ).resolves.toEqualTypeOf<Published[]>()
    expectTypeOf(
      bus.tryPublish({ type: 'order.placed', tenantId: 'acme', payload: { total: '5' } }),
    ).resolves.toEqualTypeOf<Published | undefined>()
  })

  test('does not take an unknown name', () => {
    // @ts-expect-error -- misspelt
    void bus.publish(tx, { type: 'payment.payed', tenantId: 'acme', payload: { cents: '5' } })
    // @ts-expect-error -- misspelt
    void bus.publishMany(tx, [{ type: 'payment.payed', tenantId: 'acme', payload: { cents: '5' } }])
    // @ts-expect-error -- misspelt
    void bus.tryPublish({ type: 'payment.payed', tenantId: 'acme', payload: { cents: '5' } })
    // @ts-expect-error -- a pattern is no name
    void bus.tryPublish({ type: 'payment.*', tenantId: 'acme', payload: { cents: '5' } })
    // @ts-expect-error -- any text may be misspelt
    void bus.tryPublish({ type: 'note' as string, tenantId: 'acme', payload: null })
  })

  test('does not take the payload of another type, or the output of the schema', () => {
    // @ts-expect-error -- cents is given as text
    void bus.publish(tx, { type: 'payment.paid', tenantId: 'acme', payload: { cents: 5 } })
    // @ts-expect-error -- the payload of payment.refunded
    void bus.publish(tx, { type: 'payment.paid', tenantId: 'acme', payload: { id: 'p1' } })
    void bus.publishMany(tx, [
      { type: 'note', tenantId: 'acme', payload: 1 },
      // @ts-expect-error -- total is given as text
      { type: 'order.placed', tenantId: 'acme', payload: { total: 5 } },
    ])
    // @ts-expect-error -- at is given as text
    void bus.tryPublish({ type: 'payment.dispute.opened', tenantId: 'acme', payload: { at: 5 } })
    // @ts-expect-error -- nothing is missing but the payload
    void bus.tryPublish({ type: 'payment.refunded', tenantId: 'acme' })
  })

  test('does not take an event without a tenant, or with an unknown field', () => {
    // @ts-expect-error -- whose event is it?
    void bus.publish(tx, { type: 'note', payload: null })
    // @ts-expect-error -- the source is the bus's own
    void bus.publish(tx, { type: 'note', tenantId: 'acme', payload: null, source: 'billing' })
    // @ts-expect-error -- a time is a Date
    void bus.publish(tx, { type: 'note', tenantId: 'acme', payload: null, availableAt: '2026-11-23' })
    // @ts-expect-error -- metadata holds texts
    void bus.publish(tx, { type: 'note', tenantId: 'acme', payload: null, metadata: { attempt: 1 } })
  })

  test('takes explicit undefined for every optional field', () => {
    const optional = {
      eventId: undefined,
      idempotencyKey: undefined,
      correlationId: undefined,
      causationId: undefined,
      orderingKey: undefined,
      subject: undefined,
      availableAt: undefined,
      metadata: undefined,
    }
    expectTypeOf(optional).toExtend<Omit<EventFields, 'tenantId'>>()
    void bus.publish(tx, { type: 'note', tenantId: 'acme', payload: null, ...optional })
  })

  test('takes an event that was built apart', () => {
    const event: NewEvent<Events> =
      Math.random() > 0.5
        ? { type: 'note', tenantId: 'acme', payload: [1] }
        : { type: 'payment.refunded', tenantId: 'acme', payload: { id: 'p1' } }
    void bus.publish(tx, event)
    void bus.publishMany(tx, Object.freeze([event]))
  })

  test('does not work without a transaction', () => {
    // @ts-expect-error -- the transaction comes first
    void bus.publish({ type: 'note', tenantId: 'acme', payload: null })
    // @ts-expect-error -- not a transaction
    void bus.publish({}, { type: 'note', tenantId: 'acme', payload: null })
    // @ts-expect-error -- tryPublish has its own
    void bus.tryPublish(tx, { type: 'note', tenantId: 'acme', payload: null })
  })
})

describe('a transaction', () => {
  type TransactionOf<D extends { transaction: (...args: never[]) => unknown }> = D extends {
    transaction: (work: (tx: infer T) => Promise<unknown>, ...rest: never[]) => unknown
  }
    ? T
    : never

  test('is one of Drizzle on postgres.js or on node-postgres', () => {
    expectTypeOf<TransactionOf<PostgresJsDatabase>>().toExtend<DrizzleTransaction>()
    expectTypeOf<TransactionOf<NodePgDatabase>>().toExtend<DrizzleTransaction>()
    expectTypeOf<TransactionOf<PostgresJsDatabase>>().not.toBeAny()
    expectTypeOf<TransactionOf<NodePgDatabase>>().not.toBeNever()
  })

  test('is taken where it is used', () => {
    const use = async (postgresJs: PostgresJsDatabase, nodePg: NodePgDatabase): Promise<void> => {
      await postgresJs.transaction(async (tx) => {
        await bus.publish(tx, { type: 'note', tenantId: 'acme', payload: null })
        await tx.transaction(async (savepoint) =>
          bus.publish(savepoint, { type: 'note', tenantId: 'acme', payload: null }),
        )
      })
      await nodePg.transaction(async (tx) =>
        bus.publishMany(tx, [{ type: 'note', tenantId: 'acme', payload: null }]),
      )
    }
    expectTypeOf(use).toBeFunction()
  })

  test('of another library is adapted first', () => {
    const use = async (client: pg.PoolClient): Promise<void> => {
      // @ts-expect-error -- a client is no transaction: which one would it be?
      await bus.publish(client, { type: 'note', tenantId: 'acme', payload: null })
      await bus.publish(fromPg(client), { type: 'note', tenantId: 'acme', payload: null })
      await bus.cancel(fromPg(client), 'id')
    }
    expectTypeOf(use).toBeFunction()
  })
})

describe('createBus', () => {
  test('infers the catalogue and takes explicit undefined for every optional option', () => {
    const made = createBus({
      database: 'postgres://localhost',
      events,
      source: 'payment-service',
      logger: undefined,
      maxPayloadBytes: undefined,
    })
    expectTypeOf(made).toEqualTypeOf(bus)
    expectTypeOf(made.stop).toBeCallableWith({ graceMs: undefined })
    expectTypeOf(made.stop).toBeCallableWith()
  })

  test('takes a console-like or pino-like logger and a pool configuration', () => {
    const log = (_fields: object, _message?: string): void => {}
    createBus({
      database: { host: 'localhost', max: 3 },
      events,
      source: 'a',
      logger: { debug: log, info: log, warn: log, error: log },
    })
  })

  test('does not take an unknown option, or leave a needed one out', () => {
    // @ts-expect-error -- misspelt
    createBus({ database: 'postgres://localhost', events, source: 'a', maxPayloadSize: 5 })
    // @ts-expect-error -- no source
    createBus({ database: 'postgres://localhost', events })
    // @ts-expect-error -- a logger has four methods
    createBus({ database: 'postgres://localhost', events, source: 'a', logger: { error: () => {} } })
  })
})
