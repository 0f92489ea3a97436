import { expect, test } from 'vitest'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'

test('what the dashboard of pg-boss reads is counted within seconds of the start, and kept as a trend', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({ name: 'seen', events: ['note'], handler: () => {} })
  await bus.start()
  await bus.subscriptions.pause('seen')
  for (const payload of [1, 2, 3]) await bus.tryPublish({ type: 'note', tenantId: 'acme', payload })
  await until('they wait', async () => (await database.count('select count(*) from bus.outbox')) === 0)
  const waiting = await database.count(`select count(*) from pgboss.job where name = 'bus.seen'`)
  expect(waiting).toBeGreaterThan(0)
  await until(
    'they are counted',
    async () =>
      (await database.count(`select queued_count from pgboss.queue where name = 'bus.seen'`)) === waiting,
  )
  expect(
    await database.rows(
      `select distinct queued_count, active_count from pgboss.queue_stats where name = 'bus.seen'`,
    ),
  ).toEqual([{ queued_count: waiting, active_count: 0 }])
})
