import { readdir, readFile } from 'node:fs/promises'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { drizzle } from 'drizzle-orm/node-postgres'
import Fastify from 'fastify'
import pg from 'pg'
import { expect, onTestFinished, test, vi } from 'vitest'
import { compilePatterns } from '../../src/events/pattern.ts'
import { stderrLogger } from '../../src/foundation/logger.ts'
import { bus as busPlugin } from '../../src/fastify/index.ts'
import * as bossbus from '../../src/index.ts'
import { BusError, createBus, NonRetryableError, type StoredEvent } from '../../src/index.ts'
import { cpuMsOf } from '../foundation/cpu-time.ts'
import { recordingLogger } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { isFullForm } from '../support/form.ts'
import { randomOfTest } from '../support/random.ts'
import { roomFor } from '../support/slowness.ts'
import { anyEvents, failing, named, pausable, type AnyBus, type Entry, type Surroundings } from './calls.ts'
import { operatingMethods } from './operating-parameters.ts'
import { functions, methods, nested, optionsOf, subpaths } from './parameters.ts'
import { transportFunctions } from './transport-parameters.ts'
import { enormousStrings, enormousTypes, hostileStrings } from './strings.ts'

/** What would be seen of a polluted prototype. */
function prototypes(): string {
  return JSON.stringify(
    [Object.prototype, Array.prototype, Function.prototype, String.prototype, Error.prototype].map(
      (prototype) => Reflect.ownKeys(prototype).map(String),
    ),
  )
}

/** Codes that mean that PostgreSQL, not the bus, was the one to refuse. */
const refusedTooLate = ['BUS_DATABASE_ERROR', 'BUS_DATABASE_UNAVAILABLE', 'BUS_SCHEMA_MISSING']

/** @param letterCount - how many dead letters there are */
async function withSurroundings(
  letterCount: number,
  work: (surroundings: Surroundings) => Promise<void>,
): Promise<void> {
  const { url, db, rows } = await createTestDatabase()
  const openBus = (): AnyBus =>
    createBus({ database: url, events: anyEvents, source: 'tests', logger: recordingLogger() })
  const letters = await makeDeadLetters(openBus(), db, letterCount)
  // It has no queue, so no bus may run any more.
  await rows(
    `insert into bus.subscriptions (name, service, patterns, options) values ($1, 'tests', '{note}', '{}')`,
    [pausable],
  )
  const bus = openBus()
  const pool = new pg.Pool({ connectionString: url, max: 1 })
  onTestFinished(async () => {
    await bus.stop()
    await pool.end()
  })
  await drizzle(pool).transaction(async (tx) => work({ bus, rows, letters, tx }))
}

/** Runs a bus until so many events are dead letters of the subscription `failing`. Gives their ids. */
async function makeDeadLetters(
  bus: AnyBus,
  db: Awaited<ReturnType<typeof createTestDatabase>>['db'],
  count: number,
): Promise<string[]> {
  bus.subscribe({
    name: failing,
    events: ['note'],
    retry: { maxAttempts: 1 },
    circuitBreaker: false,
    concurrency: 100,
    handler: () => {
      throw new Error('as it was told')
    },
  })
  await bus.start()
  const published = await db.transaction(async (tx) =>
    bus.publishMany(
      tx,
      Array.from({ length: count }, () => ({ type: 'note', tenantId: 'letters', payload: 'x' })),
    ),
  )
  const ids = published.map(({ id }) => id)
  await until('all are dead letters', async () => {
    const [group] = await bus.deadLetters.groups()
    return (group?.count ?? 0) >= count
  })
  await bus.stop()
  return ids
}

/** Makes a call; gives what is wrong with how it ended, or undefined. */
async function faultOf(
  call: (text: string, surroundings: Surroundings) => unknown,
  text: string,
  surroundings: Surroundings,
): Promise<string | undefined> {
  try {
    await call(text, surroundings)
    return undefined
  } catch (error) {
    if (!(error instanceof BusError)) return `an untyped error: ${String(error)}`
    if (refusedTooLate.includes(error.code)) return `${error.code}: ${error.message.slice(0, 200)}`
    if (error.message.length > 1000) return `a message of ${error.message.length} characters`
    if (/[\p{Cc}\p{Zl}\p{Zp}\u202e\u2066-\u2069]/u.test(error.message))
      return `a message with control characters: ${JSON.stringify(error.message)}`
    return undefined
  }
}

const entries = { ...functions, ...transportFunctions, ...methods }

const calls = Object.entries(entries).flatMap(([path, entry]) =>
  Object.entries(entry.texts).map(([parameter, call]) => ({ path, parameter, call })),
)

/** Methods that read and steer: there are many, and each call of most of them takes some milliseconds. */
const isOperating = (path: string): boolean =>
  Object.hasOwn(operatingMethods, path) || /^bus\.(?:tenant\(\)|events)\./.test(path)

/** Makes the calls, each with its texts. Gives what is wrong. */
async function tryAll(
  textsOf: (call: (typeof calls)[number], index: number) => readonly string[],
): Promise<string[]> {
  const faults: string[] = []
  const tried = calls.map((each, index) => ({ ...each, texts: textsOf(each, index) }))
  const ofLetters = tried.filter(({ path }) => path === 'bus.deadLetters.redriveEdited')
  const letterCount = ofLetters.reduce((sum, { texts }) => sum + texts.length, 1)
  await withSurroundings(letterCount, async (surroundings) => {
    const tryEach = async ({ path, parameter, call, texts }: (typeof tried)[number]): Promise<void> => {
      for (const text of texts) {
        const fault = await faultOf(call, text, surroundings)
        if (fault !== undefined)
          faults.push(`${path} ${parameter} ${JSON.stringify(text.slice(0, 60))}: ${fault}`)
        // Calls that end at once would not let those that connect go on, until these give up.
        await nextTurn()
      }
    }
    // Those in the transaction one after the other, as its connection has them, and those that wait for each other's locks; the others beside
    // each other.
    const isInTurn = ({ path, parameter }: (typeof tried)[number]) =>
      /^bus\.(?:publish|prune|erase$|subscriptions\.re)/.test(path) || parameter.includes('in a transaction')
    for (const each of tried.filter(isInTurn)) await tryEach(each)
    await Promise.all(tried.filter((each) => !isInTurn(each)).map(tryEach))
  })
  return faults
}

const isFunction = (path: string): boolean =>
  Object.hasOwn(functions, path) || Object.hasOwn(transportFunctions, path)

/** What tryPublish and publishByHand take is what publish takes, and each call has a connection of its own. */
const fewTexts = hostileStrings.slice(0, 60)

/** What PostgreSQL cannot store, and what is as long as something may be. */
const isExtreme = (text: string): boolean => !isStorable(text, 90)

test(
  'there are more than 200 texts, and they go through every parameter that takes one',
  { timeout: 300_000 },
  async () => {
    expect(hostileStrings.length).toBeGreaterThan(200)
    expect(calls.length).toBeGreaterThan(300)
    const before = prototypes()
    const turn = Math.floor(randomOfTest()() * operatingShare)
    const faults = await tryAll(({ path }, index) => {
      if (path === 'bus.tryPublish' || path === 'bus.publishByHand') return fewTexts
      if (isFullForm || isFunction(path)) return hostileStrings
      // Methods take some milliseconds. Each text goes through a share of their parameters, which differs from run to run; in
      // `npm run test:chaos` through all of them.
      return hostileStrings.filter((text, at) => {
        const share = isOperating(path) && !isExtreme(text) ? operatingShare : methodShare
        return (at + turn) % share === index % share
      })
    })
    expect(faults).toEqual([])
    expect(prototypes()).toBe(before)
    expect((Object.create({}) as { polluted?: unknown }).polluted).toBeUndefined()
  },
)

/** One of so many parameters has a text. */
const operatingShare = 16
const methodShare = 4

test(
  `ten megabytes in ${isFullForm ? 'any parameter' : 'a parameter of each function'} are refused or taken, in less than a second of processor time`,
  { tags: ['slow'] },
  async () => {
    const faults: string[] = []
    // Which parameter it is differs from run to run.
    const random = randomOfTest()
    const tried = isFullForm
      ? calls
      : [...Map.groupBy(calls, ({ path }) => path).values()].flatMap((own) =>
          own.slice(Math.floor(random() * own.length)).slice(0, 1),
        )
    await withSurroundings(20, async (surroundings) => {
      for (const { path, parameter, call } of tried) {
        const before = process.cpuUsage()
        for (const text of enormousStrings) {
          const fault = await faultOf(call, text, surroundings)
          if (fault !== undefined)
            faults.push(`${path} ${parameter} ${JSON.stringify(text.slice(0, 20))}: ${fault}`)
        }
        const { user, system } = process.cpuUsage(before)
        const cpuMs = (user + system) / 1000
        if (cpuMs > roomFor(1000 * enormousStrings.length))
          faults.push(`${path} ${parameter}: ${cpuMs} ms of processor time`)
      }
    })
    expect(faults).toEqual([])
  },
)

test('the table has every function, method, option and subpath of the API', async () => {
  // Whatever is missing here: add it to parameters.ts, and its texts go through everything above.
  const manifest = JSON.parse(await readFile(new URL('../../package.json', import.meta.url), 'utf8')) as {
    exports: object
  }
  expect(Object.keys(subpaths)).toEqual(Object.keys(manifest.exports))
  const exported = Object.entries(bossbus)
    .filter(([, value]) => typeof value === 'function' && !isErrorClass(value))
    .map(([name]) => name)
  expect(Object.keys(functions).toSorted()).toEqual(exported.toSorted())
  expect(Object.keys(transportFunctions).toSorted()).toEqual((await functionsOfTransports()).toSorted())
  await withSurroundings(1, async (surroundings) => {
    const found = [
      ...methodPaths('bus', surroundings.bus),
      ...Object.entries(nested).flatMap(([path, open]) => methodPaths(path, open(surroundings.bus))),
    ]
    expect(Object.keys(methods).toSorted()).toEqual(found.toSorted())
    const missing: string[] = []
    for (const [path, entry] of Object.entries(entries)) {
      for (const option of await optionsOf(entry, surroundings))
        if (!isTried(entry, option)) missing.push(`${path} ${option}`)
    }
    expect(missing).toEqual([])
  })
})

/** What `bossbus/transports` and its modules export that is a function, but for what one of them has for another. */
async function functionsOfTransports(): Promise<string[]> {
  const folder = new URL('../../src/transports/', import.meta.url)
  const files = (await readdir(new URL('adapters/', folder))).map((name) => `adapters/${name}`)
  const modules = await Promise.all(
    ['index.ts', ...files].map(
      async (name) => (await import(new URL(name, folder).href)) as Readonly<Record<string, unknown>>,
    ),
  )
  const names = modules.flatMap((module) =>
    Object.keys(module).filter((name) => typeof module[name] === 'function'),
  )
  return [...new Set(names)].filter((name) => !name.endsWith('FromUrl') || name === 'transportFromUrl')
}

function isErrorClass(value: unknown): boolean {
  return (value as { prototype?: unknown }).prototype instanceof BusError || value === BusError
}

function isTried({ texts, noText = [] }: Entry, option: string): boolean {
  return Object.hasOwn(texts, option) || noText.includes(option)
}

function methodPaths(path: string, value: object): string[] {
  return Object.entries(value).flatMap(([name, member]: [string, unknown]) => {
    if (typeof member === 'function') return [`${path}.${name}`]
    return typeof member === 'object' && member !== null ? methodPaths(`${path}.${name}`, member) : []
  })
}

/** Whether an event takes a text in its field, which stands in the documentation. */
function isStorable(text: string, maxLength: number): boolean {
  return text.length >= 1 && text.length <= maxLength && !text.includes('\u0000') && text.isWellFormed()
}

test('what an event takes is stored and delivered exactly, in every field at once', async () => {
  const { url, db } = await createTestDatabase()
  const bus: AnyBus = createBus({
    database: url,
    events: anyEvents,
    source: 'tests',
    logger: recordingLogger(),
  })
  onTestFinished(async () => bus.stop({ graceMs: 1000 }))
  const delivered = new Map<string, StoredEvent>()
  bus.subscribe({ name: 'all', events: ['**'], handler: (event) => void delivered.set(event.id, event) })
  await bus.start()
  const events = hostileStrings
    .filter((text) => isStorable(text, 65_536))
    .map((text) => {
      const key = isStorable(text, 255) ? text : 'fits'
      return {
        type: 'note',
        tenantId: key,
        payload: { text, [text]: [text, { [text]: null }] },
        eventId: key,
        idempotencyKey: key,
        correlationId: key,
        orderingKey: key,
        subject: isStorable(text, 1024) ? text : 'fits',
        metadata: text.length > 4000 ? {} : { [text]: text, ordinary: text },
      }
    })
    .filter((event, index, all) => all.findIndex(({ tenantId }) => tenantId === event.tenantId) === index)
  expect(events.length).toBeGreaterThan(200)
  const published = await db.transaction(async (tx) => bus.publishMany(tx, events))
  expect(published.some(({ duplicate }) => duplicate)).toBe(false)
  await until('all were delivered', () => delivered.size >= events.length)
  const got = published.map(({ id }) => {
    const {
      type,
      tenantId,
      payload,
      eventId,
      idempotencyKey,
      correlationId,
      orderingKey,
      subject,
      metadata,
    } = delivered.get(id) as StoredEvent
    return { type, tenantId, payload, eventId, idempotencyKey, correlationId, orderingKey, subject, metadata }
  })
  expect(got).toEqual(events)
})

test('plain SQL stores and gives back exactly what publish would, and refuses the rest by name', async () => {
  const { rows } = await createTestDatabase()
  const columns = {
    tenantId: ['tenant_id', 255],
    type: ['type', 255],
    source: ['source', 255],
    subject: ['subject', 1024],
    eventId: ['event_id', 255],
    idempotencyKey: ['idempotency_key', 255],
    correlationId: ['correlation_id', 255],
    orderingKey: ['ordering_key', 255],
  } as const
  for (const [field, [column, maxLength]] of Object.entries(columns)) {
    const event = (text: string) => ({
      tenantId: 't',
      type: 'note',
      source: 'sql',
      payload: text,
      [field]: text,
    })
    // Characters here, not halves of surrogate pairs.
    const fits = hostileStrings.filter(
      (text) => isStorable(text, 10_000_000) && Array.from(text).length <= maxLength,
    )
    const published = await rows('select id from bus.publish($1::jsonb) order by ordinal', [
      JSON.stringify(fits.map(event)),
    ])
    const stored = await rows(
      `select e.${column} as text, e.payload from unnest($1::uuid[]) with ordinality as n (id, ordinal)
       join bus.events e using (id) order by ordinal`,
      [published.map(({ id }) => id)],
    )
    expect(stored).toEqual(fits.map((text) => ({ text, payload: text })))
    const refused = hostileStrings.filter((text) => text !== '' && !fits.includes(text))
    expect(refused.length).toBeGreaterThan(10)
    for (const text of field === 'tenantId' ? [...refused, ...enormousStrings.slice(0, 1)] : refused) {
      const refusal = rows('select * from bus.publish($1::jsonb)', [JSON.stringify([event(text)])])
      // check_violation, untranslatable_character, invalid_text_representation
      await expect(refusal).rejects.toMatchObject({
        code: expect.stringMatching(/^(?:23514|22P05|22P02)$/) as string,
      })
    }
  }
})

test('a request id never decides over a transaction, whatever it is', async () => {
  const { url, db, rows } = await createTestDatabase()
  let requestId = ''
  const app = Fastify({ genReqId: () => requestId })
  onTestFinished(async () => app.close())
  await app.register(busPlugin, {
    database: url,
    events: anyEvents,
    source: 'tests',
    logger: recordingLogger(),
  } as never)
  app.get('/', async (request) =>
    db.transaction(async (tx) =>
      request.bus.publish(tx, { type: 'note', tenantId: 'acme', payload: request.id } as never),
    ),
  )
  const expected: string[] = []
  for (const text of [...hostileStrings.filter((text) => text.length <= 2704), enormousStrings[0] ?? '']) {
    // The payload cannot hold these; the request id is what is tried.
    if (!isStorable(text, 100_000)) continue
    requestId = text
    const { statusCode } = await app.inject('/')
    expect([statusCode, text.slice(0, 60)]).toEqual([200, text.slice(0, 60)])
    expected.push(Array.from(text).slice(0, 255).join(''))
  }
  expect(expected.length).toBeGreaterThan(200)
  const stored = await rows('select correlation_id from bus.events order by id')
  expect(stored.map((row) => row['correlation_id'])).toEqual(expected)
})

test('the routes for operators answer any text, and record exactly who and why', async () => {
  const { url, rows } = await createTestDatabase()
  let by = ''
  const app = Fastify()
  onTestFinished(async () => app.close())
  await app.register(busPlugin, {
    database: url,
    events: anyEvents,
    source: 'tests',
    logger: recordingLogger(),
    api: { access: () => ({ by, allow: 'all' }) },
  } as never)
  app.bus.subscribe({ name: pausable, events: ['note'], handler: () => {} } as never)
  await app.ready()
  const odd: unknown[] = []
  const isActor = (text: string): boolean =>
    text !== '' && isStorable(text, 510) && Array.from(text).length <= 255
  const send = async (method: 'GET' | 'POST', path: string, payload?: object): Promise<void> => {
    const answer = await app.inject({
      method,
      url: `/bus/api/subscriptions/${path}`,
      ...(payload && { payload }),
    })
    const { statusCode } = answer
    // Who it is says the app.
    const isMistake = statusCode === 500 && !isActor(by)
    if ((statusCode >= 500 && !isMistake) || !answer.headers['content-type']?.startsWith('application/json'))
      odd.push([path.slice(0, 60), statusCode, answer.body.slice(0, 200)])
  }
  const random = randomOfTest()
  for (const text of hostileStrings) {
    by = text
    for (const step of ['pause', 'resume']) await send('POST', `${pausable}/${step}`, { reason: text })
    by = 'me'
    const name = encodeURIComponent(text.toWellFormed())
    const others = [
      async () => send('POST', `${pausable}/pause`, named(text)),
      async () => send('POST', `${pausable}/remove`, { waiting: text }),
      async () => send('POST', `${pausable}/remove`, { waiting: { moveTo: text } }),
      async () => send('GET', name),
      ...['pause', 'resume', 'remove'].map((step) => async () => send('POST', `${name}/${step}`, {})),
    ]
    const skipped = isFullForm ? 0 : 4
    const first = Math.floor(random() * others.length)
    for (let at = skipped; at < others.length; at += 1) await others[(first + at) % others.length]?.()
  }
  expect(odd).toEqual([])
  const kept = await rows('select distinct actor, reason from bus.audit where actor = reason')
  expect(new Set(kept.map(({ actor }) => actor))).toEqual(new Set(hostileStrings.filter(isActor)))
})

test('whatever a handler throws is kept and shown, and the event is a dead letter', async () => {
  const { url, db } = await createTestDatabase()
  const bus: AnyBus = createBus({
    database: url,
    events: anyEvents,
    source: 'tests',
    logger: recordingLogger(),
  })
  onTestFinished(async () => bus.stop({ graceMs: 1000 }))
  bus.subscribe({
    name: 'throws',
    events: ['note'],
    retry: { maxAttempts: 1 },
    circuitBreaker: false,
    handler: ({ payload }) => {
      const text = hostileStrings[payload as number] ?? ''
      const named = Object.assign(new Error(text), { name: text, code: text })
      if ((payload as number) % 3 === 0) throw named
      // oxlint-disable-next-line typescript/only-throw-error -- handlers throw anything
      if ((payload as number) % 3 === 1) throw text
      throw new NonRetryableError(text)
    },
  })
  await bus.start()
  await db.transaction(async (tx) =>
    bus.publishMany(
      tx,
      hostileStrings.map((_, index) => ({ type: 'note', tenantId: 'acme', payload: index })),
    ),
  )
  const list = async () => bus.deadLetters.list({ subscription: 'throws', limit: 1000 })
  await until('all are dead letters', async () => (await list()).length >= hostileStrings.length)
  const messages = (await list()).map(({ failures }) => failures.at(-1)?.message)
  for (const text of hostileStrings.filter((text) => isStorable(text, 1000))) expect(messages).toContain(text)
})

test('a log line is one line, whatever its fields are', () => {
  const write = vi.spyOn(process.stderr, 'write').mockReturnValue(true)
  try {
    for (const text of hostileStrings)
      stderrLogger.warn({ [text]: text, nested: { [text]: [text] } }, 'a constant message')
    const lines = write.mock.calls.map(([line]) => line as string)
    expect(lines).toHaveLength(hostileStrings.length)
    for (const [index, line] of lines.entries()) {
      const text = hostileStrings[index] ?? ''
      expect(line.endsWith('\n')).toBe(true)
      expect(line.slice(0, -1)).not.toMatch(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u)
      const parsed = JSON.parse(line) as { message: string; level: string; nested: Record<string, unknown> }
      expect(parsed).toMatchObject({ level: 'warn', message: 'a constant message' })
      expect(Object.entries(parsed.nested)).toEqual([[text, [text]]])
    }
  } finally {
    write.mockRestore()
  }
})

/** One of so many texts is matched; in `npm run test:chaos` all are. */
const typeShare = 8

test(
  'matching any text against any patterns takes less than 100 ms of processor time',
  { tags: ['slow'] },
  () => {
    const worst = Array.from({ length: 100 }, (_, i) => `${'*.'.repeat(124)}x${i}.**`)
    const matchers = [worst, hostileStrings.slice(0, 100), ...hostileStrings.map((text) => [text])].map(
      (patterns) => compilePatterns(patterns),
    )
    const turn = Math.floor(randomOfTest()() * typeShare)
    const types = isFullForm ? hostileStrings : hostileStrings.filter((_, at) => at % typeShare === turn)
    for (const type of [...types, ...enormousTypes]) {
      for (const matches of matchers.slice(0, 2))
        expect(cpuMsOf(() => matches(type))).toBeLessThan(roomFor(type.length > 100_000 ? 1000 : 100))
      expect(cpuMsOf(() => matchers.map((matches) => matches(type.slice(0, 255))))).toBeLessThan(roomFor(100))
    }
  },
)
