import { expect, test } from 'vitest'
import { createPauseAndBreaker } from '../../../src/delivery/flow-control/pause-and-breaker.ts'
import type { SubscriptionState } from '../../../src/delivery/flow-control/subscription-state.ts'
import type { Subscription } from '../../../src/delivery/subscriptions/subscription.ts'
import type { SubscriptionContext } from '../../../src/delivery/jobs/subscription-context.ts'
import { recordingLogger } from '../../support/bus.ts'

const state = (paused: boolean): SubscriptionState =>
  ({ paused, probeInMs: undefined }) as Partial<SubscriptionState> as SubscriptionState

test('what was read before the latest state does not undo it, in whichever order the answers arrive', () => {
  const logger = recordingLogger()
  const subscription = { name: 'a', circuitBreaker: false } as Partial<Subscription> as Subscription
  const context = {
    subscription,
    subscriptionId: 1,
    logger,
  } as Partial<SubscriptionContext> as SubscriptionContext
  const breaker = createPauseAndBreaker(context, state(false), () => {})
  breaker.apply(state(true), 20)
  breaker.apply(state(false), 10)
  expect(breaker.isHalted).toBe(true)
  breaker.apply(state(false), 30)
  expect(breaker.isHalted).toBe(false)
  breaker.apply(state(true), 25)
  expect(breaker.isHalted).toBe(false)
  expect(logger.lines.map(({ message }) => message)).toEqual([
    'a subscription was paused',
    'a subscription was resumed',
  ])
})
