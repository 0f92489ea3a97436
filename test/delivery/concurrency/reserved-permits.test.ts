import { expect, test } from 'vitest'
import { createReservedPermits } from '../../../src/delivery/concurrency/reserved-permits.ts'

test('each member always gets its first, the others are for whoever asks', () => {
  const newMember = createReservedPermits(5, 2)
  const busy = newMember()
  const quiet = newMember()
  expect([1, 2, 3, 4, 5].map(() => busy.tryAcquire())).toEqual([true, true, true, true, false])
  expect(quiet.tryAcquire()).toBe(true)
  expect(quiet.tryAcquire()).toBe(false)
  busy.release()
  expect(quiet.tryAcquire()).toBe(true)
  expect(busy.tryAcquire()).toBe(false)
})

test('with as many as members, each has one', () => {
  const newMember = createReservedPermits(2, 2)
  const shares = [newMember(), newMember()]
  expect(shares.map((share) => share.tryAcquire())).toEqual([true, true])
  expect(shares.map((share) => share.tryAcquire())).toEqual([false, false])
})

test('what is given back goes to those who wait, in the order they came', async () => {
  const newMember = createReservedPermits(3, 2)
  const [a, b] = [newMember(), newMember()]
  await a.acquire()
  await a.acquire()
  const got: string[] = []
  const waiting = [
    a.acquire().then(() => got.push('a first')),
    b.acquire().then(() => got.push('b, its own')),
    b.acquire().then(() => got.push('b second')),
    a.acquire().then(() => got.push('a second')),
  ]
  await waiting[1]
  expect(got).toEqual(['b, its own'])
  for (const share of [a, a, b]) share.release()
  await Promise.all(waiting)
  expect(got.slice(1)).toEqual(['a first', 'b second', 'a second'])
})

test('a member that comes later shares: where permits are left it has one reserved, otherwise they take turns', async () => {
  const divide = createReservedPermits(1, 1)
  const [early, late] = [divide(), divide()]
  expect(early.tryAcquire()).toBe(true)
  let isLate = false
  const waiting = late.acquire().then(() => {
    isLate = true
  })
  expect(isLate).toBe(false)
  early.release()
  await waiting
  expect(early.tryAcquire()).toBe(false)

  const wide = createReservedPermits(3, 1)
  const first = wide()
  expect([first.tryAcquire(), first.tryAcquire()]).toEqual([true, true])
  const second = wide()
  expect(first.tryAcquire()).toBe(false)
  expect(second.tryAcquire()).toBe(true)
})
