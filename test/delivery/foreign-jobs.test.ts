import { expect, test } from 'vitest'
import { recordingLogger, testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { openBoss } from '../support/queues.ts'

test('jobs of others in a queue of the bus are cancelled and named, and keep none beside them waiting', async () => {
  const database = await createTestDatabase()
  const logger = recordingLogger()
  const bus = testBus(database.url, { logger })
  const seen: unknown[] = []
  bus.subscribe({ name: 'seen', events: ['note'], handler: ({ payload }) => void seen.push(payload) })
  await bus.start()
  await bus.subscriptions.pause('seen')
  const boss = await openBoss(database.url)
  const strange: (object | null)[] = [
    null,
    {},
    { eventIds: null },
    { eventIds: [] },
    { eventIds: ['no uuid'] },
    { eventIds: 'x' },
    { eventIds: [1] },
  ]
  for (const data of strange) await boss.send('bus.seen', data)
  await Promise.all(
    Array.from({ length: 20 }, async (_, payload) =>
      bus.tryPublish({ type: 'note', tenantId: 'a', payload }),
    ),
  )
  await bus.subscriptions.resume('seen')
  await until('all are delivered', () => seen.length === 20)
  await until(
    'the others are cancelled',
    async () =>
      (await database.count(
        `select count(*) from pgboss.job where name = 'bus.seen' and state = 'cancelled'`,
      )) === strange.length,
  )
  expect(logger.lines.filter(({ level }) => level === 'error').map(({ message }) => message)).toEqual(
    strange.map(() => 'a job is none of the bus: it is cancelled'),
  )
  expect(await bus.deadLetters.list()).toEqual([])
})
