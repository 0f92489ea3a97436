import { expect, test } from 'vitest'
import type { JobClaim } from '../../../src/delivery/jobs/job-claim.ts'
import { planKeyWrites } from '../../../src/delivery/settlement/key-settlement.ts'
import { claimOf, delivered, failed, settlementOf } from '../../support/claims.ts'

const claimOfKey = (eventIds: readonly string[]): JobClaim => claimOf(eventIds, { data: { keyId: '7' } })

const nothing = { receipts: [], ended: [], failedSingles: [], requeued: [] }

test('a key whose events are all delivered goes on behind the last of them', () => {
  const claim = claimOfKey(['a', 'b'])
  expect(planKeyWrites([settlementOf(claim, [delivered('a'), delivered('b')])])).toEqual({
    ...nothing,
    receipts: [
      {
        claim,
        receipts: ['a', 'b'].map((eventId) => ({
          ...{ eventId, attempts: 1, durationMs: 5 },
          ...{ expired: false, erased: false },
        })),
      },
    ],
    ended: [{ claim, doneCount: 2 }],
  })
})

test('an expired event is expired in its receipt; an erased one is both', () => {
  const plan = planKeyWrites([
    settlementOf(claimOfKey(['a', 'b']), [
      delivered('a', { expired: true }),
      delivered('b', { erased: true }),
    ]),
  ])
  expect(
    plan.receipts.flatMap(({ receipts }) => receipts).map(({ expired, erased }) => ({ expired, erased })),
  ).toEqual([
    { expired: true, erased: false },
    { expired: true, erased: true },
  ])
})

test('receipts that are written early leave the key as it is', () => {
  const claim = claimOfKey(['a', 'b'])
  const plan = planKeyWrites([settlementOf(claim, [delivered('a')], { done: false })])
  expect(plan).toEqual({
    ...nothing,
    receipts: [{ claim, receipts: [expect.objectContaining({ eventId: 'a' })] }],
  })
})

test('a key stops at the event that failed, whichever outcomes were written before', () => {
  const claim = claimOfKey(['a', 'b', 'c'])
  const failure = failed('b')
  const plan = planKeyWrites([settlementOf(claim, [failure])])
  expect(plan).toEqual({ ...nothing, ended: [{ claim, doneCount: 1, failed: failure }] })
  expect(planKeyWrites([settlementOf(claim, [delivered('a'), failure])]).ended).toEqual(plan.ended)
})

test('the only event of a job that fails is left to pg-boss: a retry, or a dead letter', () => {
  const claim = claimOfKey(['a'])
  const failure = failed('a', { retryAfterSeconds: 9 })
  expect(planKeyWrites([settlementOf(claim, [failure])])).toEqual({
    ...nothing,
    failedSingles: [{ claim, failed: failure }],
  })
})

test('a job of which nothing was begun goes back as it came', () => {
  const claim = claimOfKey(['a', 'b'])
  const declined = { by: [1], isLast: true }
  const plan = planKeyWrites([
    settlementOf(claim, [], {
      ...{ requeued: ['a', 'b'], delaySeconds: 4, missCount: 2, flowKey: '=acme', declined },
    }),
  ])
  expect(plan).toEqual({
    ...nothing,
    requeued: [{ claim, options: { delaySeconds: 4, missCount: 2, flowKey: '=acme', declined } }],
  })
})

test('a job that was begun ends at the first event that goes back', () => {
  const claim = claimOfKey(['a', 'b', 'c'])
  const plan = planKeyWrites([settlementOf(claim, [delivered('a')], { requeued: ['b', 'c'] })])
  expect(plan).toMatchObject({ ended: [{ claim, doneCount: 1 }], requeued: [] })
  // Also where the receipt of the first was written early.
  expect(planKeyWrites([settlementOf(claim, [], { requeued: ['b', 'c'] })]).ended).toEqual([
    { claim, doneCount: 1 },
  ])
})

test('keys that are settled together do not mix', () => {
  const [one, two] = [claimOfKey(['a', 'b']), claimOfKey(['c'])]
  const plan = planKeyWrites([
    settlementOf(one, [delivered('a'), delivered('b')]),
    settlementOf(two, [failed('c')]),
  ])
  expect(plan.ended.map(({ claim }) => claim)).toEqual([one])
  expect(plan.failedSingles.map(({ claim }) => claim)).toEqual([two])
})
