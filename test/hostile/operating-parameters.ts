import { randomUUID } from 'node:crypto'
import { Readable } from 'node:stream'
import { archiveToFolder, restoreArchive, type Operation } from '../../src/index.ts'
import { failing, named, newBus, pausable, type Call, type Entry, type Surroundings } from './calls.ts'

const anId = '01932f2c-5b4e-7cc0-8a2d-3f1e5d7c9b10'
const me = { by: 'me' }
const all = { from: new Date(0) }

/** For each name, a call with the text in the option of that name. */
function each(
  names: readonly string[],
  call: (option: object, surroundings: Surroundings) => unknown,
): Readonly<Record<string, Call>> {
  return Object.fromEntries(
    names.map((name) => [
      name,
      async (text: string, surroundings: Surroundings) => call({ [name]: text }, surroundings),
    ]),
  )
}

/** A list, or another read, that takes a filter. */
function reading(
  read: (filter: object, surroundings: Surroundings) => Promise<unknown>,
  texts: readonly string[],
  noText: readonly string[] = ['limit'],
): Entry {
  return { texts: each(texts, read), noText, probe: async (name, given) => read({ [name]: 1 }, given) }
}

/** With the text in an array. */
const inArray = (call: (list: readonly string[], surroundings: Surroundings) => unknown): Call => {
  return async (text, surroundings) => call([text], surroundings)
}

const conditions = [
  'subscription',
  'tenantId',
  'fingerprint',
  'errorName',
  'errorCode',
  'state',
  'from',
  'to',
]

/** Which messages of the quarantine, of a retry or a discard. */
function quarantining(
  act: (selection: object, options: object, surroundings: Surroundings) => Promise<unknown>,
): Entry {
  return {
    texts: {
      ...each(['receiver', 'code', 'from', 'to'], async (selection, given) => act(selection, {}, given)),
      ids: inArray(async (ids, given) => act({ ids }, {}, given)),
      'unknown condition': async (text, given) => act(named(text), {}, given),
      ...each(['by', 'reason', 'dryRun'], async (options, given) => act(all, options, given)),
    },
    probe: async (name, given) => act(all, { [name]: 1 }, given),
  }
}

/** Which dead letters, of a redrive or a discard. Each call stores an operation. */
function selecting(
  act: (selection: object, options: object, surroundings: Surroundings) => Promise<unknown>,
): Readonly<Record<string, Call>> {
  return {
    ...each([...conditions, 'type'], async (selection, given) => act(selection, {}, given)),
    types: inArray(async (type, given) => act({ type }, {}, given)),
    ids: inArray(async (ids, given) => act({ subscription: failing, ids }, {}, given)),
    'the subscription of ids': async (text, given) => act({ subscription: text, ids: [anId] }, {}, given),
    'unknown condition': async (text, given) => act(named(text), {}, given),
    ...each(['by', 'reason'], async (options, given) => act(all, options, given)),
    ...each(['dryRun'], async (options, given) => act(all, options, given)),
  }
}

const redrive = async (selection: object, options: object, { bus }: Surroundings): Promise<unknown> =>
  bus.deadLetters.redrive(selection, { ...me, ...options })

const discard = async (selection: object, options: object, { bus }: Surroundings): Promise<unknown> =>
  bus.deadLetters.discard(selection, { ...me, reason: 'none', ...options })

/** Edits a dead letter that no other call has. */
async function edit(options: object, { bus, letters }: Surroundings): Promise<void> {
  const id = letters.pop()
  if (id === undefined) throw new Error('Expected more dead letters')
  try {
    await bus.deadLetters.redriveEdited(id, failing, { payload: 'edited', ...me, ...options })
  } catch (error) {
    letters.push(id)
    throw error
  }
}

/** Acts on an operation of its own. */
function steering(step: 'pause' | 'resume' | 'cancel'): Entry {
  const change = async (option: object, { bus, rows }: Surroundings): Promise<void> => {
    const id = randomUUID()
    await rows(
      `insert into bus.operations (id, kind, actor, selection, options, subscription_ids, state) values ($1, 'discard', 'me', '{}', '{}', '{}', $2)`,
      [id, step === 'resume' ? 'paused' : 'running'],
    )
    await bus.operations[step](id, { ...me, ...option })
  }
  return {
    texts: {
      id: async (text, { bus }) => bus.operations[step](text, me),
      ...each(['by', 'reason'], change),
    },
    probe: async (name, { bus }) => bus.operations[step](anId, { ...me, [name]: 1 }),
  }
}

/** Acts on a subscription of its own, which nothing waits for. */
async function withSubscription<T>({ rows }: Surroundings, work: (name: string) => Promise<T>): Promise<T> {
  const name = randomUUID()
  await rows(
    `insert into bus.subscriptions (name, service, patterns, options)
     select $1, s.service, s.patterns, s.options from bus.subscriptions s where s.name = $2`,
    [name, failing],
  )
  return work(name)
}

const remove = async (options: object, given: Surroundings): Promise<Operation> =>
  withSubscription(given, async (name) => given.bus.subscriptions.remove(name, { ...me, ...options }))

/** Renames a subscription, and removes it under its new name, so that this is free again. */
async function rename(newName: string, options: object, given: Surroundings): Promise<void> {
  await withSubscription(given, async (name) => {
    await given.bus.subscriptions.rename(name, newName, { ...me, ...options })
    await given.rows('delete from bus.subscriptions where name = $1', [newName])
  })
}

const setOptions = async (options: object, change: object, { bus }: Surroundings): Promise<void> =>
  bus.subscriptions.setOptions(
    pausable,
    { concurrency: 2, ...options },
    { ...me, expiresInSeconds: 60, ...change },
  )

const replay = async (options: object, { bus }: Surroundings): Promise<unknown> =>
  bus.replay({ subscriptions: [failing], ids: [anId], ...me, ...options } as never)

/** The whole selection of a replay. */
const replaying = async (selection: object, { bus }: Surroundings): Promise<unknown> =>
  bus.replay({ subscriptions: [pausable], ...me, ...selection } as never)

const prune = async (option: object, { bus }: Surroundings): Promise<unknown> =>
  bus.prune({ ...me, ...option })

// Of a tenant without events: where there are some, it waits until no process has them in memory any more.
const erase = async (option: object, { bus }: Surroundings): Promise<unknown> =>
  bus.erase({ tenantId: 'nobody', subject: 's', ...me, ...option })

/** A manifest of an archive in which no event is. */
const manifest = {
  format: 'ndjson',
  version: 1,
  tables: Object.fromEntries(
    ['events', 'receipts', 'receipt_batches', 'attempts'].map((table) => [
      table,
      { columns: [], rowCount: 0, files: [] },
    ]),
  ),
}

async function restore(options: object, { rows }: Surroundings): Promise<number> {
  // Nothing is kept, so that each table is new.
  const client = {
    query: async (text: string, values?: unknown[]) =>
      text === 'begin' || text === 'commit' || text === 'rollback' ? [] : rows(text, values),
  }
  return restoreArchive({
    client,
    archive: { read: async () => Readable.from([Buffer.from(JSON.stringify(manifest))]) },
    manifest: 'manifest.json',
    into: `restored_${randomUUID()}`,
    ...options,
  })
}

export const operatingFunctions: Readonly<Record<string, Entry>> = {
  archiveToFolder: {
    texts: {
      path: async (text) => archiveToFolder(text),
      format: (text) => archiveToFolder('archive', { format: text as 'ndjson' }),
      // What the archive of a folder says of a name that it does not have, a restore says to the caller.
      'path, read': async (text, given) => restore({ archive: archiveToFolder(text) }, given),
    },
  },
  restoreArchive: {
    texts: {
      into: async (text, given) => restore({ into: text }, given),
      'the schema in into': async (text, given) => restore({ into: `${text}.restored` }, given),
      table: async (text, given) => restore({ table: text }, given),
      manifest: async (text, given) =>
        restore({ manifest: text, archive: archiveToFolder('/nowhere') }, given),
      client: async (text, given) => restore({ client: text }, given),
      archive: async (text, given) => restore({ archive: text }, given),
      'the content of the manifest': async (text, given) =>
        restore({ archive: { read: async () => Readable.from([Buffer.from(text)]) } }, given),
      'a column': async (text, given) => {
        const tables = { ...manifest.tables, events: { columns: [text], rowCount: 0, files: [] } }
        const content = Buffer.from(JSON.stringify({ ...manifest, tables }))
        return restore({ archive: { read: async () => Readable.from([content]) } }, given)
      },
    },
    probe: async (name, given) => restore({ [name]: 1 }, given),
  },
}

/** Options of `createBus` that take texts in objects. */
export const operatingOptions: Readonly<Record<string, Call>> = {
  retention: (text) => newBus({ retention: text }),
  'unknown option of retention': (text) => newBus({ retention: named(text) }),
  'retention.logDays': (text) => newBus({ retention: { logDays: text } }),
  'retention.archive': (text) => newBus({ retention: { archive: text } }),
  'retention.archive.format': (text) =>
    newBus({ retention: { archive: { ...archiveToFolder('archive'), format: text } } }),
  health: (text) => newBus({ health: text }),
  'unknown option of health': (text) => newBus({ health: named(text) }),
  canary: (text) => newBus({ canary: text }),
  'unknown option of canary': (text) => newBus({ canary: named(text) }),
  'canary.everySeconds': (text) => newBus({ canary: { everySeconds: text } }),
  metrics: (text) => newBus({ metrics: text }),
  'unknown option of metrics': (text) => newBus({ metrics: named(text) }),
  'metrics.tenants': (text) => newBus({ metrics: { tenants: text } }),
  'metrics.database': (text) => newBus({ metrics: { database: text } }),
  admission: (text) => newBus({ admission: text }),
  'unknown option of admission': (text) => newBus({ admission: named(text) }),
  'admission.action': (text) => newBus({ admission: { maxOutboxDepth: 1, action: text } }),
  telemetry: (text) => newBus({ telemetry: text }),
  'unknown option of telemetry': (text) => newBus({ telemetry: named(text) }),
  'telemetry.spans': (text) => newBus({ telemetry: { spans: text } }),
  ...callbacks((options) => newBus(options)),
}

/** `onDeadLetter` and `deadLetterAlert` of a bus, or of a subscription. */
function callbacks(call: (options: object) => unknown): Readonly<Record<string, Call>> {
  return {
    onDeadLetter: (text) => call({ onDeadLetter: text }),
    deadLetterAlert: (text) => call({ deadLetterAlert: text }),
    'unknown option of deadLetterAlert': (text) => call({ deadLetterAlert: named(text) }),
    'deadLetterAlert.onAlert': (text) =>
      call({ deadLetterAlert: { count: 1, perSeconds: 1, onAlert: text } }),
  }
}

/** Options of a subscription, of `bus.subscribe` and of `bus.forward`. */
export function subscriptionTexts(call: (options: object) => unknown): Readonly<Record<string, Call>> {
  return {
    name: (text) => call({ name: text }),
    events: (text) => call({ events: [text] }),
    where: (text) => call({ where: text }),
    onKeyFailure: (text) => call({ ordered: true, onKeyFailure: text }),
    startFrom: (text) => call({ startFrom: text }),
    lagLimitSeconds: (text) => call({ lagLimitSeconds: text }),
    'retry.delays': (text) => call({ retry: { delays: [text] } }),
    ...callbacks(call),
    'unknown option': (text) => call(named(text)),
    'unknown option of circuitBreaker': (text) => call({ circuitBreaker: named(text) }),
    'unknown option of retry': (text) => call({ retry: named(text) }),
  }
}

/** Those that take no text. */
export const subscriptionNoText = [
  'concurrency',
  'batchSize',
  'ordered',
  'timeoutSeconds',
  'heartbeatSeconds',
  'retry',
  'circuitBreaker',
  'tenantConcurrency',
]

/** What `bus` and `bus.tenant()` have in common. */
export function explaining(
  path: string,
  open: (bus: Surroundings['bus']) => Pick<Surroundings['bus'], 'explain' | 'lookup'>,
): Record<string, Entry> {
  return {
    [`${path}.explain`]: {
      texts: {
        id: async (text, { bus }) => open(bus).explain(text),
        subscription: async (text, { bus, letters }) => open(bus).explain(letters[0] ?? anId, text),
      },
    },
    [`${path}.lookup`]: { texts: { text: async (text, { bus }) => open(bus).lookup(text) } },
  }
}

const queryNames = [
  'depth',
  'lag',
  'throughput',
  'latency',
  'deadByError',
  'retries',
  'active',
  'subscriptionState',
  'blockedKeys',
  'recentFailures',
] as const

const limitedNames = ['instances', 'tenants', 'scheduled', 'storage'] as const

const queries: Readonly<Record<string, Entry>> = {
  ...Object.fromEntries(
    queryNames.map((name) => [
      `bus.queries.${name}`,
      reading(
        async (filter, { bus }) => bus.queries[name](filter),
        ['subscription', 'from', 'to'],
        ['limit'],
      ),
    ]),
  ),
  ...Object.fromEntries(
    limitedNames.map((name) => [
      `bus.queries.${name}`,
      reading(async (filter, { bus }) => bus.queries[name](filter), ['limit']),
    ]),
  ),
  'bus.queries.eventsByKey': reading(
    async (filter, { bus }) => bus.queries.eventsByKey({ key: 'k', tenantId: 'acme', ...filter }),
    ['key', 'tenantId'],
  ),
}

const release = { subscription: 's', tenantId: 'acme', orderingKey: 'k' }

/** The methods of a bus by which it is operated, by their path. */
export const operatingMethods: Readonly<Record<string, Entry>> = {
  ...explaining('bus', (bus) => bus),
  ...queries,
  'bus.deliveries': { texts: { eventId: async (text, { bus }) => bus.deliveries(text) } },
  'bus.stats': reading(
    async (filter, { bus }) => bus.stats(filter),
    ['from', 'to', 'by', 'subscription', 'tenantId'],
  ),
  'bus.health': reading(async (options, { bus }) => bus.health(options), ['full'], []),
  'bus.canary': reading(async (options, { bus }) => bus.canary(options), ['timeoutMs'], []),
  'bus.admit': { texts: {} },
  'bus.metrics': { texts: {} },
  'bus.audit.list': reading(
    async (filter, { bus }) => bus.audit.list(filter),
    ['by', 'action', 'subscription', 'eventId', 'operationId', 'after'],
  ),
  'bus.deadLetters.groups': reading(async (filter, { bus }) => bus.deadLetters.groups(filter), conditions),
  'bus.deadLetters.list': reading(
    async (filter, { bus }) => bus.deadLetters.list({ limit: 10, ...filter }),
    [...conditions, 'type', 'after', 'replayId'],
  ),
  'bus.deadLetters.get': {
    texts: {
      id: async (text, { bus }) => bus.deadLetters.get(text, failing),
      subscription: async (text, { bus, letters }) => bus.deadLetters.get(letters[0] ?? anId, text),
    },
  },
  'bus.deadLetters.redrive': {
    texts: selecting(redrive),
    noText: ['rate', 'probe'],
    probe: async (name, given) => redrive(all, { [name]: 1 }, given),
  },
  'bus.deadLetters.discard': {
    texts: selecting(discard),
    probe: async (name, given) => discard(all, { [name]: 1 }, given),
  },
  'bus.deadLetters.redriveEdited': {
    texts: {
      id: async (text, { bus }) => bus.deadLetters.redriveEdited(text, failing, { ...me, payload: 1 }),
      subscription: async (text, { bus, letters }) =>
        bus.deadLetters.redriveEdited(letters[0] ?? anId, text, { ...me, payload: 1 }),
      payload: async (text, given) => edit({ payload: text }, given),
      'payload key': async (text, given) => edit({ payload: { a: [named(text, {})] } }, given),
      metadata: async (text, given) => edit({ metadata: { a: text } }, given),
      'metadata key': async (text, given) => edit({ metadata: named(text, 'x') }, given),
      'metadata as a whole': async (text, given) => edit({ metadata: text }, given),
      ...each(['by', 'reason', 'dryRun'], edit),
    },
    probe: async (name, given) => edit({ [name]: 1 }, given),
  },
  'bus.blockedKeys.list': reading(
    async (filter, { bus }) => bus.blockedKeys.list(filter),
    ['subscription', 'tenantId', 'orderingKey'],
  ),
  'bus.blockedKeys.release': {
    texts: each(['subscription', 'tenantId', 'orderingKey', 'by', 'reason'], async (option, { bus }) =>
      bus.blockedKeys.release({ ...release, ...option }),
    ),
    noText: ['skipFailed'],
    probe: async (name, { bus }) => bus.blockedKeys.release({ ...release, [name]: 1 }),
  },
  'bus.quarantine.list': reading(
    async (filter, { bus }) => bus.quarantine.list(filter),
    ['receiver', 'code', 'from', 'to', 'state', 'after'],
  ),
  'bus.quarantine.get': { texts: { id: async (text, { bus }) => bus.quarantine.get(text) } },
  'bus.quarantine.retry': quarantining(async (selection, options, { bus }) =>
    bus.quarantine.retry(selection, { ...me, ...options }),
  ),
  'bus.quarantine.discard': quarantining(async (selection, options, { bus }) =>
    bus.quarantine.discard(selection, { ...me, reason: 'why', ...options }),
  ),
  'bus.erase': reading(erase, ['tenantId', 'subject', 'by', 'reason'], []),
  'bus.erasures.list': reading(async (filter, { bus }) => bus.erasures.list(filter), ['tenantId']),
  'bus.operations.list': reading(
    async (filter, { bus }) => bus.operations.list({ limit: 10, ...filter }),
    ['kind', 'state', 'subscription', 'after'],
  ),
  'bus.operations.get': { texts: { id: async (text, { bus }) => bus.operations.get(text) } },
  'bus.operations.pause': steering('pause'),
  'bus.operations.resume': steering('resume'),
  'bus.operations.cancel': steering('cancel'),
  'bus.prune': reading(prune, ['by', 'reason', 'dryRun'], []),
  'bus.retention.state': { texts: {} },
  'bus.retention.setPartitionSpan': reading(
    // Partitions are months already: nothing has to wait for the locks of the log.
    async (option, { bus }) => bus.retention.setPartitionSpan({ span: 'month', ...me, ...option }),
    ['span', 'by', 'reason'],
    [],
  ),
  'bus.catalogue.list': { texts: {} },
  'bus.retention.archives': reading(async (filter, { bus }) => bus.retention.archives(filter), ['after']),
  'bus.retention.pendingErasures': { texts: {} },
  'bus.retention.rewriteArchives': { texts: {} },
  'bus.subscriptions.list': { texts: {} },
  'bus.subscriptions.get': { texts: { name: async (text, { bus }) => bus.subscriptions.get(text) } },
  'bus.subscriptions.pause': {
    texts: {
      name: async (text, { bus }) => bus.subscriptions.pause(text),
      ...each(['by', 'reason'], async (option, given) =>
        withSubscription(given, async (name) => given.bus.subscriptions.pause(name, option)),
      ),
    },
    probe: async (name, { bus }) => bus.subscriptions.pause(pausable, { [name]: 1 }),
  },
  'bus.subscriptions.resume': {
    texts: {
      name: async (text, { bus }) => bus.subscriptions.resume(text),
      ...each(['by', 'reason'], async (option, given) =>
        withSubscription(given, async (name) => {
          await given.bus.subscriptions.pause(name, me)
          await given.bus.subscriptions.resume(name, option)
        }),
      ),
    },
    probe: async (name, { bus }) => bus.subscriptions.resume(pausable, { [name]: 1 }),
  },
  'bus.subscriptions.setOptions': {
    texts: {
      name: async (text, { bus }) =>
        bus.subscriptions.setOptions(text, { concurrency: 2 }, { ...me, expiresInSeconds: 60 }),
      ...each(['concurrency', 'retry', 'paused'], async (option, given) => setOptions(option, {}, given)),
      'unknown option': async (text, given) => setOptions(named(text), {}, given),
      'retry.delays': inArray(async (delays, given) => setOptions({ retry: { delays } }, {}, given)),
      ...each(['by', 'reason', 'expiresInSeconds'], async (change, given) => setOptions({}, change, given)),
      expiresAt: async (text, given) =>
        setOptions({}, { expiresAt: text, expiresInSeconds: undefined }, given),
    },
    probe: async (name, given) => setOptions({}, { [name]: 1 }, given),
  },
  'bus.subscriptions.remove': {
    texts: {
      name: async (text, { bus }) => bus.subscriptions.remove(text, me),
      ...each(['by', 'reason', 'waiting', 'dryRun'], remove),
      'waiting.moveTo': async (text, given) => remove({ waiting: { moveTo: text } }, given),
      'unknown option of waiting': async (text, given) => remove({ waiting: named(text) }, given),
    },
    probe: async (name, { bus }) => bus.subscriptions.remove(pausable, { ...me, [name]: 1 }),
  },
  'bus.subscriptions.rename': {
    texts: {
      name: async (text, { bus }) => bus.subscriptions.rename(text, 'renamed', me),
      newName: async (text, given) => rename(text, {}, given),
      // The name is taken, which is noticed after these have been checked.
      ...each(['by', 'reason'], async (option, { bus }) =>
        bus.subscriptions.rename(pausable, failing, { ...me, ...option }),
      ),
    },
    probe: async (name, { bus }) => bus.subscriptions.rename(pausable, 'renamed', { ...me, [name]: 1 }),
  },
  'bus.replay': {
    texts: {
      ...each(['tenantId', 'type', 'from', 'to'], replaying),
      types: inArray(async (type, given) => replaying({ type }, given)),
      ids: inArray(async (ids, given) => replaying({ ids }, given)),
      ...each(['correlationId', 'subject'], async (option, given) =>
        replaying({ tenantId: 'acme', ...option }, given),
      ),
      subscriptions: inArray(async (subscriptions, given) => replay({ subscriptions }, given)),
      ...each(['by', 'reason', 'rate', 'dryRun'], replay),
    },
    probe: async (name, given) => replay({ [name]: 1 }, given),
  },
}
