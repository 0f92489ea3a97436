import { expect, test } from 'vitest'
import {
  createHandlerSlots,
  planFetch,
  type AttemptKind,
  type HandlerSlots,
} from '../../../src/delivery/concurrency/handler-slots.ts'

/** Events that wait for a slot; what is begun, in order, is written down. */
function open(slotCount: number) {
  let kept = 0
  const slots = createHandlerSlots(
    () => slotCount,
    () => (kept += 1),
  )
  const begun: AttemptKind[] = []
  return {
    slots,
    begun,
    kept: () => kept,
    count: (kind: AttemptKind): number => begun.filter((one) => one === kind).length,
    come: async (kind: AttemptKind, count = 1): Promise<void> => {
      for (let i = 0; i < count; i += 1) void slots.of[kind].acquire().then(() => begun.push(kind))
      await Promise.resolve()
    },
    end: async (kind: AttemptKind): Promise<void> => {
      slots.of[kind].release()
      await new Promise((resolve) => setImmediate(resolve))
    },
  }
}

const other = (kind: AttemptKind): AttemptKind => (kind === 'first' ? 'retry' : 'first')

test.each(['first', 'retry'] as const)(
  'a kind takes every slot while nothing of the other waits: %s',
  async (kind) => {
    const { slots, begun, come } = open(3)
    slots.expect('first', false)
    await come(kind, 4)
    expect(begun).toEqual([kind, kind, kind])
    expect(slots.runningCount(kind)).toBe(3)
    expect(slots.of[other(kind)].tryAcquire()).toBe(false)
  },
)

test.each([
  [1, 'first'],
  [1, 'retry'],
  [2, 'first'],
  [3, 'retry'],
  [4, 'retry'],
  [5, 'first'],
  [10, 'retry'],
] as const)(
  'of %i slotCount that are all taken by one kind (%s), half go to the other while both wait, and no more',
  async (slotCount, kind) => {
    const { slots, count, come, end } = open(slotCount)
    slots.expect('first', false)
    await come(kind, slotCount)
    await come(kind, 50)
    await come(other(kind), 50)
    const before = count(kind)
    // The oldest ends, whichever it is.
    const running: AttemptKind[] = Array.from({ length: slotCount }, () => kind)
    for (let i = 0; i < 40; i += 1) {
      const oldest = running.shift() ?? kind
      const had = count(kind)
      await end(oldest)
      running.push(count(kind) > had ? kind : other(kind))
      expect(slots.runningCount('first') + slots.runningCount('retry')).toBe(slotCount)
    }
    const others = count(other(kind))
    expect(others).toBeGreaterThanOrEqual(18)
    expect(count(kind) - before).toBeGreaterThanOrEqual(15)
    expect(Math.abs(slots.runningCount('first') - slots.runningCount('retry'))).toBeLessThanOrEqual(1)
  },
)

test('slotCount of a kind whose events wait in the queue are kept for it, and given away when none do', async () => {
  const { slots, begun, kept, come } = open(4)
  slots.expect('retry', true)
  await come('first', 6)
  expect(begun).toEqual(['first', 'first'])
  expect(kept()).toBeGreaterThan(0)
  slots.expect('retry', false)
  await new Promise((resolve) => setImmediate(resolve))
  expect(begun).toEqual(['first', 'first', 'first', 'first'])
})

test('with one slot the kinds have it in turn', async () => {
  const { begun, come, end } = open(1)
  await come('first', 5)
  await come('retry', 5)
  for (let i = 0; i < 6; i += 1) await end(begun.at(-1) ?? 'first')
  expect(begun).toEqual(['first', 'retry', 'first', 'retry', 'first', 'retry', 'first'])
})

/** As a fetch leaves them: `first` and `later` say what may wait in the queue. */
function expecting(
  slotCount: number,
  running: Partial<Record<AttemptKind, number>>,
  queue: Record<AttemptKind, boolean>,
): HandlerSlots {
  const slots = createHandlerSlots(
    () => slotCount,
    () => {},
  )
  slots.expect('first', false)
  for (const kind of ['first', 'retry'] as const)
    for (let i = 0; i < (running[kind] ?? 0); i += 1) slots.of[kind].tryAcquire()
  slots.expect('first', queue.first)
  slots.expect('retry', queue.retry)
  return slots
}

test.each([
  [
    'nothing is known of later attempts',
    {},
    { first: 0, retry: 0 },
    { first: true, retry: false },
    'any',
    10,
  ],
  ['a batch is in hand', { first: 10 }, { first: 100, retry: 0 }, { first: true, retry: false }, 'any', -90],
  ['both wait', {}, { first: 0, retry: 0 }, { first: true, retry: true }, 'retry', 5],
  [
    'later attempts have their half',
    { retry: 5 },
    { first: 0, retry: 5 },
    { first: true, retry: true },
    'first',
    5,
  ],
  [
    'later attempts have all of it',
    { retry: 10 },
    { first: 0, retry: 10 },
    { first: true, retry: true },
    'first',
    0,
  ],
  ['one of them has ended', { retry: 9 }, { first: 0, retry: 9 }, { first: true, retry: true }, 'first', 1],
  [
    'first attempts have all of it',
    { first: 10 },
    { first: 10, retry: 0 },
    { first: true, retry: true },
    'first',
    -5,
  ],
  ['one of those has ended', { first: 9 }, { first: 9, retry: 0 }, { first: true, retry: true }, 'retry', 1],
  ['a batch has its half', { first: 5 }, { first: 80, retry: 0 }, { first: true, retry: true }, 'retry', 5],
  ['only later attempts wait', { retry: 5 }, { first: 0, retry: 5 }, { first: false, retry: true }, 'any', 5],
  [
    'later attempts are in hand that do not run',
    { retry: 1 },
    { first: 0, retry: 10 },
    { first: true, retry: false },
    'any',
    5,
  ],
] as const)('what is fetched when %s', (_, running, held, queue, kind, events) => {
  expect(planFetch(10, held, expecting(10, running, queue))).toEqual({ kind, eventCount: events })
})
