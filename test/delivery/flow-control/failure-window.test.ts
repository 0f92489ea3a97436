import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { createFailureWindow } from '../../../src/delivery/flow-control/pause-and-breaker.ts'
import type { StoredEvent } from '../../../src/events/envelope.ts'
import { delivered, failed, failureOf } from '../../support/claims.ts'

beforeEach(() => void vi.useFakeTimers({ toFake: ['performance'] }))
afterEach(() => void vi.useRealTimers())

/** Takes attempts in order, and returns what the last one led to. */
function windowOf(windowSize: number, failureRatio = 0.9) {
  const window = createFailureWindow({ windowSize, failureRatio, probeSeconds: 1, maxProbeSeconds: 1 })
  const event = (id: string, tenantId: string) => ({ id, tenantId }) as StoredEvent
  let count = 0
  return {
    ...window,
    fails: (tenantId = 'a', id = `${(count += 1)}`) => window.record(failed(id), event(id, tenantId)),
    succeeds: (tenantId = 'a', id = `${(count += 1)}`) => window.record(delivered(id), event(id, tenantId)),
    judge: (outcome: Parameters<typeof window.record>[0], tenantId = 'a') =>
      window.record(outcome, event(outcome.eventId, tenantId)),
  }
}

const times = <T>(count: number, act: () => T): T[] => Array.from({ length: count }, act)

test('it opens with the attempt that fills the window with failures, and says why and for whom', () => {
  const { fails } = windowOf(5)
  expect(times(4, () => fails())).toEqual([undefined, undefined, undefined, undefined])
  expect(fails('b')).toEqual({ reason: 'the provider is down', tenantIds: ['a', 'b'] })
})

test('a reason has at most 500 characters', () => {
  const { fails, judge } = windowOf(5)
  times(4, () => fails())
  const failure = failureOf(1, 'x'.repeat(2000))
  expect(judge(failed('long', { failure }))?.reason).toBe('x'.repeat(500))
})

test('the share of failures that opens it is the one of the option, of the latest attempts alone', () => {
  const half = windowOf(10, 0.5)
  times(5, () => half.succeeds('a'))
  expect(times(4, () => half.fails('a')).filter((trip) => trip !== undefined)).toEqual([])
  expect(half.fails('a')).toBeDefined()
  // Those that have left the window count no more.
  const strict = windowOf(10, 1)
  strict.succeeds('a')
  times(9, () => strict.fails('a'))
  expect(strict.fails('a')).toBeDefined()
})

test('it does not open with an attempt that succeeds', () => {
  const { fails, succeeds } = windowOf(10, 0.5)
  times(9, () => fails())
  expect(succeeds('b')).toBeUndefined()
})

test('fewer than four events are a matter of those events, unless the window is smaller', () => {
  const { fails } = windowOf(12)
  const trips = times(8, () => ['x', 'y', 'z'].map((id) => fails('a', id))).flat()
  expect(trips.every((trip) => trip === undefined)).toBe(true)
  expect(fails('a', 'fourth')).toBeDefined()
  const small = windowOf(2)
  small.fails('a', 'x')
  expect(small.fails('a', 'y')).toBeDefined()
})

test('it stays closed while the latest attempt of any tenant succeeded', () => {
  const { fails, succeeds } = windowOf(5)
  succeeds('good')
  expect(times(20, () => fails('bad')).filter((trip) => trip !== undefined)).toEqual([])
  fails('good')
  expect(fails('bad')).toEqual({ reason: 'the provider is down', tenantIds: ['good', 'bad'] })
})

test('a success counts for a minute', () => {
  const { fails, succeeds } = windowOf(5)
  succeeds('good')
  vi.advanceTimersByTime(59_999)
  expect(times(5, () => fails('bad')).at(-1)).toBeUndefined()
  vi.advanceTimersByTime(1)
  expect(fails('bad')).toMatchObject({ tenantIds: ['bad'] })
})

test('the latest thousand tenants are remembered', () => {
  const { fails, succeeds } = windowOf(5)
  succeeds('good')
  const trips = Array.from({ length: 999 }, (_, n) => fails(`t${n}`))
  expect(trips.filter((trip) => trip !== undefined)).toEqual([])
  expect(fails('one more')?.tenantIds).toHaveLength(1000)
})

test('what says nothing about the handler counts for nothing', () => {
  const { fails, judge } = windowOf(5)
  times(4, () => fails())
  expect(judge(failed('final', { final: true }))).toBeUndefined()
  expect(judge(delivered('late', { expired: true }), 'other')).toBeUndefined()
  expect(fails()).toMatchObject({ tenantIds: ['a'] })
})

test('after a reset the window fills anew', () => {
  const { fails, reset } = windowOf(5)
  times(4, () => fails())
  reset()
  expect(times(4, () => fails()).filter((trip) => trip !== undefined)).toEqual([])
  expect(fails()).toBeDefined()
})
