import { expect, test } from 'vitest'
import { recordingLogger, testBus, type PaymentBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'

const note = { type: 'note', tenantId: 'acme', payload: 1 } as const

function subscribed(bus: PaymentBus, seen: string[]): PaymentBus {
  for (const name of ['first', 'second'])
    bus.subscribe({ name, events: ['note'], handler: () => void seen.push(name) })
  return bus
}

test('a process runs the subscriptions it is told to, and leaves the others to others', async () => {
  const { url, db } = await createTestDatabase()
  const [here, there]: [string[], string[]] = [[], []]
  const bus = subscribed(testBus(url), here)
  const other = subscribed(testBus(url), there)
  await bus.start({ run: ['first'] })
  await other.start({ run: ['second'] })
  await db.transaction(async (tx) => bus.publish(tx, note))
  await until('both are delivered', () => here.length + there.length === 2)
  expect([here, there]).toEqual([['first'], ['second']])
  expect((await bus.health()).unservedSubscriptions).toEqual([])
})

test('a process that runs nothing publishes, is well, and delivers nothing', async () => {
  const { url, db, count } = await createTestDatabase()
  const seen: string[] = []
  const bus = subscribed(testBus(url), seen)
  await bus.start({ run: 'nothing' })
  expect(await bus.health()).toMatchObject({ ok: true, state: 'started', relay: 'stopped' })
  await db.transaction(async (tx) => bus.publish(tx, note))
  expect(await bus.tryPublish(note)).toMatchObject({ duplicate: false })
  expect(await count('select count(*) from bus.subscriptions')).toBe(0)
  expect(await count('select count(*) from bus.outbox')).toBe(2)
  const worker = subscribed(testBus(url), seen)
  await worker.start()
  await until('they are delivered elsewhere', () => seen.length === 4)
  await bus.stop()
  expect(await bus.health()).toMatchObject({ ok: false, state: 'stopped' })
})

test.each([
  [['frist'], /"frist".*Did you mean `first`/],
  [['nobody-at-all'], /Subscribed are: first, second/],
  [[], /an empty list/],
  ['all', /'everything', 'nothing'/],
  [null, /'everything', 'nothing'/],
  [[1], /'everything', 'nothing'/],
])('what it is to run is checked: %o', async (run, message) => {
  const bus = subscribed(testBus('postgres://nobody@127.0.0.1:1/none'), [])
  await expect(bus.start({ run } as never)).rejects.toMatchObject({
    code: 'BUS_INVALID_OPTION',
    message: expect.stringMatching(message) as string,
  })
  expect(bus.state).toBe('created')
  await expect(bus.start({ runs: 'nothing' } as never)).rejects.toMatchObject({ code: 'BUS_INVALID_OPTION' })
})

test('a subscription that this code does not declare, and nobody runs, is named at the start', async () => {
  const { url } = await createTestDatabase()
  const before = testBus(url)
  before.subscribe({ name: 'renamed', events: ['note'], handler: () => {} })
  await before.start()
  await before.stop()
  const elsewhere = testBus(url, { source: 'other-service' })
  elsewhere.subscribe({ name: 'not-ours', events: ['note'], handler: () => {} })
  await elsewhere.start()
  await elsewhere.stop()
  const logger = recordingLogger()
  const bus = subscribed(testBus(url, { logger }), [])
  await bus.start({ run: ['first'] })
  const warnings = () => logger.lines.filter(({ message }) => message.startsWith('no process runs'))
  await until('it is warned', () => warnings().length > 0)
  expect(warnings()).toMatchObject([
    { level: 'warn', fields: { service: 'payment-service', subscriptions: ['renamed'] } },
  ])
})
