import { expect, test } from 'vitest'
import { createTestDatabase } from '../support/database.ts'
import { runProgram } from '../support/processes.ts'

/** Much less than any time that something of the bus takes: 10 s of an idle connection, 20 s of a handler. */
const longestMs = 900

const timeout = 60_000

async function endOf(scene: string): Promise<unknown> {
  const { url } = await createTestDatabase()
  const { output, exitCode } = await runProgram('ending-process.ts', url, scene)
  expect([exitCode, output.length]).toEqual([0, 1])
  return JSON.parse(output[0] ?? '')
}

const byItself = {
  keptAliveBy: [],
  endedAfterMs: expect.toSatisfy((ms: number) => ms < longestMs) as number,
}

test.each(['migrate', 'publishes', 'reads', 'publishes over several hosts, one of them silent'])(
  'a script that never starts its bus (%s) ends when it is done, without a stop',
  { timeout },
  async (scene) => {
    expect(await endOf(scene)).toEqual(byItself)
  },
)

test.each([
  'a handler',
  'an ordered handler',
  'an exactly-once handler',
  'an exactly-once handler, with events of its tenant behind it',
  'an exactly-once handler that does not await a statement',
  'a handler that has timed out',
  'a circuit breaker that is open',
  'a subject that is being erased',
])('once stop has resolved, nothing of the bus keeps the process alive: %s', { timeout }, async (scene) => {
  expect(await endOf(scene)).toEqual(byItself)
})

test.each([
  'a server that says nothing',
  'several hosts that say nothing',
  'a function that does not answer',
])(
  'once a stop of a bus that was starting has resolved, nothing keeps the process alive: %s',
  { timeout },
  async (scene) => {
    expect(await endOf(scene)).toEqual(byItself)
  },
)
