import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import { judgeProbes } from '../../../src/operations/dead-letters/probes.ts'
import { createTestDatabase } from '../../support/database.ts'

const [first, second] = [
  '01912345-6789-7abc-8def-000000000001',
  '01912345-6789-7abc-8def-000000000002',
] as const

test('probes whose subscription was removed are not waited for, and say nothing about the others', async () => {
  const database = await createTestDatabase()
  const client = new pg.Client({ connectionString: database.url })
  await client.connect()
  onTestFinished(async () => client.end())
  await database.rows(
    `insert into bus.subscriptions (name, service, patterns, options) values ('stays', 's', '{}', '{}')`,
  )
  const [{ id } = {}] = await database.rows('select id from bus.subscriptions')
  const stays = { subscriptionId: Number(id), eventId: first, attempts: 0 }
  const gone = { subscriptionId: 999, eventId: second, attempts: 0 }
  expect(await judgeProbes(client, [gone])).toBe('removed')
  expect(await judgeProbes(client, [{ ...gone, attempts: 3 }])).toBe('removed')
  expect(await judgeProbes(client, [stays, gone])).toBe('pending')
  await database.rows(
    `insert into bus.failing (subscription_id, event_id, state, attempts, job_id, error_name)
     values ($1, $2, 'dead', 3, gen_random_uuid(), 'TypeError')`,
    [id, first],
  )
  expect(await judgeProbes(client, [stays, gone])).toMatchObject({
    reason: expect.stringContaining('The first 1 of them failed again, in `stays` with TypeError') as string,
  })
  // One that was delivered before its subscription was removed has shown that it helps.
  await database.rows(
    'insert into bus.receipts (subscription_id, event_id, attempts, duration_ms, expired) values (999, $1, 4, 1, false)',
    [second],
  )
  expect(await judgeProbes(client, [stays, gone])).toBe('succeeded')
})
