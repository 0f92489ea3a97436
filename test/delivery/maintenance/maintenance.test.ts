import type { PgBoss } from 'pg-boss'
import { afterEach, beforeEach, expect, onTestFinished, test, vi } from 'vitest'
import type { Database } from '../../../src/database/database.ts'
import { createMaintenance, type Maintenance } from '../../../src/delivery/maintenance/maintenance.ts'
import type { InstanceHeartbeat } from '../../../src/delivery/registry/instance-heartbeat.ts'
import type { Worker } from '../../../src/delivery/worker/worker-dependencies.ts'
import { recordingLogger } from '../../support/bus.ts'

beforeEach(() => void vi.useFakeTimers({ toFake: ['performance', 'setTimeout', 'clearTimeout'] }))
afterEach(() => void vi.useRealTimers())

const floor = '2026-01-01T00:00:00.000000Z'

interface Found {
  readonly name: string
  readonly ready: boolean
  readonly due_seconds: number | null
  readonly lapsed: boolean
  readonly ahead: boolean
  readonly waiting_floor: string
  readonly active_floor: string
}

/** What a look finds in a queue in which nothing is due. */
const foundNothing: Found = {
  ...{ name: 'bus.plain', ready: false, due_seconds: null, lapsed: false, ahead: false },
  ...{ waiting_floor: floor, active_floor: floor },
}

/** The polls into the queue of one subscription, with the clock and the answers in the test's hand. */
function watchQueue(): {
  readonly maintenance: Maintenance
  /** From where each look began, one after the other. */
  readonly polls: ('the first job' | 'the floor')[]
  readonly wakeCount: () => number
  readonly answer: (found?: Partial<Found>) => Promise<void>
} {
  const polls: ('the first job' | 'the floor')[] = []
  const answers: ((found: Found) => void)[] = []
  let wakeCount = 0
  const worker: Partial<Worker> = {
    ...{ name: 'plain', subscriptionId: 1, ordered: false },
    wake: () => void (wakeCount += 1),
    applyState: () => {},
  }
  const database = {
    bossSchema: 'pgboss',
    query: async (_text: string, [texts]: [readonly string[]]) => {
      polls.push(texts[0]?.includes(floor) === true ? 'the floor' : 'the first job')
      const found = await new Promise((resolve) => answers.push(resolve))
      const state = { paused: false, retry: {}, on_key_failure: null, probe_ms: null }
      return { rows: [{ found, ...state }] }
    },
  } as unknown as Database
  const maintenance = createMaintenance({
    ...{ database, boss: {} as PgBoss, logger: recordingLogger() },
    ...{ partitions: { keep: async () => true }, hasPartitions: true },
  })
  maintenance.watch(worker as Worker)
  maintenance.start({ leading: false, polling: false }, {
    maintain: async () => {},
  } as Partial<InstanceHeartbeat> as InstanceHeartbeat)
  onTestFinished(async () => {
    const stopped = maintenance.stop()
    for (const answer of answers) answer(foundNothing)
    await stopped
  })
  return {
    ...{ maintenance, polls, wakeCount: () => wakeCount },
    async answer(found = {}) {
      answers.shift()?.({ ...foundNothing, ...found })
      await vi.advanceTimersByTimeAsync(0)
    },
  }
}

test('a queue is looked into at the start, and then every five seconds', async () => {
  const { polls, answer } = watchQueue()
  await vi.advanceTimersByTimeAsync(0)
  expect(polls).toEqual(['the first job'])
  await answer()
  await vi.advanceTimersByTimeAsync(4999)
  expect(polls).toHaveLength(1)
  await vi.advanceTimersByTimeAsync(1)
  expect(polls).toEqual(['the first job', 'the floor'])
})

test('what is asked for while a look is under way is looked for when that is over, from the first job on', async () => {
  const { maintenance, polls, answer } = watchQueue()
  await vi.advanceTimersByTimeAsync(0)
  await answer()
  await vi.advanceTimersByTimeAsync(5000)
  expect(polls).toEqual(['the first job', 'the floor'])
  await vi.advanceTimersByTimeAsync(100)
  // The look has been taken already: what is put back now it does not see.
  maintenance.requestPoll('plain')
  await vi.advanceTimersByTimeAsync(0)
  expect(polls).toHaveLength(2)
  await answer()
  // Half of the time at most.
  await vi.advanceTimersByTimeAsync(100)
  expect(polls).toEqual(['the first job', 'the floor', 'the first job'])
})

test('what is asked for between two polls is looked for at once, from the first job on', async () => {
  const { maintenance, polls, answer, wakeCount } = watchQueue()
  await vi.advanceTimersByTimeAsync(0)
  await answer()
  await vi.advanceTimersByTimeAsync(1000)
  maintenance.requestPoll('another')
  await vi.advanceTimersByTimeAsync(0)
  expect(polls).toHaveLength(1)
  maintenance.requestPoll('plain')
  await vi.advanceTimersByTimeAsync(0)
  expect(polls).toEqual(['the first job', 'the first job'])
  expect(wakeCount()).toBe(0)
  await answer({ ready: true })
  expect(wakeCount()).toBe(1)
})

test('what is due is looked for when it is due', async () => {
  const { polls, answer } = watchQueue()
  await vi.advanceTimersByTimeAsync(0)
  await answer({ due_seconds: 1.5 })
  await vi.advanceTimersByTimeAsync(1504)
  expect(polls).toHaveLength(1)
  await vi.advanceTimersByTimeAsync(1)
  expect(polls).toHaveLength(2)
})
