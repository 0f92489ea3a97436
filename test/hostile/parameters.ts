import { defineEvents, type EventCatalogue, type SubscriptionHandle } from '../../src/index.ts'
import * as bossbus from '../../src/index.ts'
import {
  anyEvents,
  anything,
  named,
  newBus,
  type AnyBus,
  type Call,
  type Entry,
  type Surroundings,
} from './calls.ts'
import {
  explaining,
  operatingFunctions,
  operatingMethods,
  operatingOptions,
  subscriptionNoText,
  subscriptionTexts,
} from './operating-parameters.ts'
import { forward, receive, transferMethods } from './transport-parameters.ts'

const handler = () => {}

const note = { type: 'note', payload: 'x' }
const event = { ...note, tenantId: 'acme' }

/** Publishes an event with a text in one of its fields. */
const field =
  (name: string): Call =>
  async (text, { bus, tx }) =>
    bus.publish(tx, { ...event, [name]: text })

const subscribe = (options: object): SubscriptionHandle =>
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
  ...operatingFunctions,
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
      ...operatingOptions,
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

const unknownName = 'no-option-of-this-name-anywhere'

const filterTexts = [
  'type',
  'pattern',
  'source',
  'subject',
  'correlationId',
  'causationId',
  'eventId',
  'idempotencyKey',
  'orderingKey',
  'status',
  'payload',
  'from',
  'to',
  'after',
  'order',
]

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
  'bus.stop': {
    texts: {
      graceMs: async (text) => newBus({}).stop({ graceMs: text as unknown as number }),
      keepOpen: async (text) => newBus({}).stop({ keepOpen: text as unknown as boolean }),
    },
    probe: async (name) => newBus({}).stop({ [name]: 1 }),
  },
  'bus.subscribe().ready': { texts: {} },
  'bus.subscribe().stop': {
    texts: { graceMs: async (text) => subscribe({}).stop({ graceMs: text as unknown as number }) },
    probe: async (name) => subscribe({}).stop({ [name]: 1 }),
  },
  'bus.subscribe': {
    texts: {
      ...subscriptionTexts(subscribe),
      mode: (text) => subscribe({ mode: text }),
    },
    noText: [...subscriptionNoText, 'handler'],
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
  'bus.publishByHand': {
    texts: {
      ...Object.fromEntries(
        // The keys are those of bus.publish, whose open transaction holds them: another call would wait for it.
        ['type', 'tenantId', 'orderingKey', 'subject'].map((name) => [
          name,
          async (text: string, { bus }: Surroundings) =>
            bus.publishByHand({ ...event, [name]: text }, { by: 'me' }),
        ]),
      ),
      ...Object.fromEntries(
        ['by', 'reason'].map((name) => [
          name,
          async (text: string, { bus }: Surroundings) => bus.publishByHand(event, { by: 'me', [name]: text }),
        ]),
      ),
    },
    probe: async (name, { bus }) => bus.publishByHand(event, { by: 'me', [name]: 1 }),
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
      by: async (text, { bus }) => bus.cancel(stored.id, { by: text }),
      reason: async (text, { bus }) => bus.cancel(stored.id, { by: 'me', reason: text }),
      'tenantId in a transaction': async (text, { bus, tx }) => bus.cancel(tx, stored.id, { tenantId: text }),
    },
    probe: async (name, { bus }) => bus.cancel(stored.id, { [name]: 1 }),
  },
  ...transferMethods,
  ...operatingMethods,
  ...historyMethods('bus.events', (bus) => bus.events),
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
  ...explaining('bus.tenant()', (bus) => bus.tenant('acme')),
  'bus.tenant().deadLetters.list': {
    texts: Object.fromEntries(
      ['subscription', 'fingerprint', 'errorName', 'errorCode', 'state', 'type', 'from', 'to', 'after'].map(
        (name) => [
          name,
          async (text: string, { bus }: Surroundings) =>
            bus.tenant('acme').deadLetters.list({ limit: 10, [name]: text }),
        ],
      ),
    ),
    noText: ['limit'],
    probe: async (name, { bus }) => bus.tenant('acme').deadLetters.list({ [name]: 1 }),
  },
  'bus.tenant().deadLetters.groups': {
    texts: Object.fromEntries(
      ['subscription', 'fingerprint', 'errorName', 'errorCode', 'state', 'from', 'to'].map((name) => [
        name,
        async (text: string, { bus }: Surroundings) =>
          bus.tenant('acme').deadLetters.groups({ [name]: text }),
      ]),
    ),
    noText: ['limit'],
    probe: async (name, { bus }) => bus.tenant('acme').deadLetters.groups({ [name]: 1 }),
  },
  'bus.tenant().operations.list': {
    texts: { after: async (text, { bus }) => bus.tenant('acme').operations.list({ after: text }) },
    noText: ['limit'],
    probe: async (name, { bus }) => bus.tenant('acme').operations.list({ [name]: 1 }),
  },
  'bus.tenant().operations.get': {
    texts: { id: async (text, { bus }) => bus.tenant('acme').operations.get(text) },
  },
  'bus.tenant().query': {
    texts: { work: async (text, { bus }) => bus.tenant('acme').query(text as never) },
  },
}

type History = Pick<AnyBus['events'], 'find' | 'search' | 'get' | 'states' | 'trace' | 'traceTree'>

/** What the operator's history and a tenant's have in common. */
function historyMethods(
  path: string,
  open: (bus: AnyBus) => Pick<AnyBus['events'], 'get'>,
): Record<string, Entry> {
  const history = (bus: AnyBus) => open(bus) as History
  const ofOperator = path === 'bus.events' ? ['tenantId'] : []
  const entries = (['find', 'search'] as const).map((method): [string, Entry] => {
    const read = async ({ bus }: Surroundings, filter: object) =>
      history(bus)[method]({ limit: 10, ...filter })
    return [
      `${path}.${method}`,
      {
        texts: {
          ...Object.fromEntries(
            [...filterTexts, ...ofOperator].map((name) => [
              name,
              async (text: string, given: Surroundings) => read(given, { [name]: text }),
            ]),
          ),
          types: async (text, given) => read(given, { type: [text] }),
          patterns: async (text, given) => read(given, { pattern: [text, 'a.b'] }),
          'status.state': async (text, given) => read(given, { status: { state: text } }),
          'status.subscription': async (text, given) =>
            read(given, { status: { state: 'dead', subscription: text } }),
          'unknown option of status': async (text, given) => read(given, { status: named(text) }),
          'a value in payload': async (text, given) => read(given, { payload: { a: text } }),
          'a name in payload': async (text, given) => read(given, { payload: { a: [named(text)] } }),
        },
        noText: ['limit', 'readLimit', 'exactNumbers'],
        probe: async (name, given) => read(given, { [name]: 1 }),
      },
    ]
  })
  const traces = (['trace', 'traceTree'] as const).map((method): [string, Entry] => [
    `${path}.${method}`,
    {
      texts: {
        correlationId: async (text, { bus }) => history(bus)[method](text),
        ...Object.fromEntries(
          ofOperator.map((name) => [
            name,
            async (text: string, { bus }: Surroundings) => history(bus)[method]('c1', { [name]: text }),
          ]),
        ),
      },
      noText: ['limit', 'exactNumbers'],
      probe: async (name, { bus }) => history(bus)[method]('c1', { [name]: 1 }),
    },
  ])
  return {
    ...Object.fromEntries([...entries, ...traces]),
    [`${path}.get`]: {
      texts: {
        id: async (text, { bus }) => history(bus).get(text),
        options: async (text, { bus }) => history(bus).get(stored.id, text as never),
      },
      noText: ['exactNumbers'],
      probe: async (name, { bus }) => history(bus).get(stored.id, { [name]: 1 }),
    },
    [`${path}.states`]: {
      texts: {
        ids: async (text, { bus }) => history(bus).states(text as never),
        id: async (text, { bus }) => history(bus).states([text]),
      },
    },
  }
}

/** Objects that methods of a bus give, with methods of their own: how to get them. */
export const nested: Readonly<Record<string, (bus: AnyBus) => object>> = {
  'bus.tenant()': (bus) => bus.tenant('acme'),
  'bus.subscribe()': () => subscribe({}),
  'bus.forward()': () => forward({}),
  'bus.receive()': () => receive({}),
}

/** What the package exports in its subpaths, and where its texts are tried. */
export const subpaths: Readonly<Record<string, string>> = {
  '.': 'functions and methods above',
  './fastify': 'request ids and `api`: strings.test.ts',
  './nestjs': 'names and patterns are those of bus.subscribe, above',
  './schema': 'tables, no functions',
  './transports': 'functions of transport-parameters.ts',
  './transports/*':
    'functions of transport-parameters.ts; requests and URLs: http-source.test.ts, safe-url.test.ts',
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
