import { expect, test } from 'vitest'
import { checkHistory } from '../support/history.ts'

test('the checker finds nothing in a history in which all is well', () => {
  expect(checkHistory({ committed: ['a', 'b'], ran: ['b', 'a'], effects: ['a', 'b'] })).toEqual({
    committedCount: 2,
    lost: [],
    withoutEffect: [],
    doubledEffects: [],
    invented: [],
    repeatedRunCount: 0,
  })
})

test('the checker finds events that were lost, doubled, or rolled back and delivered all the same', () => {
  expect(
    checkHistory({
      committed: ['a', 'b', 'c', 'd'],
      ran: ['a', 'a', 'a', 'c', 'd', 'rolled back'],
      effects: ['a', 'b', 'b', 'd', 'rolled back'],
    }),
  ).toEqual({
    committedCount: 4,
    lost: ['b'],
    withoutEffect: ['c'],
    doubledEffects: ['b'],
    invented: ['rolled back'],
    repeatedRunCount: 2,
  })
})
