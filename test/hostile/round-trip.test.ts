import { randomUUID } from 'node:crypto'
import { drizzle } from 'drizzle-orm/node-postgres'
import fc from 'fast-check'
import pg from 'pg'
import { describe, expect, onTestFinished, test } from 'vitest'
import { compilePatterns } from '../../src/events/pattern.ts'
import { createBus, type NewEvent, type Published, type StoredEvent } from '../../src/index.ts'
import { anyJson, keyText, uuid } from '../support/arbitrary.ts'
import { recordingLogger } from '../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { anyEvents, type AnyBus } from './calls.ts'

type AnyEvent = NewEvent<typeof anyEvents>

const optional = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined })

const anyEvent: fc.Arbitrary<AnyEvent> = fc.record({
  type: fc.constant('note'),
  payload: anyJson,
  tenantId: keyText,
  eventId: optional(keyText),
  idempotencyKey: optional(keyText),
  correlationId: optional(keyText),
  causationId: optional(uuid),
  orderingKey: optional(keyText),
  subject: optional(keyText),
  expiresAt: optional(
    fc.date({ min: new Date('2100-01-01'), max: new Date('9999-12-30'), noInvalidDate: true }),
  ),
  metadata: optional(
    fc.dictionary(fc.oneof(keyText, fc.constant('')), fc.oneof(keyText, fc.constant('')), { maxKeys: 5 }),
  ),
})

/** The same, with keys that no event had before: duplicates are the business of the test further down. */
function withOwnKeys(event: AnyEvent): AnyEvent {
  const own = (text: string | undefined): string | undefined =>
    text === undefined ? undefined : `${randomUUID()}${text}`.slice(0, 255).toWellFormed()
  return { ...event, eventId: own(event.eventId), idempotencyKey: own(event.idempotencyKey) }
}

/**
 * What JSON makes of a value: the only difference there may be is that a negative zero has no sign any more. Without
 * `JSON.parse`, which in Node 24 confuses keys (see src/events/json/parse-json.ts).
 */
function throughJson(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(throughJson)
  if (value === null || typeof value !== 'object') return value === 0 ? 0 : value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, throughJson(item)]))
}

function openBus({ url }: TestDatabase): { bus: AnyBus; delivered: Map<string, StoredEvent> } {
  const bus: AnyBus = createBus({
    database: url,
    events: anyEvents,
    source: 'tests',
    logger: recordingLogger(),
  })
  onTestFinished(async () => bus.stop({ graceMs: 1000 }))
  const delivered = new Map<string, StoredEvent>()
  bus.subscribe({ name: 'all', events: ['**'], handler: (event) => void delivered.set(event.id, event) })
  return { bus, delivered }
}

type PublishAll = (bus: AnyBus, events: readonly AnyEvent[]) => Promise<Published[]>

describe.each<[string, (database: TestDatabase) => PublishAll]>([
  [
    'publishMany on postgres.js',
    ({ db }) =>
      async (bus, events) =>
        db.transaction(async (tx) => bus.publishMany(tx, events)),
  ],
  [
    'publishMany on node-postgres',
    ({ url }) => {
      const pool = new pg.Pool({ connectionString: url, max: 2 })
      onTestFinished(async () => pool.end())
      const db = drizzle(pool)
      return async (bus, events) => db.transaction(async (tx) => bus.publishMany(tx, events))
    },
  ],
  [
    'publish on postgres.js, one by one',
    ({ db }) =>
      async (bus, events) =>
        db.transaction(async (tx) => {
          const published: Published[] = []
          for (const event of events) published.push(await bus.publish(tx, event))
          return published
        }),
  ],
  [
    'tryPublish',
    () => async (bus, events) => {
      const published = await Promise.all(events.map(async (event) => bus.tryPublish(event)))
      return published.filter((each) => each !== undefined)
    },
  ],
])('an event that is published by %s', (_how, open) => {
  test('is delivered exactly as it was published, whatever is in it', async () => {
    const database = await createTestDatabase()
    const { bus, delivered } = openBus(database)
    const publishAll = open(database)
    await bus.start()
    await fc.assert(
      fc.asyncProperty(fc.array(anyEvent, { minLength: 1, maxLength: 40 }), async (generated) => {
        const events = generated.map(withOwnKeys)
        const published = await publishAll(bus, events)
        await until('all were delivered', () => published.every(({ id }) => delivered.has(id)))
        const got = published.map(({ id }) => delivered.get(id))
        expect(got).toEqual(
          events.map((event, index) => ({
            ...event,
            id: published[index]?.id,
            source: 'tests',
            schemaVersion: 1,
            payload: throughJson(event.payload),
            metadata: event.metadata ?? {},
            createdAt: expect.any(Date) as Date,
          })),
        )
        // `toEqual` does not tell a key named __proto__ from none.
        const keys = (value: unknown): string => JSON.stringify(sorted(value))
        expect(got.map((event) => keys(event?.payload))).toEqual(events.map(({ payload }) => keys(payload)))
        expect(got.map((event) => keys(event?.metadata))).toEqual(
          events.map(({ metadata = {} }) => keys(metadata)),
        )
      }),
      { numRuns: 25, endOnFailure: true },
    )
  })
})

/** With the keys of each object in one order: jsonb keeps an order of its own. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted)
  if (value === null || typeof value !== 'object') return value
  return Object.entries(value)
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, item]) => [key, sorted(item)])
}

test('every finite number comes back from the database as it was, but for the sign of zero', async () => {
  const { rows } = await createTestDatabase()
  const edges = [
    0,
    Number.MIN_VALUE,
    Number.MAX_VALUE,
    Number.EPSILON,
    2 ** 53 - 1,
    2 ** 53,
    2 ** 63,
    2 ** 64,
    1e21,
    1e-7,
  ]
  const random = fc.sample(fc.double({ noNaN: true, noDefaultInfinity: true }), 20_000)
  const numbers = [...edges, ...edges.map((edge) => -edge), ...random, ...fc.sample(fc.integer(), 5000)]
  const [row] = await rows('select $1::jsonb::text as text', [JSON.stringify(numbers)])
  // Not `Object.is`: -0 is 0.
  const parsed = JSON.parse(row?.['text'] as string) as number[]
  expect(parsed.filter((number, index) => number !== numbers[index])).toEqual([])
})

test('patterns match as a plain reading of their rules does', () => {
  const segment = fc.constantFrom('a', 'b', 'A', 'a-b', '_', '0', '__proto__', 'constructor')
  const type = fc.array(segment, { minLength: 1, maxLength: 6 })
  const pattern = fc
    .tuple(fc.array(fc.oneof(segment, fc.constant('*')), { minLength: 0, maxLength: 5 }), fc.boolean())
    .map(([segments, isOpen]) => (isOpen ? [...segments, '**'] : segments))
    .filter((segments) => segments.length > 0)
  fc.assert(
    fc.property(
      fc.array(pattern, { minLength: 1, maxLength: 5 }),
      fc.array(type, { maxLength: 20 }),
      (patterns, types) => {
        const matches = compilePatterns(patterns.map((segments) => segments.join('.')))
        for (const segments of types)
          expect(matches(segments.join('.'))).toBe(patterns.some((one) => plainlyMatches(one, segments)))
      },
    ),
    { numRuns: 1000 },
  )
})

function plainlyMatches(
  [pattern, ...patterns]: readonly string[],
  [segment, ...segments]: readonly string[],
): boolean {
  if (pattern === '**') return segment !== undefined
  if (pattern === undefined || segment === undefined) return pattern === segment
  return (pattern === '*' || pattern === segment) && plainlyMatches(patterns, segments)
}

/** What a tenant's keys mean: the first event that was published with one. */
class KeyModel {
  readonly #firstByKey = new Map<string, string>()

  /** Which event a publish stands for: itself, or the first one with one of its keys. The business id counts first. */
  resolve(name: string, { tenantId, eventId, idempotencyKey }: KeyedEvent): string {
    const keys = [
      ...(eventId === undefined ? [] : [JSON.stringify([tenantId, 'event_id', eventId])]),
      ...(idempotencyKey === undefined
        ? []
        : [JSON.stringify([tenantId, 'idempotency_key', idempotencyKey])]),
    ]
    const first = keys.map((key) => this.#firstByKey.get(key)).find((known) => known !== undefined) ?? name
    for (const key of keys) if (!this.#firstByKey.has(key)) this.#firstByKey.set(key, first)
    return first
  }
}

interface KeyedEvent {
  readonly tenantId: string
  readonly eventId?: string | undefined
  readonly idempotencyKey?: string | undefined
}

test('a sequence of publishes is deduplicated as a plain model of keys says', async () => {
  const { url, db, rows } = await createTestDatabase()
  const bus: AnyBus = createBus({
    database: url,
    events: anyEvents,
    source: 'tests',
    logger: recordingLogger(),
  })
  onTestFinished(async () => bus.stop())
  const few = fc.constantFrom('k1', 'k2', 'k3', 'k\'"\\')
  const keyed: fc.Arbitrary<KeyedEvent> = fc.record({
    tenantId: fc.constantFrom('a', 'b'),
    eventId: optional(few),
    idempotencyKey: optional(few),
  })
  const call = fc.array(keyed, { minLength: 1, maxLength: 4 })
  await fc.assert(
    fc.asyncProperty(fc.array(call, { minLength: 1, maxLength: 6 }), async (sequence) => {
      // Tenants of its own, so that one run knows nothing of the others.
      const run = randomUUID()
      const model = new KeyModel()
      const idsByName = new Map<string, string>()
      for (const [callIndex, events] of sequence.entries()) {
        const published = await db.transaction(async (tx) =>
          bus.publishMany(
            tx,
            events.map((event) => ({
              ...event,
              tenantId: `${run} ${event.tenantId}`,
              type: 'note',
              payload: run,
            })),
          ),
        )
        for (const [index, { id, duplicate }] of published.entries()) {
          const name = `${callIndex}.${index}`
          const first = model.resolve(name, events[index] as KeyedEvent)
          expect([name, duplicate]).toEqual([name, first !== name])
          if (first === name) idsByName.set(name, id)
          expect([name, id]).toEqual([name, idsByName.get(first)])
        }
      }
      const stored = await rows('select id from bus.events where payload = to_jsonb($1::text) order by id', [
        run,
      ])
      expect(stored.map(({ id }) => id)).toEqual([...idsByName.values()].toSorted())
    }),
    { numRuns: 60, endOnFailure: true },
  )
})
