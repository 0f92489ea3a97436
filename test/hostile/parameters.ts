import * as bossbus from '../../src/index.ts'
import { createBus, defineEvents, type Bus, type EventCatalogue } from '../../src/index.ts'
import { recordingLogger } from '../support/bus.ts'

/** A bus of events that take anything, with no types in the way: as JavaScript without TypeScript would call it. */
export type AnyBus = Bus

/** What a call is made with. */
export interface Surroundings {
  readonly bus: AnyBus
  readonly databaseUrl: string
  /** An open Drizzle transaction, rolled back afterwards. */
  readonly tx: Parameters<AnyBus['publish']>[0]
}

/** Calls the API with a hostile text in one place. */
type Call = (text: string, surroundings: Surroundings) => unknown

/**
 * A function or method of the public API, and everything in it that takes a text. What the API gains and this table does
 * not have makes `strings.test.ts` fail: add it here, with a call, or to `noText` if it takes none.
 */
export interface Entry {
  /** By name of the parameter, or of the key of an object: how to put a text there. */
  readonly texts: Readonly<Record<string, Call>>
  /** Known keys of its options that take no text. */
  readonly noText?: readonly string[]
  /** Calls it with an option of that name, which it does not have, so that its error lists those that it has. */
  readonly probe?: (name: string, surroundings: Surroundings) => unknown
}

const anything = {
  '~standard': { version: 1, vendor: 'tests', validate: (value: unknown) => ({ value }) },
} as const

export const anyEvents: EventCatalogue = defineEvents({ note: { schema: anything } })

const handler = () => {}

function newBus(options: object): AnyBus {
  return createBus({
    database: 'postgres://localhost:1/none',
    events: anyEvents,
    source: 'tests',
    logger: recordingLogger(),
    ...options,
  })
}

const note = { type: 'note', payload: 'x' }
const event = { ...note, tenantId: 'acme' }

/** Publishes an event with a text in one of its fields. */
const field =
  (name: string): Call =>
  async (text, { bus, tx }) =>
    bus.publish(tx, { ...event, [name]: text })

const subscribe = (options: object): unknown =>
  newBus({}).subscribe({ name: 's', events: ['note'], handler, ...options })

const define = (options: object): unknown =>
  bossbus.defineSubscription(anyEvents, { name: 's', events: ['note'], handler, ...options })

/** The fields of an event that take a text, each way to put one there. */
const eventTexts: Readonly<Record<string, Call>> = {
  type: field('type'),
  payload: field('payload'),
  'payload key': async (text, { bus, tx }) =>
    bus.publish(tx, { ...event, payload: { a: [JSON.parse(`{${JSON.stringify(text)}: {}}`)] } }),
  tenantId: field('tenantId'),
  eventId: field('eventId'),
  idempotencyKey: field('idempotencyKey'),
  correlationId: field('correlationId'),
  causationId: field('causationId'),
  orderingKey: field('orderingKey'),
  subject: field('subject'),
  metadata: async (text, { bus, tx }) => bus.publish(tx, { ...event, metadata: { a: text } }),
  'metadata key': async (text, { bus, tx }) =>
    bus.publish(tx, {
      ...event,
      metadata: JSON.parse(`{${JSON.stringify(text)}: "x"}`) as Record<string, string>,
    }),
  'unknown field': async (text, { bus, tx }) =>
    bus.publish(tx, { ...event, ...(JSON.parse(`{${JSON.stringify(text)}: "x"}`) as object) }),
}

const cloudEvent = { specversion: '1.0', id: '1', source: '/s', type: 'note', tenantid: 'acme', data: 'x' }

const received = (fields: object) => bossbus.fromCloudEvent({ ...cloudEvent, ...fields })

const stored = {
  ...event,
  id: '01932f2c-5b4e-7cc0-8a2d-3f1e5d7c9b10',
  source: 'tests',
  subject: undefined,
  schemaVersion: 1,
  eventId: undefined,
  idempotencyKey: undefined,
  correlationId: undefined,
  causationId: undefined,
  orderingKey: undefined,
  metadata: {},
  expiresAt: undefined,
  createdAt: new Date(0),
}

const stopOnSignals = (options: object): void => bossbus.stopOnSignals(newBus({}), options)()

const sent = (fields: object) => bossbus.toCloudEvent({ ...stored, ...fields })

/** What the package exports that is a function, by name. Classes of errors take messages, which `thrown` covers. */
export const functions: Readonly<Record<string, Entry>> = {
  createBus: {
    texts: {
      source: (text) => newBus({ source: text }),
      bossSchema: (text) => newBus({ bossSchema: text }),
      database: (text) => newBus({ database: text }),
      events: (text) => newBus({ events: text }),
      drizzle: (text) => newBus({ drizzle: text }),
      'drizzle.casing': (text) => newBus({ drizzle: { casing: text } }),
      'an unknown option of drizzle': (text) =>
        newBus({ drizzle: JSON.parse(`{${JSON.stringify(text)}: 1}`) as object }),
      defaults: (text) => newBus({ defaults: text }),
      'unknown option': (text) => newBus(JSON.parse(`{${JSON.stringify(text)}: 1}`) as object),
    },
    noText: ['logger', 'maxPayloadBytes'],
    probe: (name) => newBus({ [name]: 1 }),
  },
  defineEvents: {
    texts: {
      'a name': (text) => defineEvents({ [text]: { schema: anything } }),
      'the name __proto__': (text) =>
        defineEvents(
          Object.fromEntries([['__proto__', { schema: anything, sources: [text] }]]) as EventCatalogue,
        ),
      sources: (text) => defineEvents({ note: { schema: anything, sources: [text] } }),
      redact: (text) => defineEvents({ note: { schema: anything, redact: [text] } }),
      'a version in upcast': (text) =>
        defineEvents({ note: { schema: anything, version: 2, upcast: { [text]: handler } as never } }),
      'unknown option': (text) =>
        defineEvents({
          note: { schema: anything, ...(JSON.parse(`{${JSON.stringify(text)}: 1}`) as object) },
        }),
    },
    noText: ['schema', 'version', 'upcast'],
    probe: (name) => defineEvents({ note: { schema: anything, [name]: 1 } }),
  },
  defineSubscription: {
    texts: {
      name: (text) => define({ name: text }),
      events: (text) => define({ events: [text] }),
      where: (text) => define({ where: text }),
      'a catalogue': (text) => bossbus.defineSubscription(text as never, { name: 'a' } as never),
      'unknown option': (text) => define(JSON.parse(`{${JSON.stringify(text)}: 1}`) as object),
    },
    // Those of bus.subscribe, which checks them.
  },
  eventTypes: { texts: { 'a name': (text) => bossbus.eventTypes({ [text]: { schema: anything } }) } },
  mergeEvents: {
    texts: {
      'a name': (text) => bossbus.mergeEvents({ [text]: { schema: anything } }),
      'a name twice': (text) => bossbus.mergeEvents(...([{ [text]: {} }, { [text]: {} }] as never[])),
    },
  },
  toCloudEvent: {
    texts: {
      dataSchema: (text) => bossbus.toCloudEvent(stored, { dataSchema: text }),
      source: (text) => sent({ source: text }),
      subject: (text) => sent({ subject: text }),
      metadata: (text) => sent({ metadata: { trace: text } }),
      'metadata key': (text) => sent({ metadata: JSON.parse(`{${JSON.stringify(text)}: "x"}`) as object }),
    },
    probe: (name) => bossbus.toCloudEvent(stored, { [name]: 1 }),
  },
  fromCloudEvent: {
    texts: {
      ...Object.fromEntries(
        [
          'specversion',
          'id',
          'source',
          'type',
          'subject',
          'time',
          'datacontenttype',
          'dataschema',
          'data',
        ].map((name) => [name, (text: string) => received({ [name]: text })]),
      ),
      ...Object.fromEntries(
        [
          'tenantid',
          'eventid',
          'causationid',
          'partitionkey',
          'expirytime',
          'schemaversion',
          'busmetadata',
          'x',
        ].map((name) => [name, (text: string) => received({ [name]: text })]),
      ),
      'a name': (text) => received(JSON.parse(`{${JSON.stringify(text)}: "x"}`) as object),
      tenantId: (text) => bossbus.fromCloudEvent(cloudEvent, { tenantId: text }),
    },
    probe: (name) => bossbus.fromCloudEvent(cloudEvent, { [name]: 1 }),
  },
  toCloudEventHeaders: {
    texts: {
      subject: (text) => bossbus.toCloudEventHeaders({ ...sent({}), subject: text }, 'http'),
    },
  },
  stopOnSignals: {
    texts: {
      bus: (text) => bossbus.stopOnSignals(text as never),
      graceMs: (text) => stopOnSignals({ graceMs: text }),
      signals: (text) => stopOnSignals({ signals: [text] }),
      onSignal: (text) => stopOnSignals({ onSignal: text }),
      onStopped: (text) => stopOnSignals({ onStopped: text }),
    },
    probe: (name) => stopOnSignals({ [name]: 1 }),
  },
  fromPg: { texts: { client: (text) => bossbus.fromPg(text as never) } },
  fromPostgresJs: { texts: { sql: (text) => bossbus.fromPostgresJs(text as never) } },
  fromKysely: { texts: { trx: (text) => bossbus.fromKysely(text as never) } },
  fromKnex: { texts: { trx: (text) => bossbus.fromKnex(text as never) } },
  fromPrisma: { texts: { tx: (text) => bossbus.fromPrisma(text as never) } },
  fromTypeOrm: { texts: { manager: (text) => bossbus.fromTypeOrm(text as never) } },
  fromCloudEventHeaders: {
    texts: {
      header: (text) => bossbus.fromCloudEventHeaders({ 'ce-subject': text }, 'x', 'http'),
      'header name': (text) => bossbus.fromCloudEventHeaders({ [text]: 'x' }, 'x', 'http'),
    },
  },
}

/** A subscription that is registered, so that what goes with its name is stored. */
export const pausable = 'pausable'

const unknownName = 'no-option-of-this-name-anywhere'

const release = { subscription: 's', tenantId: 'acme', orderingKey: 'k' }

/** The methods of a bus, by their path. */
export const methods: Readonly<Record<string, Entry>> = {
  'bus.migrate': {
    texts: {
      roles: async (text) => newBus({}).migrate({ roles: text as 'skip' }),
      sharedBoss: async (text) => newBus({}).migrate({ sharedBoss: text as 'refuse' }),
    },
    probe: async (name) => newBus({}).migrate({ [name]: 1 }),
  },
  'bus.start': {
    texts: { run: async (text) => newBus({}).start({ run: [text] }) },
    probe: async (name) => newBus({}).start({ [name]: 1 }),
  },
  'bus.with': {
    texts: {
      tenantId: async (text, { bus, tx }) => bus.with({ tenantId: text }).publish(tx, note),
      correlationId: async (text, { bus, tx }) => bus.with({ correlationId: text }).publish(tx, event),
      causationId: async (text, { bus, tx }) => bus.with({ causationId: text }).publish(tx, event),
      subject: async (text, { bus, tx }) => bus.with({ subject: text }).publish(tx, event),
      metadata: async (text, { bus, tx }) => bus.with({ metadata: { a: text } }).publish(tx, event),
    },
    probe: (name, { bus }) => bus.with({ [name]: 1 }),
  },
  'bus.health': { texts: {} },
  'bus.stop': {
    texts: { graceMs: async (text) => newBus({}).stop({ graceMs: text as unknown as number }) },
  },
  'bus.subscribe': {
    texts: {
      name: (text) => subscribe({ name: text }),
      events: (text) => subscribe({ events: [text] }),
      where: (text) => subscribe({ where: text }),
      mode: (text) => subscribe({ mode: text }),
      onKeyFailure: (text) => subscribe({ ordered: true, onKeyFailure: text }),
      'unknown option': (text) => subscribe(JSON.parse(`{${JSON.stringify(text)}: 1}`) as object),
      'unknown option of circuitBreaker': (text) =>
        subscribe({ circuitBreaker: JSON.parse(`{${JSON.stringify(text)}: 1}`) as object }),
      'unknown option of retry': (text) =>
        subscribe({ retry: JSON.parse(`{${JSON.stringify(text)}: 1}`) as object }),
    },
    noText: [
      'concurrency',
      'batchSize',
      'ordered',
      'timeoutSeconds',
      'heartbeatSeconds',
      'retry',
      'circuitBreaker',
      'tenantConcurrency',
      'handler',
    ],
    probe: (name) => subscribe({ [name]: 1 }),
  },
  'bus.publish': {
    texts: eventTexts,
    noText: ['availableAt', 'availableIn', 'expiresAt'],
    probe: async (name, { bus, tx }) => bus.publish(tx, { ...event, [name]: 1 }),
  },
  'bus.publishMany': {
    texts: { events: async (text, { bus, tx }) => bus.publishMany(tx, text as never) },
  },
  'bus.tryPublish': {
    texts: {
      subject: async (text, { bus }) => bus.tryPublish({ ...event, subject: text }),
      type: async (text, { bus }) => bus.tryPublish({ ...event, type: text }),
    },
  },
  'bus.cancel': {
    texts: {
      id: async (text, { bus }) => bus.cancel(text),
      'id in a transaction': async (text, { bus, tx }) => bus.cancel(tx, text),
      tenantId: async (text, { bus }) => bus.cancel(stored.id, { tenantId: text }),
      'tenantId in a transaction': async (text, { bus, tx }) => bus.cancel(tx, stored.id, { tenantId: text }),
    },
    probe: async (name, { bus }) => bus.cancel(stored.id, { [name]: 1 }),
  },
  'bus.deadLetters.groups': {
    texts: { subscription: async (text, { bus }) => bus.deadLetters.groups({ subscription: text }) },
    noText: ['limit'],
    probe: async (name, { bus }) => bus.deadLetters.groups({ [name]: 1 }),
  },
  'bus.deadLetters.list': {
    texts: { subscription: async (text, { bus }) => bus.deadLetters.list({ subscription: text }) },
    noText: ['limit'],
    probe: async (name, { bus }) => bus.deadLetters.list({ [name]: 1 }),
  },
  'bus.blockedKeys.list': {
    texts: { subscription: async (text, { bus }) => bus.blockedKeys.list({ subscription: text }) },
    noText: ['limit'],
    probe: async (name, { bus }) => bus.blockedKeys.list({ [name]: 1 }),
  },
  'bus.blockedKeys.release': {
    texts: {
      subscription: async (text, { bus }) => bus.blockedKeys.release({ ...release, subscription: text }),
      tenantId: async (text, { bus }) => bus.blockedKeys.release({ ...release, tenantId: text }),
      orderingKey: async (text, { bus }) => bus.blockedKeys.release({ ...release, orderingKey: text }),
    },
    noText: ['skipFailed'],
    probe: async (name, { bus }) => bus.blockedKeys.release({ ...release, [name]: 1 }),
  },
  // Of a tenant without events: where there are some, it waits until no process has them in memory any more.
  'bus.erase': {
    texts: Object.fromEntries(
      ['tenantId', 'subject', 'by', 'reason'].map((name) => [
        name,
        async (text: string, { bus }: Surroundings) =>
          bus.erase({ tenantId: 'nobody', subject: 's', by: 'me', [name]: text }),
      ]),
    ),
    probe: async (name, { bus }) => bus.erase({ tenantId: 'nobody', subject: 's', by: 'me', [name]: 1 }),
  },
  'bus.erasures.list': {
    texts: { tenantId: async (text, { bus }) => bus.erasures.list({ tenantId: text }) },
    noText: ['limit'],
    probe: async (name, { bus }) => bus.erasures.list({ [name]: 1 }),
  },
  'bus.subscriptions.list': { texts: {} },
  'bus.subscriptions.pause': {
    texts: {
      name: async (text, { bus }) => bus.subscriptions.pause(text),
      by: async (text, { bus }) => bus.subscriptions.pause(pausable, { by: text }),
      reason: async (text, { bus }) => bus.subscriptions.pause(pausable, { reason: text }),
    },
    probe: async (name, { bus }) => bus.subscriptions.pause(pausable, { [name]: 1 }),
  },
  'bus.subscriptions.resume': { texts: { name: async (text, { bus }) => bus.subscriptions.resume(text) } },
  'bus.deliveries': { texts: { eventId: async (text, { bus }) => bus.deliveries(text) } },
  ...historyMethods('bus.events', (bus) => bus.events, {
    tenantId: async (text, { bus }) => bus.events.find({ tenantId: text }),
  }),
  'bus.tenant': {
    texts: {
      id: (text, { bus }) => bus.tenant(text),
      // Whoever the tenant is, its name is no part of a statement.
      'id, used': async (text, { bus }) => bus.tenant(text).events.find({ limit: 1 }),
    },
  },
  ...historyMethods('bus.tenant().events', (bus) => bus.tenant('acme').events),
  'bus.tenant().stats': {
    texts: { from: async (text, { bus }) => bus.tenant('acme').stats({ from: text as unknown as Date }) },
    noText: ['to'],
    probe: async (name, { bus }) => bus.tenant('acme').stats({ [name]: 1 }),
  },
  'bus.tenant().deliveries': {
    texts: { eventId: async (text, { bus }) => bus.tenant('acme').deliveries(text) },
  },
  'bus.tenant().deadLetters.list': {
    texts: {
      subscription: async (text, { bus }) => bus.tenant('acme').deadLetters.list({ subscription: text }),
    },
    noText: ['limit'],
    probe: async (name, { bus }) => bus.tenant('acme').deadLetters.list({ [name]: 1 }),
  },
  'bus.tenant().query': {
    texts: { work: async (text, { bus }) => bus.tenant('acme').query(text as never) },
  },
}

type History = Pick<AnyBus['events'], 'find' | 'get' | 'trace'>

/** What the operator's history and a tenant's have in common. */
function historyMethods(
  path: string,
  open: (bus: AnyBus) => Pick<AnyBus['events'], 'get'>,
  more: Readonly<Record<string, Call>> = {},
): Record<string, Entry> {
  const history = (bus: AnyBus) => open(bus) as History
  return {
    [`${path}.find`]: {
      texts: {
        type: async (text, { bus }) => history(bus).find({ type: text }),
        correlationId: async (text, { bus }) => history(bus).find({ correlationId: text }),
        after: async (text, { bus }) => history(bus).find({ after: text }),
        order: async (text, { bus }) => history(bus).find({ order: text as 'newest' }),
        ...more,
      },
      noText: ['from', 'to', 'limit'],
      probe: async (name, { bus }) => history(bus).find({ [name]: 1 }),
    },
    [`${path}.get`]: { texts: { id: async (text, { bus }) => history(bus).get(text) } },
    [`${path}.trace`]: {
      texts: {
        correlationId: async (text, { bus }) => history(bus).trace(text),
        ...(Object.hasOwn(more, 'tenantId')
          ? {
              tenantId: async (text: string, { bus }: Surroundings) =>
                bus.events.trace('c1', { tenantId: text }),
            }
          : {}),
      },
      noText: ['limit'],
      probe: async (name, { bus }) => history(bus).trace('c1', { [name]: 1 }),
    },
  }
}

/** Objects that methods of a bus give, with methods of their own: how to get them. */
export const nested: Readonly<Record<string, (bus: AnyBus) => object>> = {
  'bus.tenant()': (bus) => bus.tenant('acme'),
}

/** What the package exports in its subpaths, and where its texts are tried. */
export const subpaths: Readonly<Record<string, string>> = {
  '.': 'functions and methods above',
  './fastify': 'request ids: strings.test.ts',
  './nestjs': 'names and patterns are those of bus.subscribe, above',
  './schema': 'tables, no functions',
  './testing': 'for tests: what it is given is the test’s own',
  './package.json': 'no code',
}

/** The options that a function has, as its error for an unknown one lists them. */
export async function optionsOf(entry: Entry, surroundings: Surroundings): Promise<readonly string[]> {
  if (entry.probe === undefined) return []
  try {
    await entry.probe(unknownName, surroundings)
  } catch (error) {
    const [, names = ''] = /Known are: (.*)$/.exec((error as Error).message) ?? []
    return names.split(', ').filter((name) => name !== '')
  }
  throw new Error('Expected an error that lists the options')
}
