import { expect, test } from 'vitest'
import { createShares } from '../../../src/delivery/concurrency/reserved-permits.ts'

test('each member always gets its first, the others are for whoever asks', () => {
  const newShare = createShares(5, 2)
  const busy = newShare()
  const quiet = newShare()
  expect([1, 2, 3, 4, 5].map(() => busy.tryTake())).toEqual([true, true, true, true, false])
  expect(quiet.tryTake()).toBe(true)
  expect(quiet.tryTake()).toBe(false)
  busy.giveBack()
  expect(quiet.tryTake()).toBe(true)
  expect(busy.tryTake()).toBe(false)
})

test('with as many as members, each has one', () => {
  const newShare = createShares(2, 2)
  const shares = [newShare(), newShare()]
  expect(shares.map((share) => share.tryTake())).toEqual([true, true])
  expect(shares.map((share) => share.tryTake())).toEqual([false, false])
})

test('what is given back goes to those who wait, in the order they came', async () => {
  const newShare = createShares(3, 2)
  const [a, b] = [newShare(), newShare()]
  await a.take()
  await a.take()
  const got: string[] = []
  const waiting = [
    a.take().then(() => got.push('a first')),
    b.take().then(() => got.push('b, its own')),
    b.take().then(() => got.push('b second')),
    a.take().then(() => got.push('a second')),
  ]
  await waiting[1]
  expect(got).toEqual(['b, its own'])
  for (const share of [a, a, b]) share.giveBack()
  await Promise.all(waiting)
  expect(got.slice(1)).toEqual(['a first', 'b second', 'a second'])
})
