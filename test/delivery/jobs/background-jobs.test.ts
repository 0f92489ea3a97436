import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import { backgroundPriority } from '../../../src/delivery/jobs/job.ts'
import { countBackgroundEvents } from '../../../src/delivery/jobs/queue-state/background-jobs.ts'
import { testBus } from '../../support/bus.ts'
import { createTestDatabase } from '../../support/database.ts'
import { openBoss } from '../../support/queues.ts'

test('what was left to other code and stands last is not taken for a replay, and does not hold one up', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({ name: 'notes', events: ['note'], handler: () => {} })
  await bus.start()
  await bus.stop()
  const boss = await openBoss(database.url)
  const client = new pg.Client({ connectionString: database.url })
  await client.connect()
  onTestFinished(async () => client.end())
  const count = async (): Promise<number> =>
    countBackgroundEvents(client, { bossSchema: 'pgboss' }, 'bus.notes', 100)
  const priority = backgroundPriority
  await boss.insert('bus.notes', [
    { priority, data: { eventIds: ['a', 'b'] }, group: { id: 'left by 1' } },
    { priority: priority + 1, data: { eventIds: ['c'] } },
  ])
  expect(await count()).toBe(0)
  await boss.insert('bus.notes', [
    { priority, data: { eventIds: ['d', 'e', 'f'] } },
    { priority, data: { eventIds: ['g'], replay: {} }, group: { id: 'left by 1' } },
  ])
  expect(await count()).toBe(4)
})
