import { expect, test } from 'vitest'
import { createDatabase } from '../../../src/database/database.ts'
import { findDueQueues } from '../../../src/delivery/maintenance/due-queues.ts'
import { recordingLogger } from '../../support/bus.ts'
import { createTestDatabase } from '../../support/database.ts'

test('queues with retries that are due, and those of silent processes, are found by index', async () => {
  const { url, rows } = await createTestDatabase()
  await rows(`
    insert into bus.failing (subscription_id, event_id, state, attempts, job_id, next_attempt_at)
    select s, bus.uuid_v7(), state, 1, gen_random_uuid(), now() + due * interval '1 second'
    from (values (1, 'retrying', -1), (2, 'retrying', 1), (3, 'retrying', 60), (4, 'dead', -1), (5, 'retrying', -3600)) v (s, state, due)`)
  await rows(`
    insert into bus.declarations (id, subscription_id, hash, patterns, options) overriding system value
    select n, n, 'h', '{note}', '{}' from generate_series(6, 8) n`)
  await rows(`
    insert into bus.instances (id, service, host, pid, version, seen_at, relay, declarations)
    select gen_random_uuid(), 's', 'h', 1, '0', now() - silent * interval '1 second', 'asleep', array[d]
    from (values (6, 60), (7, 5), (8, 600)) v (d, silent)`)
  const database = createDatabase(url, recordingLogger())
  const all = [1, 2, 3, 4, 5, 6, 7, 8]
  const found = await findDueQueues(database, all, 1000)
  expect(found.map(({ subscriptionId }) => subscriptionId).toSorted((a, b) => a - b)).toEqual([1, 2, 6])
  const due = Object.fromEntries(found.map(({ subscriptionId, dueMs }) => [subscriptionId, dueMs]))
  expect(due).toMatchObject({ 1: 0, 6: 0 })
  expect(due[2]).toBeGreaterThan(0)
  expect(due[2]).toBeLessThanOrEqual(1000)
  expect(await findDueQueues(database, [7, 8], 1000)).toEqual([])
  await database.close()
})
