// @module-tag slow
import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import { startOwnPostgres } from '../../../src/testing/postgres.ts'
import { recordingLogger, testBus, type PaymentBus } from '../../support/bus.ts'
import { until } from '../../support/database.ts'
import { isFullForm } from '../../support/form.ts'
import { takeAndDie } from '../../support/queues.ts'

/**
 * A server with room for some 700 locks: it takes what is left of its shared memory for more, so that this is small. One statement over all of
 * these queues would take 12 for each.
 */
const settings = [
  ...['max_locks_per_transaction=10', 'max_connections=30', 'autovacuum_worker_slots=3', 'max_wal_senders=0'],
  ...['shared_buffers=1MB', 'fsync=off', 'full_page_writes=off'],
]
const subscriptionCount = isFullForm ? 150 : 100

async function waiting(bus: PaymentBus): Promise<readonly unknown[]> {
  const infos = await bus.subscriptions.list()
  expect(infos).toHaveLength(subscriptionCount)
  return infos
    .filter(({ waitingCount }) => waitingCount > 0)
    .map(({ name, waitingCount }) => ({ name, waitingCount }))
}

test('a server with room for few locks carries many subscriptions: every read, look and claim', async () => {
  const server = await startOwnPostgres(settings)
  const client = new pg.Client({ connectionString: server.url })
  await client.connect()
  onTestFinished(async () => {
    await client.end()
    await server.stop()
  })
  const logger = recordingLogger()
  const bus = testBus({ connectionString: server.url, max: 5 }, { logger })
  const turns = new Map<string, string[]>()
  const late: string[] = []
  let deliveredCount = 0
  let failing = true
  for (let n = 0; n < subscriptionCount; n += 1) {
    const name = `sub-${n}`
    // In order, the last of them too: what is left in the outbox for it must not be overtaken.
    const ordered = n % 25 === 24
    bus.subscribe({
      ...{ name, events: ['note', 'payment.paid'], ordered, retry: { maxAttempts: 1 } },
      handler: (event) => {
        if (n === 0 && failing && event.type === 'payment.paid') throw new Error('refused')
        deliveredCount += 1
        if (event.payload === 'late') late.push(name)
        if (event.orderingKey !== undefined)
          turns.set(name, [...(turns.get(name) ?? []), String(event.payload)])
      },
    })
  }
  await bus.migrate()
  await bus.start()

  // More want each event than one claim serves.
  const ids: string[] = []
  for (let n = 0; n < 4; n += 1) {
    const event = { type: 'note', tenantId: 'acme', orderingKey: 'k', payload: `turn ${n}` } as const
    ids.push((await bus.tryPublish(event))?.id ?? '')
  }
  await until('all have got everything', () => deliveredCount === 4 * subscriptionCount)
  for (let n = 24; n < subscriptionCount; n += 25)
    expect(turns.get(`sub-${n}`)).toEqual(['turn 0', 'turn 1', 'turn 2', 'turn 3'])
  expect((await client.query('select from bus.outbox')).rowCount).toBe(0)
  await until(
    'every receipt is written',
    async () =>
      (await bus.deliveries(ids[0] ?? '')).filter(({ state }) => state === 'delivered').length ===
      subscriptionCount,
  )

  // One fails for good.
  const paid = {
    type: 'payment.paid',
    tenantId: 'acme',
    payload: { paymentId: '1', amountCents: 1 },
  } as const
  const id = (await bus.tryPublish(paid))?.id ?? ''
  await until('it is a dead letter', async () => (await bus.deadLetters.list()).length === 1)
  failing = false
  await until('the others have it', async () => (await bus.deliveries(id)).length === subscriptionCount)
  const acme = bus.tenant('acme')
  expect(await acme.deliveries(id)).toHaveLength(subscriptionCount)
  expect(await acme.deadLetters.list()).toMatchObject([{ subscription: 'sub-0', id, attempts: 1 }])
  expect((await acme.stats()).deliveries).toHaveLength(subscriptionCount)
  expect(await bus.blockedKeys.list()).toEqual([])
  expect((await bus.health()).ok).toBe(true)

  // What waits is counted, and what a dead worker had in hand is found.
  await bus.subscriptions.pause('sub-7')
  await bus.tryPublish({ type: 'note', tenantId: 'acme', subject: 'customers/7', payload: 'late' })
  // The others are settled a moment after their handlers.
  await until(
    'the others have it, and one waits',
    async () => late.length === subscriptionCount - 1 && (await waiting(bus)).length === 1,
  )
  expect(await waiting(bus)).toEqual([{ name: 'sub-7', waitingCount: 1 }])
  expect(await takeAndDie(server.url, 'bus.sub-7')).toHaveLength(1)
  await bus.subscriptions.resume('sub-7')
  await until('it runs again', () => late.includes('sub-7'))
  await until('the others have it', () => late.length === subscriptionCount)
  expect(await bus.erase({ tenantId: 'acme', subject: 'customers/7', by: 'tests' })).toMatchObject({
    eventCount: 1,
  })

  expect(logger.lines.filter(({ level }) => level === 'warn' || level === 'error')).toMatchObject([
    { message: 'an attempt to handle an event failed' },
    { message: 'an event went to the dead letters' },
  ])
})
