import { expect, test } from 'vitest'
import { recordingLogger, testBus } from '../../support/bus.ts'
import { createTestDatabase, until } from '../../support/database.ts'
import { openBoss } from '../../support/queues.ts'

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
    strange.map(() => 'a job does not belong to the bus: it is cancelled'),
  )
  expect(await bus.deadLetters.list()).toEqual([])
})

test('an event whose payload cannot be read is a dead letter, and keeps none beside it waiting', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const seen = { plain: 0, ordered: 0, once: 0 }
  const options = { events: ['note'], retry: { maxAttempts: 2, delaySeconds: 0, backoff: false } } as const
  bus.subscribe({ ...options, name: 'plain', handler: () => void (seen.plain += 1) })
  bus.subscribe({ ...options, name: 'ordered', ordered: true, handler: () => void (seen.ordered += 1) })
  bus.subscribe({ ...options, name: 'once', mode: 'exactly-once', handler: () => void (seen.once += 1) })
  // Deeper than publish takes, and with a key that the bus reads itself: more than a stack holds.
  const depth = 9500
  await database.rows(
    `insert into bus.events (tenant_id, type, source, payload)
     select 'a', 'note', 'sql', case g when 5 then $1::jsonb else to_jsonb(g) end from generate_series(1, 10) g`,
    [`{"\\"": ${'['.repeat(depth)}${']'.repeat(depth)}}`],
  )
  await bus.start()
  await until('the others are delivered', () => seen.plain === 9 && seen.ordered === 9 && seen.once === 9)
  await until('it is a dead letter of each', async () => (await bus.deadLetters.list()).length === 3)
  expect((await bus.deadLetters.list()).map(({ attempts }) => attempts)).toEqual([2, 2, 2])
})
