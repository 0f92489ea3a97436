import { expect, test } from 'vitest'
import { lossAllowance } from '../../../src/delivery/jobs/job.ts'
import { afterWorkerLoss } from '../../../src/delivery/settlement/lost-worker.ts'
import { claimOf, failureOf, subscriptionWith } from '../../support/claims.ts'
import { isSuspect } from '../../../src/delivery/in-flight/quarantine.ts'

/** Three attempts. */
const subscription = subscriptionWith()

test('the events of a batch whose worker died have one attempt behind them, which counts against none of them', () => {
  const loss = afterWorkerLoss(claimOf(['a', 'b'], { retryCount: 1, failures: [failureOf(1)] }), subscription)
  expect(loss).toEqual({
    past: { attempts: 1, losses: 1, failures: [failureOf(1)] },
    retryLimit: lossAllowance + 2,
    output: undefined,
  })
})

test('of a batch that was lost several times only the last failure is kept', () => {
  const failures = [failureOf(1), failureOf(2)]
  const { past } = afterWorkerLoss(claimOf(['a', 'b'], { retryCount: 2, failures }), subscription)
  expect(past.failures).toEqual([failureOf(2)])
})

test('an event that was lost among others is a suspect from the second loss on', () => {
  const first = claimOf(['a'], { retryCount: 1, data: { attempts: 1, losses: 1 } })
  expect(isSuspect(first.data)).toBe(false)
  const { past, output } = afterWorkerLoss(first, subscription)
  expect(past).toMatchObject({ attempts: 2, losses: 2 })
  expect(output).toBeUndefined()
  expect(isSuspect({ eventIds: ['a'], losses: past.losses ?? 0 })).toBe(true)
})

test('a loss in company takes no attempt of a single event away', () => {
  const claim = claimOf(['a'], {
    retryCount: 1,
    retryLimit: lossAllowance + 2,
    data: { attempts: 1, losses: 1 },
  })
  expect(afterWorkerLoss(claim, subscription).retryLimit).toBe(lossAllowance + 2)
})

test('what a split left of a batch, one event with the limit of a batch, gets all of its attempts', () => {
  const claim = claimOf(['a'], { retryCount: 1, retryLimit: lossAllowance })
  expect(afterWorkerLoss(claim, subscription).retryLimit).toBe(lossAllowance + 2)
})

test('a limit never falls below what pg-boss needs to run the job once more', () => {
  const claim = claimOf(['a'], {
    retryCount: 5,
    retryLimit: lossAllowance + 1,
    data: { attempts: 0, losses: 4 },
  })
  expect(afterWorkerLoss(claim, subscription)).toMatchObject({ retryLimit: lossAllowance, output: undefined })
})

test('the loss of the only suspect counts as an attempt at it', () => {
  // Claim 1 ran alone and was lost; this is claim 2.
  const claim = claimOf(['a'], {
    retryCount: 2,
    retryLimit: lossAllowance + 4,
    data: { attempts: 0, losses: 2, isolatedAt: 1 },
  })
  expect(afterWorkerLoss(claim, subscription)).toEqual({
    past: { attempts: 2, losses: 2, failures: [] },
    retryLimit: lossAllowance + 2,
    output: undefined,
  })
})

test('a mark of an earlier claim does not make it the only suspect of this one', () => {
  const claim = claimOf(['a'], { retryCount: 3, data: { attempts: 5, losses: 2, isolatedAt: 1 } })
  expect(afterWorkerLoss(claim, subscription)).toMatchObject({
    past: { attempts: 8, losses: 3 },
    output: undefined,
  })
})

test.each([
  ['all of its attempts are made', 2, lossAllowance + 4],
  ['its limit is used up', 0, lossAllowance],
])('the only suspect goes to the dead letters where %s', (_, attempts, retryLimit) => {
  const failures = [failureOf(1)]
  const claim = claimOf(['a'], {
    retryCount: 1,
    retryLimit,
    failures,
    data: { attempts, losses: 2, isolatedAt: 0 },
  })
  expect(afterWorkerLoss(claim, subscription).output).toEqual({
    attempts: attempts + 1,
    final: false,
    failures,
  })
})
