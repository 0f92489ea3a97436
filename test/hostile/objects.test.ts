import Fastify from 'fastify'
import { expect, onTestFinished, test } from 'vitest'
import { bus as busPlugin } from '../../src/fastify/index.ts'
import {
  createBus,
  defineEvents,
  type BusLogger,
  type EventCatalogue,
  type StoredEvent,
} from '../../src/index.ts'
import { refusalOf } from '../foundation/refusal.ts'
import { recordingLogger } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { anyEvents, type AnyBus } from './calls.ts'

function openBus(url: string, options: { logger?: BusLogger; events?: EventCatalogue } = {}): AnyBus {
  const bus = createBus({
    database: url,
    events: options.events ?? anyEvents,
    source: 'tests',
    logger: options.logger ?? recordingLogger(),
  })
  onTestFinished(async () => bus.stop({ graceMs: 1000 }))
  return bus
}

const note = (payload: unknown) => ({ type: 'note', tenantId: 'acme', payload })

/** An event whose fields are getters of its class, and a private one behind them. */
class Note {
  readonly #tenantId = 'acme'
  get type(): string {
    return 'note'
  }
  get tenantId(): string {
    return this.#tenantId
  }
  get payload(): string {
    return 'of a class'
  }
}

const throwing = () =>
  Object.defineProperty(note(1), 'tenantId', {
    enumerable: true,
    get: () => {
      throw new Error('secret')
    },
  })

test('an event may be an instance of a class wherever one is published', async () => {
  const { url, db, rows } = await createTestDatabase()
  const bus = openBus(url)
  bus.subscribe({
    name: 'publishes',
    events: ['note'],
    handler: async ({ payload }, ctx) => {
      if (payload === 'first') await ctx.publish(new Note())
    },
  })
  const app = Fastify({ genReqId: () => 'request' })
  onTestFinished(async () => app.close())
  await app.register(busPlugin, { bus } as never)
  app.get('/', async (request) => {
    const events = [new Note(), new Note()] as never
    await db.transaction(async (tx) => request.bus.publishMany(tx, events))
    return request.bus.tryPublish(new Note() as never)
  })
  await app.ready()
  expect((await app.inject('/')).statusCode).toBe(200)
  await db.transaction(async (tx) => bus.publish(tx, note('first')))
  const stored = async () =>
    rows(`select correlation_id = 'request' as of_request, causation_id is not null as caused from bus.events
          where payload = '"of a class"' order by id`)
  await until('the handler has published', async () => (await stored()).length === 4)
  expect(await stored()).toEqual([
    ...Array.from({ length: 3 }, () => ({ of_request: true, caused: false })),
    { of_request: false, caused: true },
  ])
})

test('an event that cannot be read, or has a field too much, is refused with a typed error wherever one is published', async () => {
  const { url, db } = await createTestDatabase()
  const bus = openBus(url)
  const codes: string[] = []
  bus.subscribe({
    name: 'publishes',
    events: ['note'],
    handler: async (_event, ctx) => {
      codes.push((await refusalOf(async () => ctx.publish(throwing()))).code)
      codes.push((await refusalOf(async () => ctx.publish({ ...note(1), extra: 1 } as never))).code)
      codes.push((await refusalOf(async () => ctx.publish(null as never))).code)
    },
  })
  const app = Fastify()
  onTestFinished(async () => app.close())
  await app.register(busPlugin, { bus } as never)
  const endless: unknown[] = []
  endless.length = 4_000_000_000
  const { proxy, revoke } = Proxy.revocable([], {})
  revoke()
  app.get('/', async (request) =>
    db.transaction(async (tx) => {
      for (const event of [throwing(), { ...note(1), extra: 1 }, null])
        codes.push((await refusalOf(async () => request.bus.publish(tx, event as never))).code)
      for (const events of [endless, proxy, [throwing()]])
        codes.push((await refusalOf(async () => request.bus.publishMany(tx, events as never))).code)
      return 'done'
    }),
  )
  await app.ready()
  expect((await app.inject('/')).statusCode).toBe(200)
  const invalid = 'BUS_INVALID_EVENT'
  expect(codes.splice(0)).toEqual([invalid, invalid, invalid, 'BUS_INVALID_BATCH', invalid, invalid])
  await db.transaction(async (tx) => bus.publish(tx, note(1)))
  await until('the handler has tried', () => codes.length === 3)
  expect(codes).toEqual([invalid, invalid, invalid])
})

test.each<[string, BusLogger['error']]>([
  [
    'throws',
    () => {
      throw new Error('no disk')
    },
  ],
  ['rejects', async () => Promise.reject(new Error('no disk'))],
])('a logger that %s disturbs nothing', async (_how, log) => {
  const { url, db } = await createTestDatabase()
  const bus = openBus(url, { logger: { debug: log, info: log, warn: log, error: log } })
  const seen: unknown[] = []
  bus.subscribe({
    name: 'fails',
    events: ['note'],
    retry: { maxAttempts: 1 },
    handler: ({ payload }, ctx) => {
      ctx.log.info({}, 'a line')
      if (payload === 'bad') throw new Error('bad')
      seen.push(payload)
    },
  })
  await bus.start()
  await db.transaction(async (tx) => bus.publishMany(tx, ['bad', 'good'].map(note)))
  expect(await bus.tryPublish({ ...note(1), type: 'nothing' })).toBeUndefined()
  await until(
    'both were handled',
    async () => seen.length === 1 && (await bus.deadLetters.list()).length === 1,
  )
  expect((await bus.health()).failedTryPublishCount).toBe(1)
})

test('whatever a handler returns is an outcome', async () => {
  const { url, db, count } = await createTestDatabase()
  const bus = openBus(url)
  const fail = (): never => {
    throw new Error('hostile')
  }
  /* oxlint-disable unicorn/no-thenable -- what is tried here */
  const results: Readonly<Record<string, () => unknown>> = {
    'a then that cannot be read': () => Object.defineProperty({}, 'then', { get: fail }),
    'a then that throws': () => ({ then: fail }),
    'a then that rejects': () => ({ then: (_: unknown, reject: (reason: unknown) => void) => reject('no') }),
    'a then that calls back twice': () => ({
      then: (resolve: () => void, reject: () => void) => {
        resolve()
        reject()
      },
    }),
    'a then that never calls back': () => ({ then: () => {} }),
    'a revoked proxy': () => {
      const { proxy, revoke } = Proxy.revocable({}, {})
      revoke()
      return proxy
    },
    'a symbol': () => Symbol('x'),
    'an object without a prototype': () => Object.create(null) as unknown,
  }
  /* oxlint-enable unicorn/no-thenable */
  const subscription = {
    events: ['note'],
    timeoutSeconds: 1,
    retry: { maxAttempts: 1 },
    circuitBreaker: false as const,
  }
  const handler = ({ payload }: StoredEvent): unknown => results[payload as string]?.()
  bus.subscribe({ ...subscription, name: 'plain', handler })
  bus.subscribe({ ...subscription, name: 'exactly', mode: 'exactly-once', handler })
  await bus.start()
  await db.transaction(async (tx) => bus.publishMany(tx, Object.keys(results).map(note)))
  const deadCounts = async (): Promise<number[]> => {
    const lists = ['plain', 'exactly'].map(async (name) => bus.deadLetters.list({ subscription: name }))
    return (await Promise.all(lists)).map(({ length }) => length)
  }
  const doneCount = async () => count('select count(*) from bus.deliveries')
  await until('each has an outcome', async () => {
    const [plain = 0, exactly = 0] = await deadCounts()
    return plain + exactly + (await doneCount()) === 2 * Object.keys(results).length
  })
  expect(await deadCounts()).toEqual([5, 5])
})

test('a catalogue that is changed after it was defined changes nothing', async () => {
  const sources = ['billing']
  const definition = {
    schema: (anyEvents['note'] as EventCatalogue[string]).schema,
    sources,
    version: 2,
    upcast: { 1: (old: unknown) => old },
  }
  const given: Record<string, typeof definition> = { note: definition }
  const events = defineEvents(given as EventCatalogue)
  sources.push('tests')
  definition.version = 7
  definition.upcast[1] = () => 'changed'
  given['other'] = definition
  for (const part of [events, events['note'], events['note']?.sources, events['note']?.upcast])
    expect(Object.isFrozen(part)).toBe(true)
  expect(events).toMatchObject({ note: { sources: ['billing'], version: 2 } })
  expect(Object.keys(events)).toEqual(['note'])
  expect(events['note']?.upcast?.[1]?.('old' as never)).toBe('old')
  const { url, db } = await createTestDatabase()
  const bus = openBus(url, { events })
  await db.transaction(async (tx) => {
    expect(await refusalOf(async () => bus.publish(tx, note(1)))).toMatchObject({
      code: 'BUS_SOURCE_NOT_ALLOWED',
    })
  })
})

test('types named like the members of objects are types like any other', async () => {
  const names = ['__proto__', 'constructor', 'toString', 'hasOwnProperty', 'valueOf', 'then']
  const schema = (anyEvents['note'] as EventCatalogue[string]).schema
  const events = defineEvents(Object.fromEntries(names.map((name) => [name, { schema }])))
  const { url, db } = await createTestDatabase()
  const bus = openBus(url, { events })
  const seen: string[] = []
  bus.subscribe({ name: 'seen', events: names, handler: ({ type }) => void seen.push(type) })
  await bus.start()
  await db.transaction(async (tx) =>
    bus.publishMany(
      tx,
      names.map((type) => ({ type, tenantId: '__proto__', payload: { [type]: 1 } })),
    ),
  )
  await until('all were delivered', () => seen.length === names.length)
  expect(seen.toSorted()).toEqual(names.toSorted())
  const other = openBus(url)
  await db.transaction(async (tx) => {
    for (const type of names)
      expect(await refusalOf(async () => other.publish(tx, { ...note(1), type }))).toMatchObject({
        code: 'BUS_UNKNOWN_EVENT_TYPE',
      })
  })
})
