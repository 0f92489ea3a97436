import { expect, test } from 'vitest'
import {
  createSlots,
  nextWish,
  type Lane,
  type Slots,
} from '../../../src/delivery/concurrency/handler-slots.ts'

/** Events that wait for a place; what is begun, in order, is written down. */
function open(places: number) {
  let kept = 0
  const slots = createSlots(places, () => (kept += 1))
  const begun: Lane[] = []
  return {
    slots,
    begun,
    kept: () => kept,
    count: (lane: Lane): number => begun.filter((one) => one === lane).length,
    come: async (lane: Lane, count = 1): Promise<void> => {
      for (let i = 0; i < count; i += 1) void slots.gates[lane].enter().then(() => begun.push(lane))
      await Promise.resolve()
    },
    end: async (lane: Lane): Promise<void> => {
      slots.gates[lane].leave()
      await new Promise((resolve) => setImmediate(resolve))
    },
  }
}

const other = (lane: Lane): Lane => (lane === 'first' ? 'later' : 'first')

test.each(['first', 'later'] as const)(
  'a lane takes every place while nothing of the other waits: %s',
  async (lane) => {
    const { slots, begun, come } = open(3)
    slots.expect('first', false)
    await come(lane, 4)
    expect(begun).toEqual([lane, lane, lane])
    expect(slots.running(lane)).toBe(3)
    expect(slots.gates[other(lane)].tryEnter()).toBe(false)
  },
)

test.each([
  [1, 'first'],
  [1, 'later'],
  [2, 'first'],
  [3, 'later'],
  [4, 'later'],
  [5, 'first'],
  [10, 'later'],
] as const)(
  'of %i places that are all taken by one lane (%s), half go to the other while both wait, and no more',
  async (places, lane) => {
    const { slots, count, come, end } = open(places)
    slots.expect('first', false)
    await come(lane, places)
    await come(lane, 50)
    await come(other(lane), 50)
    const before = count(lane)
    // The oldest ends, whichever it is.
    const running: Lane[] = Array.from({ length: places }, () => lane)
    for (let i = 0; i < 40; i += 1) {
      const oldest = running.shift() ?? lane
      const had = count(lane)
      await end(oldest)
      running.push(count(lane) > had ? lane : other(lane))
      expect(slots.running('first') + slots.running('later')).toBe(places)
    }
    const others = count(other(lane))
    expect(others).toBeGreaterThanOrEqual(18)
    expect(count(lane) - before).toBeGreaterThanOrEqual(15)
    expect(Math.abs(slots.running('first') - slots.running('later'))).toBeLessThanOrEqual(1)
  },
)

test('places of a lane whose events wait in the queue are kept for it, and given away when none do', async () => {
  const { slots, begun, kept, come } = open(4)
  slots.expect('later', true)
  await come('first', 6)
  expect(begun).toEqual(['first', 'first'])
  expect(kept()).toBeGreaterThan(0)
  slots.expect('later', false)
  await new Promise((resolve) => setImmediate(resolve))
  expect(begun).toEqual(['first', 'first', 'first', 'first'])
})

test('with one place the lanes have it in turn', async () => {
  const { begun, come, end } = open(1)
  await come('first', 5)
  await come('later', 5)
  for (let i = 0; i < 6; i += 1) await end(begun.at(-1) ?? 'first')
  expect(begun).toEqual(['first', 'later', 'first', 'later', 'first', 'later', 'first'])
})

/** As a fetch leaves them: `first` and `later` say what may wait in the queue. */
function expecting(
  places: number,
  running: Partial<Record<Lane, number>>,
  queue: Record<Lane, boolean>,
): Slots {
  const slots = createSlots(places, () => {})
  slots.expect('first', false)
  for (const lane of ['first', 'later'] as const)
    for (let i = 0; i < (running[lane] ?? 0); i += 1) slots.gates[lane].tryEnter()
  slots.expect('first', queue.first)
  slots.expect('later', queue.later)
  return slots
}

test.each([
  [
    'nothing is known of later attempts',
    {},
    { first: 0, later: 0 },
    { first: true, later: false },
    'any',
    10,
  ],
  ['a batch is in hand', { first: 10 }, { first: 100, later: 0 }, { first: true, later: false }, 'any', -90],
  ['both wait', {}, { first: 0, later: 0 }, { first: true, later: true }, 'later', 5],
  [
    'later attempts have their half',
    { later: 5 },
    { first: 0, later: 5 },
    { first: true, later: true },
    'first',
    5,
  ],
  [
    'later attempts have all of it',
    { later: 10 },
    { first: 0, later: 10 },
    { first: true, later: true },
    'first',
    0,
  ],
  ['one of them has ended', { later: 9 }, { first: 0, later: 9 }, { first: true, later: true }, 'first', 1],
  [
    'first attempts have all of it',
    { first: 10 },
    { first: 10, later: 0 },
    { first: true, later: true },
    'first',
    -5,
  ],
  ['one of those has ended', { first: 9 }, { first: 9, later: 0 }, { first: true, later: true }, 'later', 1],
  ['a batch has its half', { first: 5 }, { first: 80, later: 0 }, { first: true, later: true }, 'later', 5],
  ['only later attempts wait', { later: 5 }, { first: 0, later: 5 }, { first: false, later: true }, 'any', 5],
  [
    'later attempts are in hand that do not run',
    { later: 1 },
    { first: 0, later: 10 },
    { first: true, later: false },
    'any',
    5,
  ],
] as const)('what is fetched when %s', (_, running, held, queue, lane, events) => {
  expect(nextWish(10, held, expecting(10, running, queue))).toEqual({ lane, events })
})
