import { PgBoss } from 'pg-boss'
import { expect, onTestFinished, test, vi } from 'vitest'
import { testBus } from '../../support/bus.ts'
import { createTestDatabase } from '../../support/database.ts'

const noop = (): void => {}

test('a name can be subscribed once in a bus, and by one service in a database', async () => {
  const { url, count } = await createTestDatabase()
  const first = testBus(url, { source: 'one' })
  first.subscribe({ name: 'shared', events: ['note'], handler: noop })
  expect(() => first.subscribe({ name: 'shared', events: ['note'], handler: noop })).toThrow(
    expect.objectContaining({ code: 'BUS_DUPLICATE_SUBSCRIPTION' }),
  )
  await first.start()
  const second = testBus(url, { source: 'two' })
  second.subscribe({ name: 'shared', events: ['note'], handler: noop })
  second.subscribe({ name: 'own', events: ['note'], handler: noop })
  await expect(second.start()).rejects.toMatchObject({ code: 'BUS_SUBSCRIPTION_TAKEN' })
  expect(await count('select count(*) from bus.subscriptions')).toBe(1)
  const sameService = testBus(url, { source: 'one' })
  sameService.subscribe({ name: 'shared', events: ['note'], handler: noop })
  await sameService.start()
  expect(await count('select count(*) from bus.subscriptions')).toBe(1)
})

test('ten processes that start at once register each subscription once', async () => {
  const { url, rows, count } = await createTestDatabase()
  const buses = Array.from({ length: 10 }, () => {
    const bus = testBus(url)
    for (const name of ['a', 'b', 'c']) bus.subscribe({ name, events: ['note'], handler: noop })
    return bus
  })
  await Promise.all(buses.map(async (bus) => bus.start()))
  expect((await rows('select name from bus.subscriptions order by name')).map(({ name }) => name)).toEqual([
    'a',
    'b',
    'c',
  ])
  expect(await count(`select count(*) from pgboss.queue where name like 'bus.%'`)).toBe(6)
})

test('registering again raises the revision only when something changed', async () => {
  const { url, rows } = await createTestDatabase()
  const register = async (where: string | undefined): Promise<unknown> => {
    const bus = testBus(url)
    bus.subscribe({ name: 'a', events: ['note'], where, handler: noop })
    await bus.start()
    await bus.stop()
    return (await rows('select revision, "where" from bus.subscriptions'))[0]
  }
  const first = await register(undefined)
  expect(await register(undefined)).toEqual(first)
  expect(await register('$ == 1')).toMatchObject({ where: '$ == 1' })
  expect(await register('$ == 1')).not.toEqual(first)
})

test('subscribing and starting after the stop are refused', async () => {
  const { url } = await createTestDatabase()
  const bus = testBus(url)
  await bus.start()
  await bus.start()
  expect(bus.state).toBe('started')
  await Promise.all([bus.stop(), bus.stop()])
  expect(bus.state).toBe('stopped')
  expect(() => bus.subscribe({ name: 'late', events: ['note'], handler: noop })).toThrow(
    expect.objectContaining({ code: 'BUS_INVALID_STATE' }),
  )
  await expect(bus.start()).rejects.toMatchObject({ code: 'BUS_INVALID_STATE' })
  await expect(bus.migrate()).rejects.toMatchObject({ code: 'BUS_INVALID_STATE' })
})

test('the tables of queues are vacuumed and analysed by what a queue needs, those of before from the next start on', async () => {
  const { url, rows } = await createTestDatabase()
  const start = async (): Promise<void> => {
    const bus = testBus(url)
    for (const name of ['a', 'b']) bus.subscribe({ name, events: ['note'], handler: noop })
    await bus.start()
    await bus.stop()
  }
  const settings = async (): Promise<unknown[]> =>
    (
      await rows(
        `select q.name, q.table_name, c.reloptions from pgboss.queue q join pg_class c on c.relname = q.table_name
         where q.name like 'bus.%' and q.partition order by 1`,
      )
    ).map(({ reloptions }) => reloptions)
  await start()
  const expected: unknown = expect.arrayContaining([
    'autovacuum_vacuum_scale_factor=0.02',
    'autovacuum_vacuum_threshold=1000',
    'autovacuum_analyze_threshold=500',
  ])
  expect(await settings()).toEqual([expected, expected])
  const [queue] = await rows(`select table_name from pgboss.queue where name = 'bus.b'`)
  await rows(
    `alter table pgboss.${String(queue?.['table_name'])} reset (autovacuum_vacuum_scale_factor, autovacuum_analyze_threshold)`,
  )
  expect(await settings()).not.toEqual([expected, expected])
  await start()
  expect(await settings()).toEqual([expected, expected])
})

test("pg-boss's own drift check stays clean beside the bus", async () => {
  const { url } = await createTestDatabase()
  const bus = testBus(url)
  bus.subscribe({ name: 'a', events: ['note'], handler: noop })
  await bus.start()
  const { openBoss } = await import('../../support/queues.ts')
  const report = await (await openBoss(url)).detectSchemaDrift()
  expect(report.ok).toBe(true)
})

test('a migration makes and changes the queues of its subscriptions, and starts pg-boss only to migrate it', async () => {
  const { url, rows } = await createTestDatabase()
  const start = vi.spyOn(PgBoss.prototype, 'start')
  onTestFinished(() => start.mockRestore())
  for (const maxAttempts of [3, 4]) {
    const bus = testBus(url)
    bus.subscribe({ name: 'a', events: ['note'], retry: { maxAttempts }, handler: noop })
    await bus.migrate()
    expect(
      await rows(`select name, retry_limit % 1000 as retries from pgboss.queue where name = 'bus.a'`),
    ).toEqual([{ name: 'bus.a', retries: maxAttempts - 1 }])
  }
  expect(start).toHaveBeenCalledTimes(2)
})
