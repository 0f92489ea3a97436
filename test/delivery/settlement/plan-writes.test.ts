import { expect, test } from 'vitest'
import { lossAllowance } from '../../../src/delivery/jobs/job.ts'
import {
  claimOf,
  delivered,
  failed,
  failureOf,
  settlementOf,
  subscriptionWith,
} from '../../support/claims.ts'
import { planWrites, type Writes } from '../../../src/delivery/settlement/job-settlement.ts'

const nothing: Writes = {
  receipts: [],
  failures: [],
  retries: [],
  completed: [],
  failed: [],
  deadLetters: [],
  batchDeadLetters: [],
  requeued: [],
  unfinished: [],
}

test('delivered events get receipts, and their job is completed', () => {
  const claim = claimOf(['a', 'b'])
  const plan = planWrites(subscriptionWith(), [
    settlementOf(claim, [delivered('a'), delivered('b', { attempt: 2, durationMs: 7 })]),
  ])
  expect(plan).toEqual({
    ...nothing,
    completed: [claim],
    receipts: [
      {
        claim,
        receipts: [
          { eventId: 'a', attempts: 1, durationMs: 5, expired: false, erased: false },
          { eventId: 'b', attempts: 2, durationMs: 7, expired: false, erased: false },
        ],
      },
    ],
  })
})

test('an expired event is expired in its receipt; an erased one is both, and no handler ran for either', () => {
  const plan = planWrites(subscriptionWith(), [
    settlementOf(claimOf(['a', 'b']), [
      delivered('a', { expired: true, attempt: 0, durationMs: 0 }),
      delivered('b', { erased: true, attempt: 1, durationMs: 0 }),
    ]),
  ])
  expect(plan.receipts.flatMap(({ receipts }) => receipts)).toEqual([
    { eventId: 'a', attempts: 0, durationMs: 0, expired: true, erased: false },
    { eventId: 'b', attempts: 1, durationMs: 0, expired: true, erased: true },
  ])
})

test('receipts that are written early leave the job active', () => {
  const claim = claimOf(['a', 'b'])
  const plan = planWrites(subscriptionWith(), [settlementOf(claim, [delivered('a')], { done: false })])
  const receipts = [{ claim, receipts: [expect.objectContaining({ eventId: 'a' })] }]
  expect(plan).toEqual({ ...nothing, receipts })
})

test('an event that fails in a batch is tried again in a job of its own, and the batch is completed', () => {
  const claim = claimOf(['a', 'b'])
  const plan = planWrites(subscriptionWith(), [settlementOf(claim, [delivered('a'), failed('b')])])
  expect(plan).toMatchObject({ completed: [claim], failed: [], deadLetters: [], batchDeadLetters: [] })
  expect(plan.retries).toEqual([
    expect.objectContaining({
      data: { eventIds: ['b'], attempts: 1, failures: [failureOf(1)] },
      startAfter: 10,
      priority: 1,
      // Of three attempts one is made, and this is another.
      retryLimit: lossAllowance + 1,
    }),
  ])
})

test('the job that carries an event on has the same id however often the settlement is written', () => {
  const idOf = (job: string, event: string): unknown =>
    planWrites(subscriptionWith(), [settlementOf(claimOf([event, 'z'], { id: job }), [failed(event)])])
      .retries[0]?.id
  expect(idOf('job', 'a')).toBe(idOf('job', 'a'))
  expect(new Set([idOf('job', 'a'), idOf('job', 'b'), idOf('other', 'a')]).size).toBe(3)
})

test('a delay that the handler asked for takes the place of the usual one', () => {
  const plan = planWrites(subscriptionWith(), [
    settlementOf(claimOf(['a', 'b']), [failed('a', { retryAfterSeconds: 77 }), failed('b')]),
  ])
  expect(plan.retries.map(({ startAfter }) => startAfter)).toEqual([77, 10])
})

test.each([
  ['failed for good', subscriptionWith(), true],
  [
    'failed at a subscription of one attempt',
    subscriptionWith({ retry: { maxAttempts: 1, delaySeconds: 0, backoff: false } }),
    false,
  ],
])('an event of a batch that %s goes to the dead letters at once', (_, subscription, final) => {
  const claim = claimOf(['a', 'b'])
  const plan = planWrites(subscription, [settlementOf(claim, [failed('a', { final }), delivered('b')])])
  expect(plan).toMatchObject({ completed: [claim], retries: [], failed: [] })
  expect(plan.batchDeadLetters).toEqual([
    {
      job: expect.objectContaining({
        data: { eventIds: ['a'], attempts: 1, failures: [failureOf(1)] },
      }) as unknown,
      output: { attempts: 1, final, failures: [failureOf(1)] },
    },
  ])
})

test('the job of a single event that fails is failed, and not completed', () => {
  const claim = claimOf(['a'], { retryCount: 1, failures: [failureOf(1, 'before')] })
  const plan = planWrites(subscriptionWith(), [
    settlementOf(claim, [failed('a', { failure: failureOf(2), retryAfterSeconds: 5 })]),
  ])
  expect(plan).toEqual({
    ...nothing,
    failed: [
      {
        claim,
        output: { attempts: 2, final: false, failures: [failureOf(1, 'before'), failureOf(2)] },
        retryAfterSeconds: 5,
      },
    ],
    failures: [
      {
        claim,
        record: { eventId: 'a', failure: failureOf(2), state: 'retrying', jobId: claim.id },
      },
    ],
  })
})

test('of many failures the first and the last nine are kept', () => {
  const failures = Array.from({ length: 10 }, (_, n) => failureOf(n + 1))
  const plan = planWrites(subscriptionWith(), [
    settlementOf(claimOf(['a'], { failures }), [failed('a', { failure: failureOf(11) })]),
  ])
  expect(plan.failed[0]?.output.failures.map(({ attempt }) => attempt)).toEqual([
    1, 3, 4, 5, 6, 7, 8, 9, 10, 11,
  ])
})

test('what a batch did not begin goes back in a job of its own, beside the receipts of what it did', () => {
  const claim = claimOf(['a', 'b', 'c'], { priority: -40, flowKey: '=acme' })
  const plan = planWrites(subscriptionWith(), [
    settlementOf(claim, [delivered('a')], { requeued: ['b', 'c'], delaySeconds: 3 }),
  ])
  expect(plan).toMatchObject({ completed: [], failed: [], receipts: [{ receipts: [{ eventId: 'a' }] }] })
  expect(plan.requeued).toEqual([
    {
      claim,
      job: expect.objectContaining({
        data: { eventIds: ['b', 'c'] },
        startAfter: 3,
        priority: -40,
        singletonKey: '=acme',
        retryLimit: lossAllowance,
      }) as unknown,
    },
  ])
})

test('a single event that goes back keeps its id, its history and its attempts', () => {
  const claim = claimOf(['a'], {
    retryCount: 1,
    failures: [failureOf(1)],
    data: { attempts: 1, isolatedAt: 0 },
    priority: 1,
  })
  const [back] = planWrites(subscriptionWith(), [
    settlementOf(claim, [], { requeued: ['a'], flowKey: '=acme' }),
  ]).requeued
  expect(back?.job).toMatchObject({
    id: claim.id,
    data: { eventIds: ['a'], attempts: 2, failures: [failureOf(1)] },
    retryLimit: claim.retryLimit - 1,
    priority: 1,
    singletonKey: '=acme',
  })
  expect(back?.job.data).not.toHaveProperty('isolatedAt')
})

test('what is left to other code stands in their group, behind all else where nobody alive covers it', () => {
  const [soon, last] = [false, true].map((isLast) =>
    planWrites(subscriptionWith(), [
      settlementOf(claimOf(['a', 'b'], { flowKey: '*' }), [], {
        requeued: ['a', 'b'],
        declined: { by: [3, 5], isLast },
      }),
    ]).requeued.map(({ job }) => job),
  )
  expect(soon).toMatchObject([{ group: { id: 'left by 3,5' }, data: { declinedBy: [3, 5] }, priority: 0 }])
  expect(soon?.[0]).not.toHaveProperty('singletonKey')
  expect(last?.[0]?.priority).toBeLessThan(-1_000_000)
})

test('settlements that are written together do not mix', () => {
  const [ok, bad] = [claimOf(['a']), claimOf(['b'])]
  const plan = planWrites(subscriptionWith(), [
    settlementOf(ok, [delivered('a')]),
    settlementOf(bad, [failed('b')]),
  ])
  expect(plan.completed).toEqual([ok])
  expect(plan.failed.map(({ claim }) => claim)).toEqual([bad])
})
