import { expect, test } from 'vitest'
import { createTestDatabase, until } from '../support/database.ts'
import { startProgram } from '../support/processes.ts'

test('processes whose clocks are an hour off schedule, retry, order and store by the database’s clock', async () => {
  const database = await createTestDatabase()
  const processes = await Promise.all(
    [-3_600_000, 0, 3_600_000].map(async (shiftMs) =>
      startProgram('skewed-process.ts', database.url, String(shiftMs)),
    ),
  )
  await until(
    'everything is delivered',
    async () => (await database.count('select count(*) from bus.deliveries')) === 6,
    25_000,
  )
  const rows = await database.rows(`
    select e.payload #>> '{}' as payload, d.attempts, d.delivered_at >= coalesce(e.available_at, e.created_at) as in_time,
      abs(extract(epoch from clock_timestamp() - e.created_at)) < 60 as stored_now,
      -- The first 48 bits of the id are its time.
      abs(('x' || left(replace(e.id::text, '-', ''), 12))::bit(48)::bigint - extract(epoch from e.created_at) * 1000) < 60000 as id_now,
      extract(epoch from d.delivered_at - coalesce(e.available_at, e.created_at)) < 20 as soon
    from bus.events e join bus.deliveries d on d.event_id = e.id order by e.payload #>> '{}'`)
  expect(rows).toEqual(
    ['later -1', 'later 0', 'later 1', 'now -1', 'now 0', 'now 1'].map((payload) => ({
      payload,
      attempts: 2,
      in_time: true,
      stored_now: true,
      id_now: true,
      soon: true,
    })),
  )
  // Nobody was taken for dead, and nothing is done twice.
  expect(
    await database.count(`select count(*) from pgboss.job where name like 'bus.%' and state < 'completed'`),
  ).toBe(0)
  for (const { child, exited } of processes) {
    child.kill('SIGTERM')
    expect(await exited).toBe(0)
  }
})
