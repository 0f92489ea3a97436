import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import type { JobRun } from '../../../src/delivery/in-flight/job-run.ts'
import { createTenantLimit, type TenantLimit } from '../../../src/delivery/in-flight/tenant-limit.ts'
import { admitEvents } from '../../../src/delivery/worker/run-job.ts'

beforeEach(() => void vi.useFakeTimers({ toFake: ['performance'] }))
afterEach(() => void vi.useRealTimers())

/** @param handlerMs - how long handlers take: of a tenant, `limit * 1000 / handlerMs` events a second are done */
function limitOf(limit: number, handlerMs: number): TenantLimit {
  const made = createTenantLimit(limit, () => handlerMs)
  if (made === undefined) throw new Error('There is a limit')
  return made
}

/** A job whose events are called by their tenant and a number: `a1`. */
function jobOf(eventIds: readonly string[], isOfKey = false): JobRun {
  const tenantOf = (id: string) => (id.startsWith('?') ? undefined : id.replace(/\d+$/, ''))
  const job = {
    ...{ isOfKey, remaining: new Set(eventIds), events: { tenantOf } },
    ...{ admittedTenants: new Map<string, string>(), delaySeconds: 0, flowKey: undefined },
  }
  return job as unknown as JobRun
}

const many = (tenant: string, count: number): readonly string[] =>
  Array.from({ length: count }, (_, n) => `${tenant}${n}`)

test('without an option there is no limit', () => {
  expect(createTenantLimit(undefined, () => 10)).toBeUndefined()
})

test('as many handlers of a tenant run as the limit says; another waits until one ends', async () => {
  const limit = limitOf(2, 10)
  expect([limit.tryAcquire('a'), limit.tryAcquire('a'), limit.tryAcquire('a')]).toEqual([true, true, false])
  expect(limit.tryAcquire('b')).toBe(true)
  const order: string[] = []
  const entered = limit.acquire('a').then(() => order.push('entered'))
  await Promise.resolve()
  order.push('left')
  limit.release('a')
  await entered
  expect(order).toEqual(['left', 'entered'])
  // The place went from one to the other.
  expect(limit.tryAcquire('a')).toBe(false)
})

test('of a tenant as much is held as it does in a second', () => {
  // Two handlers of 100 ms: twenty a second.
  const limit = limitOf(2, 100)
  expect(limit.admit('a', 15)).toBe(true)
  expect(limit.admit('a', 15)).toBe(true)
  expect(limit.admit('a', 1)).toBe(false)
  expect(limit.admit('b', 1)).toBe(true)
  for (let n = 0; n < 11; n += 1) limit.done('a')
  expect(limit.admit('a', 1)).toBe(true)
})

test('of slow handlers twice the limit is held', () => {
  const limit = limitOf(3, 60_000)
  expect(many('a', 8).map(() => limit.admit('a', 1))).toEqual([
    ...[true, true, true, true, true, true],
    ...[false, false],
  ])
})

test('while handlers that outlive their attempt take all places, nothing of the tenant is held', () => {
  const limit = limitOf(2, 100)
  limit.outlive('a', 1)
  expect(limit.admit('a', 1)).toBe(true)
  limit.outlive('a', 1)
  expect(limit.admit('a', 1)).toBe(false)
  limit.outlive('a', -1)
  expect(limit.admit('a', 1)).toBe(true)
})

test('what is not held is put off until about its turn, one job behind the other', () => {
  // Ten a second.
  const limit = limitOf(1, 100)
  limit.admit('a', 50)
  // Behind the fifty in hand, ten: six seconds. Behind those, twenty.
  expect(limit.defer('a', 10)).toBeCloseTo(6)
  expect(limit.defer('a', 20)).toBeCloseTo(8)
  vi.advanceTimersByTime(1000)
  expect(limit.defer('a', 10)).toBeCloseTo(8)
  expect(limit.defer('b', 1)).toBe(1)
})

test('a job is put off for thirty seconds at most, until there are so many that twenty a second come back', () => {
  const limit = limitOf(1, 60_000)
  limit.admit('a', 1)
  expect(limit.defer('a', 100)).toBe(30)
  for (let n = 0; n < 598; n += 1) limit.defer('a', 100)
  expect(limit.defer('a', 100)).toBe(30)
  for (let n = 0; n < 599; n += 1) limit.defer('a', 100)
  expect(limit.defer('a', 100)).toBe(60)
})

test('jobs of a tenant are called back when it has room for them, by one call at a time', () => {
  const limit = limitOf(1, 500)
  limit.admit('a', 1)
  limit.admit('a', 1)
  expect(limit.needsMore('a')).toBe(false)
  limit.defer('a', 5)
  limit.defer('a', 5)
  // It has its two in hand.
  expect(limit.needsMore('a')).toBe(false)
  limit.done('a')
  expect(limit.needsMore('a')).toBe(true)
  expect(limit.needsMore('a')).toBe(false)
  limit.released('a', 1)
  expect(limit.needsMore('a')).toBe(true)
  limit.released('a', 1)
  expect(limit.needsMore('a')).toBe(false)
})

test('where nothing was there to call back, what was put off is forgotten', () => {
  const limit = limitOf(1, 500)
  limit.admit('a', 1)
  limit.defer('a', 100)
  expect(limit.needsMore('a')).toBe(true)
  limit.released('a', 0)
  expect(limit.needsMore('a')).toBe(false)
  // The next one is not behind it any more: one and a half seconds.
  expect(limit.defer('a', 2)).toBeCloseTo(1.5)
})

test('of a batch the events that a tenant may have are run, and the others go back with its place', () => {
  // Two a second, and so two in hand.
  const limit = limitOf(1, 500)
  const job = jobOf([...many('a', 4), ...many('b', 2)])
  limit.admit('a', 2)
  expect(admitEvents(limit, job)).toEqual(many('b', 2))
  expect([...job.admittedTenants]).toEqual(many('b', 2).map((id) => [id, 'b']))
  expect(job.delaySeconds).toBeCloseTo(3)
  // Under the key of its tenant it is found when that has nothing to do.
  expect(job.flowKey).toBe('=a')
})

test('where several tenants are at their limit, what goes back stays in the line it came from', () => {
  const limit = limitOf(1, 500)
  for (const tenant of ['a', 'b']) limit.admit(tenant, 2)
  const job = jobOf([...many('a', 2), ...many('b', 20)])
  expect(admitEvents(limit, job)).toEqual([])
  expect(job.flowKey).toBeUndefined()
  // The last of them decides.
  expect(job.delaySeconds).toBeCloseTo(11)
})

test('where all are admitted, the job stays where it is', () => {
  const job = jobOf(many('a', 3))
  expect(admitEvents(limitOf(1, 500), job)).toEqual(many('a', 3))
  expect(job).toMatchObject({ flowKey: undefined, delaySeconds: 0 })
})

test('an event that the log does not show is of no tenant, or of its key', () => {
  const limit = limitOf(1, 500)
  limit.admit('a', 2)
  expect(admitEvents(limit, jobOf(['?1', 'a1']))).toEqual(['?1'])
  expect(admitEvents(limit, jobOf(['?1', 'a1'], true))).toEqual([])
})
