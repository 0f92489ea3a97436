import { expect, onTestFinished, test } from 'vitest'
import { z } from 'zod'
import { createBus, defineEvents, type Bus, type EventCatalogue } from '../../../src/index.ts'
import { recordingLogger } from '../../support/bus.ts'
import { canary, traceOfCanary } from '../../support/canary.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'

function open<const C extends EventCatalogue>(url: string, events: C, logger = recordingLogger()): Bus<C> {
  const bus = createBus({ database: url, events, source: 'tests', logger })
  onTestFinished(async () => bus.stop({ graceMs: 1000 }))
  return bus
}

/** Stores events as a service of that version would have. */
async function store({ rows }: TestDatabase, version: number, ...payloads: unknown[]): Promise<void> {
  await rows(
    `insert into bus.events (tenant_id, type, source, schema_version, payload)
     select 'acme', 'note', 'sql', $1, value from jsonb_array_elements($2::jsonb) with ordinality order by ordinality`,
    [version, JSON.stringify(payloads)],
  )
}

const events = defineEvents({
  note: {
    schema: z.object({ list: z.array(z.number()) }),
    version: 12,
    upcast: Object.fromEntries(
      Array.from({ length: 11 }, (_, i) => [
        i + 1,
        (payload: { list: number[] }) => {
          // Changes what it was given, as people do.
          payload.list.push(i + 1)
          return payload
        },
      ]),
    ),
  },
})

test.each(['at-least-once', 'exactly-once', 'ordered'] as const)(
  'events of every version reach each subscription in the newest shape, each with a payload of its own: %s',
  async (mode) => {
    const database = await createTestDatabase()
    const bus = open(database.url, events)
    const seen: Record<string, unknown[]> = { one: [], two: [] }
    for (const name of ['one', 'two']) {
      const handler = ({
        payload,
        schemaVersion,
      }: {
        payload: { list: number[] }
        schemaVersion: number
      }) => {
        seen[name]?.push([schemaVersion, ...payload.list])
        payload.list.length = 0
        if (seen[name]?.length === 1) throw new Error('once more')
      }
      const retry = { maxAttempts: 2, delaySeconds: 0, backoff: false }
      if (mode === 'ordered') bus.subscribe({ name, events: ['note'], retry, ordered: true, handler })
      else bus.subscribe({ name, events: ['note'], retry, mode, handler })
    }
    await bus.start()
    await store(database, 1, { list: [] })
    const first = [12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    await until('the first one is delivered at the second attempt', () =>
      Object.values(seen).every((list) => list.length === 2),
    )
    await store(database, 11, { list: [100] })
    await store(database, 12, { list: [200] })
    await until('all are delivered', () => Object.values(seen).every((list) => list.length === 4))
    const expected = [first, first, [12, 100, 11], [12, 200]]
    for (const list of Object.values(seen)) {
      expect(list.slice(0, 2)).toEqual(expected.slice(0, 2))
      expect(new Set(list.map(String))).toEqual(new Set(expected.map(String)))
    }
  },
)

test.each(['at-least-once', 'exactly-once', 'ordered'] as const)(
  'an upcast that throws fails the attempt, ends in the dead letters, and shows nothing of the payload: %s',
  async (mode) => {
    const database = await createTestDatabase()
    const logger = recordingLogger()
    let broken = true
    const catalogue = defineEvents({
      note: {
        schema: z.unknown(),
        version: 2,
        upcast: {
          1: (payload: unknown) => {
            if (broken) throw new SyntaxError(`cannot read ${JSON.stringify(payload)}`, { cause: payload })
            return { read: payload }
          },
        },
      },
    })
    const bus = open(database.url, catalogue, logger)
    const seen: unknown[] = []
    const options = {
      name: 'seen',
      events: ['note'],
      retry: { maxAttempts: 2, delaySeconds: 0, backoff: false },
      handler: ({ payload }: { payload: unknown }) => void seen.push(payload),
    } as const
    if (mode === 'ordered') bus.subscribe({ ...options, ordered: true, onKeyFailure: 'skip' })
    else bus.subscribe({ ...options, mode })
    await bus.start()
    await store(database, 1, { secret: canary }, { secret: canary })
    await until('both are dead', async () => (await bus.deadLetters.list()).length === 2)
    const [letter] = await bus.deadLetters.list()
    expect(letter?.failures).toHaveLength(2)
    for (const failure of letter?.failures ?? []) {
      expect(failure).toMatchObject({
        name: 'DeliveryError',
        code: 'BUS_UPCAST_FAILED',
        message: 'The upcast of `note` from version 1 to 2 threw SyntaxError',
        stack: expect.stringMatching(/versions\.test\.ts/) as string,
      })
    }
    expect(JSON.stringify([logger.lines, await database.rows('select * from pgboss.job')])).not.toMatch(
      traceOfCanary,
    )
    expect(seen).toEqual([])
    // Corrected, the next ones pass.
    broken = false
    await store(database, 1, 'x')
    await until('it is delivered', () => seen.length === 1)
    expect(seen).toEqual([{ read: 'x' }])
  },
)

test('an event of a newer version is left for a process that knows it, or tried again later', async () => {
  const database = await createTestDatabase()
  const catalogueOf = (version: number) => defineEvents({ note: { schema: z.unknown(), version } })
  const old = open(database.url, catalogueOf(1))
  const seen: unknown[] = []
  const subscription = (by: string) =>
    ({
      name: 'seen',
      events: ['note'],
      retry: { delaySeconds: 0, backoff: false },
      handler: ({ payload }: { payload: unknown }) => void seen.push([by, payload]),
    }) as const
  old.subscribe(subscription('old'))
  await old.start()
  await store(database, 2, 'newer', 'newer too')
  await store(database, 1, 'known')
  await until('the known one is delivered', () => seen.length === 1)
  const waiting = async () =>
    database.rows(
      `select data->'attempts' as attempts, retry_count, extract(epoch from start_after - now())::int as seconds
       from pgboss.job where name = 'bus.seen' and state < 'active' and start_after > now() + interval '30 seconds'`,
    )
  await until('the newer ones wait', async () => (await waiting()).length === 2)
  await old.stop()
  await database.rows(`update pgboss.job set start_after = now() where state < 'active'`)
  const updated = open(database.url, catalogueOf(2))
  updated.subscribe(subscription('updated'))
  await updated.start()
  await until('the newer ones are delivered', () => seen.length === 3)
  expect(seen[0]).toEqual(['old', 'known'])
  expect(new Set(seen.slice(1).map(String))).toEqual(new Set(['updated,newer', 'updated,newer too']))
})

test('a type that only a pattern matches, and the catalogue does not know, is given as it was stored', async () => {
  const database = await createTestDatabase()
  const bus = open(database.url, defineEvents({ other: { schema: z.unknown() } }))
  const seen: unknown[] = []
  bus.subscribe({
    name: 'seen',
    events: ['**'],
    handler: ({ type, schemaVersion, payload }) => void seen.push([type, schemaVersion, payload]),
  })
  await bus.start()
  await store(database, 7, 'as it is')
  await until('it is delivered', () => seen.length === 1)
  expect(seen).toEqual([['note', 7, 'as it is']])
})
