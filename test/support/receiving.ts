import { expect } from 'vitest'
import type { StoredEvent } from '../../src/index.ts'
import { contractEvent } from '../../src/testing/transport-contract-events.ts'
import type { ReceivedMessage, Source } from '../../src/transports/index.ts'
import { testBus, type PaymentBus } from './bus.ts'
import { createTestDatabase, until, type TestDatabase } from './database.ts'

/** A bus that receives. */
export interface Receiving {
  readonly database: TestDatabase
  readonly bus: PaymentBus
  readonly eventCount: () => Promise<number>
}

/** A bus that makes a note of each CloudEvent of a source: its payload is the data. */
export async function receivingFrom(source: Source, database?: TestDatabase): Promise<Receiving> {
  const used = database ?? (await createTestDatabase())
  const bus = testBus(used.url)
  bus.receive({
    ...{ name: 'in', from: source },
    map: (message: ReceivedMessage) => ({
      ...{ type: 'note', tenantId: 'acme' },
      payload: dataOf(JSON.parse(Buffer.from(message.body).toString())),
    }),
  })
  await bus.start()
  return { database: used, bus, eventCount: async () => used.count('select count(*) from bus.events') }
}

/** Events whose payloads are numbers, to be sent to a source. */
export const numbered = (count: number, from = 0): StoredEvent[] =>
  Array.from({ length: count }, (_, n) => contractEvent({ payload: from + n }))

/** Each number is there once. */
export async function expectNumbers({ database }: Receiving, count: number): Promise<void> {
  const rows = await database.rows("select (payload #>> '{}')::int as n from bus.events order by 1")
  expect(rows.map(({ n }) => n)).toEqual(Array.from({ length: count }, (_, n) => n))
}

/** Lets nothing be stored, until it is released. */
export async function holdDatabase({ database }: Receiving): Promise<() => Promise<void>> {
  const { promise, resolve } = Promise.withResolvers<void>()
  const held = Promise.withResolvers<void>()
  const holding = database.sql.begin(async (sql) => {
    await sql`lock table bus.events in exclusive mode`
    held.resolve()
    await promise
  })
  await held.promise
  return async () => {
    resolve()
    await holding
  }
}

/** Waits until so many events are there. */
export async function untilReceived(receiving: Receiving, count: number): Promise<void> {
  await until(`${count} events are there`, async () => (await receiving.eventCount()) >= count)
}

/** The data of a CloudEvent, or the whole body in the binary mode. */
function dataOf(body: unknown): unknown {
  return body !== null && typeof body === 'object' && 'data' in body ? body.data : body
}
