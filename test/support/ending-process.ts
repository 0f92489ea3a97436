/**
 * A script that uses a bus and is done: `node ending-process.ts URL SCENE`. It prints what keeps its event loop alive when the scene is
 * over, and how many milliseconds later it ended by itself.
 */
import { createServer, type Server } from 'node:net'
import { setImmediate as turn, setTimeout as pause } from 'node:timers/promises'
import { sql } from 'drizzle-orm'
import { createBus, type BusOptions } from '../../src/index.ts'
import { paymentEvents } from './catalogue.ts'

const [, , url = '', scene = ''] = process.argv
type Options = BusOptions<typeof paymentEvents>
const silent = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }

const busOn = (database: Options['database']) =>
  createBus({ database, events: paymentEvents, source: 'payment-service', logger: silent })
type PaymentBus = ReturnType<typeof busOn>

const note = (payload = 'n') => ({ type: 'note', tenantId: 'a', payload }) as const
const never = async (): Promise<void> => new Promise(() => {})

/** Has a handler begin, then stops the bus as a process does that was told to end. */
async function stopWhileItRuns(bus: PaymentBus, begun: () => boolean, eventCount = 1): Promise<void> {
  for (let n = 0; n < eventCount; n += 1) await bus.tryPublish(note(String(n)))
  await bus.start()
  while (!begun()) await pause(10)
  await bus.stop({ graceMs: 100 })
}

/** A server that takes connections and says nothing. It is no reason for this process to go on. */
async function listenSilently(): Promise<Server> {
  const server = createServer((socket) => void socket.on('error', () => {}).unref())
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return server.unref()
}

async function stopWhileItStarts(bus: PaymentBus): Promise<void> {
  bus.subscribe({ name: 'any', events: ['note'], handler: () => {} })
  const starting = bus.start().catch(() => {})
  void bus.tryPublish(note())
  void bus.health()
  await pause(200)
  await bus.stop({ graceMs: 0 })
  await starting
}

const portOf = (server: Server): number => (server.address() as { port: number }).port

const scenes: Readonly<Record<string, () => Promise<unknown>>> = {
  migrate: async () => busOn(url).migrate(),
  async publishes() {
    const bus = busOn(url)
    await Promise.all([1, 2, 3].map(async (n) => bus.tryPublish(note(String(n)))))
  },
  async reads() {
    const bus = busOn(url)
    await Promise.all([bus.health(), bus.events.find({}), bus.tenant('a').events.find({})])
    await Promise.all([bus.deadLetters.list(), bus.blockedKeys.list(), bus.subscriptions.list()])
    await bus.erasures.list()
  },
  async 'publishes over several hosts, one of them silent'() {
    const server = await listenSilently()
    const several = new URL(url)
    const [, credentials = ''] = /^postgres(?:ql)?:\/\/([^@]*@)/.exec(url) ?? []
    const hosts = `${several.hostname}:${several.port || 5432},127.0.0.1:${portOf(server)}`
    await busOn(`postgres://${credentials}${hosts}${several.pathname}`).tryPublish(note())
  },
  async 'a handler'() {
    let count = 0
    const bus = busOn(url)
    const handler = async (): Promise<void> => ((count += 1), never())
    bus.subscribe({ name: 'p', events: ['note'], timeoutSeconds: 20, handler })
    await stopWhileItRuns(bus, () => count > 0)
  },
  async 'an ordered handler'() {
    let count = 0
    const bus = busOn(url)
    const handler = async (): Promise<void> => ((count += 1), never())
    bus.subscribe({ name: 'p', events: ['note'], ordered: true, timeoutSeconds: 20, handler })
    await stopWhileItRuns(bus, () => count > 0)
  },
  async 'an exactly-once handler'() {
    let count = 0
    const bus = busOn(url)
    const handler = async (): Promise<void> => ((count += 1), never())
    bus.subscribe({ name: 'p', events: ['note'], mode: 'exactly-once', timeoutSeconds: 20, handler })
    await stopWhileItRuns(bus, () => count > 0)
  },
  async 'an exactly-once handler, with events of its tenant behind it'() {
    let count = 0
    const bus = busOn(url)
    const handler = async (): Promise<void> => ((count += 1), never())
    bus.subscribe({
      ...{ name: 'p', events: ['note'], mode: 'exactly-once', timeoutSeconds: 20, handler },
      ...{ tenantConcurrency: 1, concurrency: 4, batchSize: 4 },
    })
    await stopWhileItRuns(bus, () => count > 0, 8)
  },
  async 'an exactly-once handler that does not await a statement'() {
    let count = 0
    const bus = busOn(url)
    bus.subscribe({
      ...{ name: 'p', events: ['note'], mode: 'exactly-once', timeoutSeconds: 20 },
      handler: async (_event, { tx }) => {
        count += 1
        void tx.execute(sql`select pg_sleep(20)`).then(
          () => {},
          () => {},
        )
      },
    })
    await stopWhileItRuns(bus, () => count > 0)
  },
  async 'a handler that has timed out'() {
    let aborted = false
    const bus = busOn(url)
    const handler = async (_event: unknown, { signal }: { readonly signal: AbortSignal }): Promise<void> => {
      signal.addEventListener('abort', () => (aborted = true))
      return never()
    }
    bus.subscribe({ name: 'p', events: ['note'], ordered: true, timeoutSeconds: 1, handler })
    await stopWhileItRuns(bus, () => aborted)
  },
  async 'a circuit breaker that is open'() {
    const bus = busOn(url)
    bus.subscribe({
      ...{ name: 'p', events: ['note'], batchSize: 1, retry: { maxAttempts: 1 } },
      circuitBreaker: { windowSize: 5 },
      handler: () => {
        throw new Error('always')
      },
    })
    await bus.start()
    for (let n = 0; n < 30; n += 1) await bus.tryPublish(note())
    const isOpen = async (): Promise<boolean> => (await bus.subscriptions.list())[0]?.state !== 'active'
    for (let n = 0; n < 500 && !(await isOpen()); n += 1) await pause(20)
    await bus.stop({ graceMs: 100 })
  },
  async 'a server that says nothing'() {
    const server = await listenSilently()
    await stopWhileItStarts(busOn(`postgres://u@127.0.0.1:${portOf(server)}/d`))
  },
  async 'several hosts that say nothing'() {
    const ports = await Promise.all([listenSilently(), listenSilently()])
    const hosts = ports.map((server) => `127.0.0.1:${portOf(server)}`).join(',')
    await stopWhileItStarts(busOn(`postgres://u@${hosts}/d`))
  },
  'a function that does not answer': async () =>
    stopWhileItStarts(busOn(async () => new Promise<string>(() => {}))),
  async 'a subject that is being erased'() {
    const bus = busOn(url)
    await bus.tryPublish({ ...note(), subject: 's' })
    void bus.erase({ tenantId: 'a', subject: 's', by: 'me' }).catch(() => {})
    while ((await bus.erasures.list()).length === 0) await pause(10)
    await pause(200)
    await bus.stop({ graceMs: 0 })
  },
}

await scenes[scene]?.()
const doneAt = performance.now()
const findAlive = (): string[] =>
  process
    .getActiveResourcesInfo()
    .filter((resource) => !['PipeWrap', 'TTYWrap', 'FSReqCallback', 'Immediate'].includes(resource))
// What is destroyed is closed in the turns that follow, and the files of the migrations, if they are being read, are read to their end.
for (let n = 0; n < 10 || (n < 10_000 && findAlive().length > 0); n += 1) await turn()
const keptAliveBy = findAlive()
process.on('exit', () => {
  console.log(JSON.stringify({ keptAliveBy, endedAfterMs: Math.round(performance.now() - doneAt) }))
})
