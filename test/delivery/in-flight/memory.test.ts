// @module-tag slow
import { expect, test } from 'vitest'
import { createTestDatabase, until } from '../../support/database.ts'
import { startProgram } from '../../support/processes.ts'

/** A process that has loaded everything takes a fifth of a gigabyte before it does anything. */
const limitMb = 450

/** Delivers a backlog to three subscriptions in a process of its own. Gives the most memory it took, in MB. */
async function drain(eventCount: number, payloadLength: number): Promise<number> {
  const { url, rows, count } = await createTestDatabase()
  // Registers the subscriptions, so that they get what comes.
  const before = await startProgram('draining-process.ts', url)
  before.child.kill('SIGTERM')
  await before.exited
  await rows(
    `insert into bus.events (tenant_id, type, source, payload)
     select 't' || i % 7, 'note', 'sql', to_jsonb(i || repeat('x', $2::int)) from generate_series(1, $1::int) i`,
    [eventCount, payloadLength],
  )
  const program = await startProgram('draining-process.ts', url)
  await until(
    'everything is delivered',
    async () => (await count('select count(*) from bus.deliveries')) === eventCount * 3,
  )
  program.child.kill('SIGTERM')
  expect(await program.exited).toBe(0)
  return Number(/MB (\d+)/.exec(program.output.join('\n'))?.[1])
}

test('a backlog of many events takes no more memory than a part of it', async () => {
  expect(await drain(60_000, 200)).toBeLessThan(limitMb)
})

test('a backlog of 400 MB in large payloads takes no more memory than a part of it', async () => {
  expect(await drain(2000, 200_000)).toBeLessThan(limitMb)
})
