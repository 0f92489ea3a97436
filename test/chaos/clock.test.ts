import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { createTestDatabase, until } from '../support/database.ts'
import { recordFigure } from '../support/figures.ts'
import { checkOrder, readOrder } from '../support/order-history.ts'
import { startProgram } from '../support/processes.ts'

test('processes whose clocks are an hour off schedule, retry, order and store by the database’s clock', async () => {
  const database = await createTestDatabase()
  const folder = await mkdtemp(join(tmpdir(), 'bossbus-clock-'))
  onTestFinished(async () => rm(folder, { recursive: true, force: true }))
  const partitions = async (): Promise<unknown> =>
    database.rows(
      "select inhrelid::regclass::text as name from pg_inherits where inhparent in ('bus.events'::regclass, 'bus.deliveries'::regclass) order by 1",
    )
  const partitionsBefore = await partitions()
  const processes = await Promise.all(
    [-3_600_000, 0, 3_600_000].map(async (shiftMs) =>
      startProgram('skewed-process.ts', database.url, String(shiftMs), join(folder, String(shiftMs))),
    ),
  )
  await until(
    'everything is delivered',
    async () => (await database.count('select count(*) from bus.deliveries')) === 6 + 15,
  )
  const rows = await database.rows(`
    select e.payload #>> '{}' as payload, d.attempts, d.delivered_at >= coalesce(e.available_at, e.created_at) as in_time,
      abs(extract(epoch from clock_timestamp() - e.created_at)) < 60 as stored_now,
      -- The first 48 bits of the id are its time.
      abs(('x' || left(replace(e.id::text, '-', ''), 12))::bit(48)::bigint - extract(epoch from e.created_at) * 1000) < 60000 as id_now,
      extract(epoch from d.delivered_at - coalesce(e.available_at, e.created_at)) < 20 as soon
    from bus.events e join bus.deliveries d on d.event_id = e.id where e.type = 'note' order by e.payload #>> '{}'`)
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
  const turns = (
    await Promise.all((await readdir(folder)).map(async (file) => readFile(join(folder, file), 'utf8')))
  ).flatMap(readOrder)
  const findings = checkOrder(turns, ['key-1', 'key0', 'key1'], 5)
  expect(findings).toEqual({ outOfOrder: 0, atOnce: 0, doubled: 0, missing: 0, failedAttempts: 15 })
  // What is made ahead, and what pg-boss keeps how long, follows the database's clock.
  expect(await partitions()).toEqual(partitionsBefore)
  const kept = await database.count(
    `select count(*) from pgboss.job where name like 'bus.%' and keep_until < now() + interval '50 years'`,
  )
  expect(kept).toBe(0)
  recordFigure(
    'clock of the process wrong by 1 h (three processes: -1 h, 0, +1 h)',
    `${rows.length} of 6 events in time, order violations ${findings.outOfOrder + findings.atOnce}, jobs kept too short ${kept}`,
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
