import { expect, test } from 'vitest'
import { createFlow } from '../../../src/delivery/flow-control/pause-and-breaker.ts'
import type { SubscriptionState } from '../../../src/delivery/flow-control/subscription-state.ts'
import type { Subscription } from '../../../src/delivery/subscriptions/subscription.ts'
import type { Database } from '../../../src/database/database.ts'
import { recordingLogger } from '../../support/bus.ts'

const state = (paused: boolean): SubscriptionState =>
  ({ paused, probeInMs: undefined }) as Partial<SubscriptionState> as SubscriptionState

test('what was read before the latest state does not undo it, in whichever order the answers arrive', () => {
  const logger = recordingLogger()
  const subscription = { name: 'a', circuitBreaker: false } as Partial<Subscription> as Subscription
  const flow = createFlow({} as Database, subscription, 1, state(false), logger, () => {})
  flow.apply(state(true), 20)
  flow.apply(state(false), 10)
  expect(flow.isHalted).toBe(true)
  flow.apply(state(false), 30)
  expect(flow.isHalted).toBe(false)
  flow.apply(state(true), 25)
  expect(flow.isHalted).toBe(false)
  expect(logger.lines.map(({ message }) => message)).toEqual([
    'a subscription was paused',
    'a subscription was resumed',
  ])
})
