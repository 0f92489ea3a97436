import pg from 'pg'
import { describe, expect, onTestFinished, test } from 'vitest'
import { z } from 'zod'
import { createBus, defineEvents, type StoredEvent } from '../../src/index.ts'
import { transportContract, type ContractMessage } from '../../src/testing/index.ts'
import { contractEvent, manyEvents } from '../../src/testing/transport-contract-events.ts'
import { bossbus, type BossbusOptions } from '../../src/transports/adapters/bossbus.ts'
import { transportFromUrl, type Transport } from '../../src/transports/index.ts'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'

const signal = new AbortController().signal

async function newTarget() {
  const database = await createTestDatabase()
  const pool = new pg.Pool({ connectionString: database.url, max: 4 })
  pool.on('error', () => {})
  onTestFinished(async () => pool.end())
  return { ...database, transport: bossbus({ pool }) }
}

describe('the contract', () => {
  const targets = new Map<Transport, Awaited<ReturnType<typeof newTarget>>>()
  const cases = transportContract({
    create: async () => {
      const target = await newTarget()
      targets.set(target.transport, target)
      return target.transport
    },
    receive: async (transport) => {
      const rows = await targets
        .get(transport)
        ?.rows(`select metadata ->> 'ceid' as id, payload from bus.events order by id`)
      return (rows ?? []) as unknown as ContractMessage[]
    },
    createUnreachable: () => transportFromUrl('bossbus:postgres://nobody@127.0.0.1:1/none'),
  })
  test.each(cases)('$name', async ({ run }) => expect(run()).resolves.toBeUndefined())
})

test('a copy has everything but the id, and is published once', async () => {
  const { transport, rows } = await newTarget()
  const event = contractEvent({
    ...{ subject: 's', eventId: 'e', correlationId: 'c', orderingKey: 'o', schemaVersion: 3 },
    metadata: { traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' },
  })
  for (let n = 0; n < 3; n += 1)
    expect(await transport.publish([event], { signal })).toEqual([{ status: 'delivered' }])
  const copies = await rows('select * from bus.events')
  expect(copies).toHaveLength(1)
  expect(copies[0]).toMatchObject({
    ...{ type: event.type, source: 'contract', subject: 's', tenant_id: 'tenant-0', schema_version: 3 },
    ...{ event_id: 'e', correlation_id: 'c', ordering_key: 'o', idempotency_key: event.id },
    metadata: { ...event.metadata, ceid: event.id },
  })
  expect(copies[0]?.['id']).not.toBe(event.id)
})

test('an event that the other database refuses holds up no other, but those behind it in its key', async () => {
  const { transport, rows } = await newTarget()
  const events = manyEvents(6, (n) => ({
    orderingKey: `key-${n % 2}`,
    type: n === 2 ? 'x'.repeat(300) : 'note',
  }))
  const results = await transport.publish(events, { signal })
  expect(results.map(({ status }) => status)).toEqual([
    ...['delivered', 'delivered', 'rejected', 'delivered', 'retry', 'delivered'],
  ])
  const stored = (await rows('select payload from bus.events order by id')).map(({ payload }) => payload)
  expect(stored).toHaveLength(4)
  expect(stored).not.toContainEqual({ n: 4 })
})

test('what is published in one bus is handled in another, once, through failures of the other database', async () => {
  const from = await createTestDatabase()
  const to = await newTarget()
  const bus = testBus(from.url)
  let refusals = 3
  const flaky: Transport = {
    ...to.transport,
    async publish(events, call) {
      const results = await to.transport.publish(events, call)
      refusals -= 1
      // It is stored, and the acknowledgement is lost.
      return refusals >= 0
        ? results.map(() => ({ status: 'throttled', seconds: 0, error: new Error('lost') }))
        : results
    },
  }
  bus.forward({ name: 'to-other', events: ['note'], to: flaky })
  const seen: StoredEvent[] = []
  const other = createBus({
    database: to.url,
    events: defineEvents({ note: { schema: z.unknown() } }),
    source: 'other',
  })
  onTestFinished(async () => other.stop())
  other.subscribe({ name: 'seen', events: ['note'], handler: (event) => void seen.push(event) })
  await Promise.all([bus.start(), other.start()])
  const events = Array.from(
    { length: 60 },
    (_, n) => ({ type: 'note', tenantId: 'acme', payload: n, orderingKey: `key-${n % 5}` }) as const,
  )
  await from.db.transaction(async (tx) => bus.publishMany(tx, events))
  await until('all are handled', () => seen.length >= 60)
  const payloads = seen.map(({ payload }) => Number(payload))
  expect(payloads.toSorted((a, b) => a - b)).toEqual(events.map(({ payload }) => payload))
})

test('a circle of two buses ends', async () => {
  const [a, b] = [await newTarget(), await newTarget()]
  const [busA, busB] = [testBus(a.url), testBus(b.url)]
  busA.forward({ name: 'to-b', events: ['note'], to: b.transport })
  busB.forward({ name: 'to-a', events: ['note'], to: a.transport })
  await Promise.all([busA.start(), busB.start()])
  await a.db.transaction(async (tx) => busA.publish(tx, { type: 'note', tenantId: 'acme', payload: 1 }))
  await until('it came back, and its copy was sent again', async () => {
    const [there] = await a.rows('select count(*)::int as count from bus.deliveries')
    return there?.['count'] === 2
  })
  expect(await a.rows('select from bus.events')).toHaveLength(2)
  expect(await b.rows('select from bus.events')).toHaveLength(1)
})

test.each<[string, unknown]>([
  ['nothing', {}],
  ['a URL', { pool: 'postgres://x' }],
  ['an unknown option', { pool: { query: () => {} }, database: 'x' }],
  ['no time', { pool: { query: () => {} }, timeoutSeconds: 0 }],
])('%s is refused', (_, options) => {
  expect(() => bossbus(options as BossbusOptions)).toThrow(
    expect.objectContaining({ code: 'BUS_INVALID_OPTION' }),
  )
})

test.each(['bossbus:', 'bossbus:mysql://user:hunter2@host/db', 'bossbus://host/db'])(
  '%s is refused',
  (url) => {
    expect(() => transportFromUrl(url)).toThrow(
      expect.objectContaining({ code: 'BUS_INVALID_TRANSPORT_URL' }),
    )
    expect(() => transportFromUrl(url)).toThrow(/^(?!.*hunter2)/)
  },
)
