import { expect, test } from 'vitest'
import { recordingLogger, testBus, type PaymentBus } from '../../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'

async function publish({ rows }: TestDatabase, count: number): Promise<void> {
  const event = { type: 'note', source: 'payment-service', tenantId: 't', payload: 1 }
  await rows('select bus.publish($1::jsonb)', [JSON.stringify(Array.from({ length: count }, () => event))])
}

function start(database: TestDatabase, logger = recordingLogger()): { bus: PaymentBus; seen: () => number } {
  const bus = testBus(database.url, { logger })
  let seen = 0
  bus.subscribe({ name: 'notes', events: ['note'], handler: () => void (seen += 1) })
  return { bus, seen: () => seen }
}

test.each([
  ['truncated', 'truncate bus.subscriptions'],
  ['truncated, with its numbers', 'truncate bus.subscriptions restart identity'],
  ['emptied', 'delete from bus.subscriptions'],
  ['lost with all declarations', 'truncate bus.subscriptions, bus.declarations restart identity'],
  ['lost with all that says who runs', 'truncate bus.subscriptions, bus.declarations, bus.instances'],
])(
  'a registry that was %s is written again by the process that runs, and what is published meanwhile waits for it',
  async (_, lose) => {
    const database = await createTestDatabase()
    const logger = recordingLogger()
    const { bus, seen } = start(database, logger)
    await bus.start()
    await publish(database, 2)
    await until('they are handled', () => seen() === 2)
    const [{ id } = {}] = await database.rows('select id from bus.subscriptions')
    await database.rows(lose)
    await publish(database, 3)
    await until('those after it are handled', () => seen() === 5)
    expect(await database.rows('select id, name from bus.subscriptions')).toEqual([{ id, name: 'notes' }])
    await until(
      'all receipts are there, under the id of before',
      async () =>
        (await database.count('select count(*) from bus.deliveries where subscription_id = $1', [id])) === 5,
    )
    expect(
      logger.lines.filter(({ message }) => message.includes('its subscriptions were registered again')),
    ).toHaveLength(1)
    expect(await bus.health()).toMatchObject({ ok: true })
  },
)

test('a relay without subscriptions hands nothing over while the registry lacks those of another process', async () => {
  const database = await createTestDatabase()
  const { bus, seen } = start(database)
  await bus.start()
  const logger = recordingLogger()
  const other = testBus(database.url, { source: 'other', logger })
  await other.start()
  await database.rows('truncate bus.subscriptions')
  await publish(database, 1)
  await until('it is handled', () => seen() === 1)
  expect(await database.count('select count(*) from bus.outbox')).toBe(0)
})

test('a subscription that somebody removed while no process has it stays removed', async () => {
  const database = await createTestDatabase()
  const { bus } = start(database)
  await bus.start()
  await bus.stop()
  await database.rows('delete from bus.subscriptions')
  const other = testBus(database.url, { source: 'other' })
  await other.start()
  await publish(database, 1)
  await until(
    'it is out of the outbox',
    async () => (await database.count('select count(*) from bus.outbox')) === 0,
  )
  expect(await database.count('select count(*) from bus.subscriptions')).toBe(0)
})

test('a process says that it runs, what it declares and what its relay does, until it stops', async () => {
  const database = await createTestDatabase()
  const { bus } = start(database)
  await bus.start()
  const [row] = await database.rows(
    `select i.service, i.pid, i.version, i.relay, d.patterns, s.name
     from bus.instances i join bus.declarations d on d.id = any (i.declarations) join bus.subscriptions s on s.id = d.subscription_id`,
  )
  expect(row).toMatchObject({
    service: 'payment-service',
    pid: process.pid,
    patterns: ['note'],
    name: 'notes',
  })
  expect(await bus.subscriptions.list()).toMatchObject([
    { name: 'notes', instanceCount: 1, uncoveredSince: undefined },
  ])
  expect((await bus.health()).unservedSubscriptions).toEqual([])
  const other = testBus(database.url, { source: 'other' })
  await other.start()
  await bus.stop()
  expect(await other.subscriptions.list()).toMatchObject([{ name: 'notes', instanceCount: 0 }])
  expect((await other.health()).unservedSubscriptions).toEqual(['notes'])
  expect(await database.count('select count(*) from bus.instances')).toBe(1)
  expect(await database.count('select count(*) from bus.declarations where retired_at is null')).toBe(1)
})
