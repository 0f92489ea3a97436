import { onTestFinished } from 'vitest'
import { z } from 'zod'
import { createBus, defineEvents, type BusOptions } from '../../src/index.ts'
import { recordingLogger } from './bus.ts'
import { createTestDatabase, until, type TestDatabase } from './database.ts'

/** Names that could break a text format. */
export const hostileType = 'it\'s "a\\b" {c="d"} 1\u200B'
const hostileTenant = 'acme"} 1\n# HELP x\n\\'
export const hostileService = 'pay "service" {a="b"} \\'

export const busyEvents = defineEvents({
  note: { schema: z.unknown() },
  '注文.🎉': { schema: z.unknown() },
  [hostileType]: { schema: z.unknown() },
  'work.long': { schema: z.unknown() },
})

/** Whose name and code are a text of somebody. */
class HostileError extends Error {
  override readonly name = 'E"}\n1'
  readonly code = 'a"\\\n'
}

function createBusyBus(url: string, metrics: BusOptions<typeof busyEvents>['metrics']) {
  const bus = createBus({
    ...{ database: url, events: busyEvents, source: hostileService, logger: recordingLogger() },
    ...{ metrics, canary: true },
  })
  onTestFinished(async () => bus.stop({ graceMs: 1000 }))
  return bus
}

/**
 * A bus that has delivered, failed, retries, blocks a key, runs, is paused, has an open circuit breaker, has redriven a dead letter, and has
 * seen names of all kinds.
 */
export async function startBusyBus(
  metrics?: BusOptions<typeof busyEvents>['metrics'],
): Promise<{ readonly bus: ReturnType<typeof createBusyBus>; readonly database: TestDatabase }> {
  const database = await createTestDatabase()
  const bus = createBusyBus(database.url, metrics)
  const failing = (error: Error) => () => {
    throw error
  }
  const short = { maxAttempts: 1 }
  const names = ['note', '注文.🎉', hostileType] as const
  bus.subscribe({ name: 'open-case', events: ['**'], handler: () => {} })
  bus.subscribe({
    ...{ name: 'dead', events: [hostileType], retry: short, circuitBreaker: false },
    handler: failing(new HostileError('gone')),
  })
  bus.subscribe({
    ...{ name: 'retried', events: ['note'], retry: { delaySeconds: 600 } },
    handler: failing(new TypeError('no answer')),
  })
  bus.subscribe({
    ...{ name: 'in-order', events: ['note'], ordered: true, retry: short, circuitBreaker: false },
    handler: failing(new Error('stuck')),
  })
  bus.subscribe({
    ...{ name: 'halted', events: [...names], circuitBreaker: { windowSize: 5 }, retry: { delaySeconds: 0 } },
    handler: failing(new Error('always')),
  })
  bus.subscribe({ name: 'paused', events: ['note'], handler: () => {} })
  bus.subscribe({
    ...{ name: 'slow', events: ['work.long'] },
    handler: async (_event, { signal }) =>
      new Promise((resolve) => signal.addEventListener('abort', resolve)),
  })
  await bus.start()
  await bus.subscriptions.pause('paused')
  const publish = async (...events: readonly object[]): Promise<void> => {
    await database.db.transaction(async (tx) => bus.publishMany(tx, events as never))
  }
  const note = { type: 'note', tenantId: 'acme', payload: 1 }
  await publish(
    { ...note, orderingKey: 'k' },
    { ...note, orderingKey: 'k', tenantId: hostileTenant },
    { ...note, orderingKey: 'k' },
    { ...note, availableIn: { seconds: 3600 } },
    { ...note, type: '注文.🎉', tenantId: 'rival' },
    { ...note, type: hostileType, tenantId: 'rival' },
    { ...note, type: hostileType, tenantId: hostileTenant },
  )
  // By plain SQL, of a type that no catalogue has.
  await database.rows(
    `insert into bus.events (tenant_id, type, source, payload) values ('acme', 'other "type"', 'sql', '1')`,
  )
  const dead = `select count(*) from bus.failing where state <> 'retrying'`
  await until('some are dead', async () => (await database.count(dead)) === 4)
  await until('the circuit is open', async () =>
    (await bus.subscriptions.list()).some(({ name, circuit }) => name === 'halted' && circuit !== undefined),
  )
  // It stops by itself, because its probes fail again.
  const { id } = await bus.deadLetters.redrive({ subscription: 'dead' }, { by: 'tests', probe: 1 })
  await until('the redrive has stopped', async () => (await bus.operations.get(id))?.state === 'stopped')
  await bus.canary()
  await publish({ ...note, type: 'work.long' })
  await until('one runs', async () => (await bus.queries.active({ subscription: 'slow' })).length === 1)
  return { bus, database }
}
