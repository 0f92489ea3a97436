import type { AttemptFailure } from '../../src/delivery/attempts/failure.ts'
import type { EventOutcome } from '../../src/delivery/attempts/outcome.ts'
import { lossAllowance, type JobData } from '../../src/delivery/jobs/job.ts'
import type { JobClaim } from '../../src/delivery/jobs/job-claim.ts'
import type { Settlement } from '../../src/delivery/settlement/settlement.ts'
import { resolveSubscription, type Subscription } from '../../src/delivery/subscriptions/subscription.ts'
import type { AnySubscriptionOptions } from '../../src/delivery/subscriptions/subscription-options.ts'
import { paymentEvents } from './catalogue.ts'

/** What pure functions of delivery take, for tests without a database. */

/** A subscription with its defaults, three attempts, and a delay of ten seconds between them. */
export function subscriptionWith(options: Partial<AnySubscriptionOptions> = {}): Subscription {
  return resolveSubscription(
    {
      name: 'fixture',
      events: ['note'],
      retry: { maxAttempts: 3, delaySeconds: 10, backoff: false },
      handler: () => {},
      ...options,
    },
    paymentEvents,
  )
}

/** A claim of a first attempt at these events. */
export function claimOf(
  eventIds: readonly string[],
  { data = {}, ...rest }: Partial<Omit<JobClaim, 'data'>> & { readonly data?: Partial<JobData> } = {},
): JobClaim {
  return {
    id: `job of ${eventIds.join()}`,
    retryCount: 0,
    retryLimit: eventIds.length === 1 ? lossAllowance + 2 : lossAllowance,
    priority: 0,
    flowKey: undefined,
    failures: [],
    ...rest,
    data: { eventIds, ...data },
  }
}

/** What is to be written of a job that is over. */
export function settlementOf(
  claim: JobClaim,
  outcomes: readonly EventOutcome[],
  rest: Partial<Settlement> = {},
): Settlement {
  return { claim, outcomes, done: true, ...rest }
}

export function failureOf(attempt: number, message = 'the provider is down'): AttemptFailure {
  return { attempt, at: '2026-01-01T00:00:00.000Z', name: 'Error', message }
}

export function delivered(
  eventId: string,
  rest: Partial<EventOutcome & { delivered: true }> = {},
): EventOutcome & { readonly delivered: true } {
  return { eventId, delivered: true, attempt: 1, durationMs: 5, ...rest }
}

export function failed(
  eventId: string,
  rest: Partial<EventOutcome & { delivered: false }> = {},
): EventOutcome & { readonly delivered: false } {
  return { eventId, delivered: false, failure: failureOf(1), final: false, ...rest }
}
