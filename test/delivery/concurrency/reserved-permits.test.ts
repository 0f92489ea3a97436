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

test('a member that leaves gives its reservation back, also while it holds permits, and those who wait get it', async () => {
  const newMember = createReservedPermits(2, 2)
  const [gone, stays] = [newMember(), newMember()]
  await stays.acquire()
  let hasSecond = false
  const second = stays.acquire().then(() => {
    hasSecond = true
  })
  await Promise.resolve()
  expect(hasSecond).toBe(false)
  gone.leave()
  gone.leave()
  await second
  for (const release of [stays.release, stays.release]) release()
  // Another one that comes has one reserved again.
  const later = newMember()
  expect([stays.tryAcquire(), stays.tryAcquire()]).toEqual([true, false])
  expect(later.tryAcquire()).toBe(true)
  later.leave()
  expect(stays.tryAcquire()).toBe(false)
  later.release()
  expect(stays.tryAcquire()).toBe(true)
})

test('what a member still waits for when it leaves it gets, whatever is reserved for others', async () => {
  const newMember = createReservedPermits(2, 2)
  const [gone, idle] = [newMember(), newMember()]
  await gone.acquire()
  const second = gone.acquire()
  gone.leave()
  await second
  expect(idle.tryAcquire()).toBe(false)
  for (const release of [gone.release, gone.release]) release()
  expect([idle.tryAcquire(), idle.tryAcquire()]).toEqual([true, true])
})

test('members that leave and come never make more or fewer permits', () => {
  const newMember = createReservedPermits(3, 1)
  for (let round = 0; round < 20; round += 1) {
    const members = [newMember(), newMember(), newMember()]
    for (const member of members) expect(member.tryAcquire()).toBe(true)
    expect(members.some((member) => member.tryAcquire())).toBe(false)
    for (const member of members) member.release()
    for (const member of members) member.leave()
  }
  const only = newMember()
  expect([1, 2, 3, 4].map(() => only.tryAcquire())).toEqual([true, true, true, false])
})
