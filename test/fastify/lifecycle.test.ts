import { spawn } from 'node:child_process'
import { once } from 'node:events'
import pg from 'pg'
import { describe, expect, onTestFinished, test } from 'vitest'
import { events } from '../../src/demo/events.ts'
import { bus as busPlugin } from '../../src/fastify/index.ts'
import { createBus } from '../../src/index.ts'
import { recordingLogger } from '../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { newBus, somePayment, testApp } from './app.ts'
import { locks } from '../../src/database/locks.ts'

const sessionsOfTheBus = `select count(*) from pg_stat_activity
  where datname = current_database() and application_name = 'bossbus'`

/** A bus of the test's own, with the events of the plugin. */
function ownBus(database: string): ReturnType<typeof createBus<typeof events>> {
  const bus = createBus({ database, events, source: 'payment-service', logger: recordingLogger() })
  onTestFinished(async () => bus.stop({ graceMs: 1000 }))
  return bus
}

/** Takes the lock that migrations wait for. @returns what lets it go again */
async function holdMigrations({ url }: TestDatabase): Promise<() => Promise<void>> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  await client.query(`select pg_advisory_lock(${locks.namespace}, ${locks.migrate})`)
  let ended: Promise<void> | undefined
  const release = async (): Promise<void> => (ended ??= client.end())
  onTestFinished(release)
  return release
}

test('the bus starts when the app is ready and stops when it closes', async () => {
  const { url, db, count } = await createTestDatabase()
  const app = testApp()
  await app.register(busPlugin, newBus(url))
  const handled: string[] = []
  app.bus.subscribe({ name: 'seen', events: ['payment.*'], handler: ({ id }) => void handled.push(id) })
  expect(app.bus.state).toBe('created')

  await app.ready()
  expect(app.bus.state).toBe('started')
  expect(await count(sessionsOfTheBus)).toBeGreaterThan(0)
  const { id } = await db.transaction(async (tx) => app.bus.publish(tx, somePayment()))
  await until('the handler ran', () => handled.length > 0)
  expect(handled).toEqual([id])

  await app.close()
  expect(app.bus.state).toBe('stopped')
  await until('no session is left', async () => (await count(sessionsOfTheBus)) === 0)
})

test('closing the app lets a running handler finish, with what was registered before the bus still open', async () => {
  const { url, db, count } = await createTestDatabase()
  const order: string[] = []
  const app = testApp()
  app.addHook('onClose', () => void order.push('database closed'))
  await app.register(busPlugin, newBus(url))
  const begun = Promise.withResolvers<void>()
  const mayFinish = Promise.withResolvers<void>()
  app.bus.subscribe({
    name: 'slow',
    events: ['payment.paid'],
    handler: async () => {
      begun.resolve()
      await mayFinish.promise
      order.push('handler finished')
    },
  })
  await app.ready()
  await db.transaction(async (tx) => app.bus.publish(tx, somePayment()))
  await begun.promise

  const closing = app.close()
  await until('the bus is stopping', () => app.bus.state === 'stopping')
  mayFinish.resolve()
  await closing
  expect(order).toEqual(['handler finished', 'database closed'])
  expect(await count('select count(*) from bus.deliveries')).toBe(1)
})

test('a handler that outlives graceMs is aborted, and its event goes back', async () => {
  const { url, db, count } = await createTestDatabase()
  const app = testApp()
  await app.register(busPlugin, newBus(url, { graceMs: 0 }))
  const begun = Promise.withResolvers<AbortSignal>()
  app.bus.subscribe({
    name: 'stuck',
    events: ['payment.paid'],
    handler: async (_, { signal }) => {
      begun.resolve(signal)
      await once(signal, 'abort')
      throw new Error('aborted')
    },
  })
  await app.ready()
  await db.transaction(async (tx) => app.bus.publish(tx, somePayment()))
  const signal = await begun.promise
  await app.close()
  expect(signal.aborted).toBe(true)
  expect(await count('select count(*) from bus.deliveries')).toBe(0)
  expect(await count(`select count(*) from pgboss.job where name = 'bus.stuck' and state < 'active'`)).toBe(1)
})

describe('a bus that does not come up', () => {
  test('makes ready() reject with its error and leaves no session', async () => {
    const { url, count } = await createTestDatabase({ empty: true })
    const app = testApp()
    await app.register(busPlugin, newBus(url))
    await expect(app.ready()).rejects.toMatchObject({ code: 'BUS_SCHEMA_MISSING' })
    expect(app.bus.state).toBe('stopped')
    await until('no session is left', async () => (await count(sessionsOfTheBus)) === 0)
  })

  test('comes up with migrate: true', async () => {
    const { url, count } = await createTestDatabase({ empty: true })
    const app = testApp()
    await app.register(busPlugin, newBus(url, { migrate: true }))
    await app.ready()
    expect(app.bus.state).toBe('started')
    expect(await count('select count(*) from bus.migrations')).toBeGreaterThan(0)
  })

  test('makes listen() reject with the error of a failing migration and does not listen', async () => {
    const { url, rows } = await createTestDatabase()
    await rows(`insert into bus.migrations (hash, created_at) values ('a later version', 9999999999999)`)
    const app = testApp()
    await app.register(busPlugin, newBus(url, { migrate: true }))
    await expect(app.listen({ port: 0 })).rejects.toMatchObject({ code: 'BUS_SCHEMA_TOO_NEW' })
    expect(app.bus.state).toBe('stopped')
    expect(app.server.listening).toBe(false)
  })

  test('says so itself, before Fastify gives the hook up', async () => {
    const database = await createTestDatabase()
    const release = await holdMigrations(database)
    const app = testApp({ pluginTimeout: 1000 })
    await app.register(busPlugin, newBus(database.url, { migrate: true }))
    await expect(app.ready()).rejects.toMatchObject({
      code: 'BUS_DATABASE_UNAVAILABLE',
      retryable: true,
      message: expect.stringContaining('pluginTimeout') as string,
    })
    await release()
    await until('the bus has stopped', () => app.bus.state === 'stopped')
    await until('no session is left', async () => (await database.count(sessionsOfTheBus)) === 0)
  })

  test('is waited for as long as it takes with pluginTimeout: 0', async () => {
    const database = await createTestDatabase()
    const release = await holdMigrations(database)
    const app = testApp({ pluginTimeout: 0 })
    await app.register(busPlugin, newBus(database.url, { migrate: true }))
    const ready = app.ready()
    await until('the bus has begun', async () => (await database.count(sessionsOfTheBus)) > 0)
    expect(app.bus.state).toBe('created')
    await release()
    await ready
    expect(app.bus.state).toBe('started')
  })

  test('does not keep the process alive', async () => {
    const plugin = new URL('../../src/fastify/index.ts', import.meta.url)
    const script = `
      import { fastify } from 'fastify'
      import { bus } from '${plugin.href}'
      const app = fastify()
      await app.register(bus, { database: process.argv[1], events: {}, source: 'test' })
      await app.ready().catch((error) => console.log(error.code))`
    const { url } = await createTestDatabase({ empty: true })
    const child = spawn(process.execPath, ['--input-type=module', '--eval', script, url])
    onTestFinished(() => void child.kill('SIGKILL'))
    let output = ''
    child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()))
    const [exitCode] = (await once(child, 'close')) as [number]
    expect({ output, exitCode }).toEqual({ output: 'BUS_SCHEMA_MISSING\n', exitCode: 0 })
  })
})

describe('a bus that was there before', () => {
  test('starts and stops with the app when it was not started', async () => {
    const { url } = await createTestDatabase()
    const bus = ownBus(url)
    const app = testApp()
    await app.register(busPlugin, { bus })
    expect(app.bus).toBe(bus)
    await app.ready()
    expect(bus.state).toBe('started')
    await app.close()
    expect(bus.state).toBe('stopped')
  })

  test('stays with whoever started it', async () => {
    const { url } = await createTestDatabase()
    const bus = ownBus(url)
    await bus.start()
    const app = testApp()
    await app.register(busPlugin, { bus })
    await app.ready()
    expect(app.bus).toBe(bus)
    await app.close()
    expect(bus.state).toBe('started')
  })

  test('is migrated when asked for', async () => {
    const { url, count } = await createTestDatabase({ empty: true })
    const app = testApp()
    await app.register(busPlugin, { bus: ownBus(url), migrate: true })
    await app.ready()
    expect(await count('select count(*) from bus.migrations')).toBeGreaterThan(0)
  })

  test('is refused when it was stopped', async () => {
    const { url } = await createTestDatabase()
    const bus = ownBus(url)
    await bus.stop()
    await expect(testApp().register(busPlugin, { bus })).rejects.toMatchObject({ code: 'BUS_INVALID_STATE' })
  })
})
