import { expect, test } from 'vitest'
import type { Database } from '../../../src/database/database.ts'
import type { StoredEvent } from '../../../src/events/envelope.ts'
import { createPauseAndBreaker } from '../../../src/delivery/flow-control/pause-and-breaker.ts'
import type { SubscriptionState } from '../../../src/delivery/flow-control/subscription-state.ts'
import type { Subscription } from '../../../src/delivery/subscriptions/subscription.ts'
import type { SubscriptionContext } from '../../../src/delivery/jobs/subscription-context.ts'
import { recordingLogger } from '../../support/bus.ts'
import { failed, subscriptionWith } from '../../support/claims.ts'
import { holdClock } from '../../support/held-clock.ts'

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

test('where the breaker may not open for one tenant alone, the database is not asked again for five seconds', async () => {
  const clock = holdClock()
  clock.stop()
  let askedCount = 0
  const database = {
    // Other tenants publish too: it does not open.
    query: async () => {
      askedCount += 1
      return { rows: [{ opened: false }] }
    },
  } as Partial<Database> as Database
  const subscription = subscriptionWith({ circuitBreaker: { windowSize: 10 } })
  const logger = recordingLogger()
  const context = {
    database,
    subscription,
    subscriptionId: 1,
    logger,
  } as Partial<SubscriptionContext> as SubscriptionContext
  const breaker = createPauseAndBreaker(context, state(false), () => {})
  let eventCount = 0
  /** A window full of failures of one tenant, until the answer is there. */
  const failAll = async (): Promise<void> => {
    for (let n = 0; n < 10; n += 1) {
      const id = `${(eventCount += 1)}`
      breaker.recordOutcome(failed(id), { id, tenantId: 'a' } as StoredEvent)
    }
    await new Promise((resolve) => setImmediate(resolve))
  }
  await failAll()
  expect(askedCount).toBe(1)
  await failAll()
  clock.advance(4999)
  await failAll()
  expect(askedCount).toBe(1)
  clock.advance(1)
  await failAll()
  expect(askedCount).toBe(2)
  expect(breaker.isHalted).toBe(false)
  expect(logger.lines).toEqual([])
  breaker.stop()
})
