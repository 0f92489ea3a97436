import type { SubscriptionInfo, SubscriptionOverrides } from '../../delivery/operator/subscription-info.ts'
import type { ResolvedRetry } from '../../delivery/subscriptions/retry-options.ts'
import type { CircuitBreaker, RegisteredOptions } from '../../delivery/subscriptions/subscription.ts'
import {
  anyOf,
  choice,
  flag,
  integer,
  list,
  number,
  objectOf,
  optional,
  ref,
  schemaOf,
  text,
  time,
} from './schema.ts'

const yes = schemaOf({ type: 'boolean', const: true })

/** Schemas of subscriptions. */
export const subscriptionSchemas = {
  Retry: objectOf<ResolvedRetry>({
    maxAttempts: integer(),
    delaySeconds: number(),
    backoff: flag(),
    maxDelaySeconds: number(),
    delays: optional(list(number())),
  }),
  SubscriptionOptions: objectOf<RegisteredOptions>({
    mode: choice('at-least-once', 'exactly-once'),
    concurrency: integer(),
    tenantConcurrency: optional(integer()),
    circuitBreaker: anyOf(
      objectOf<CircuitBreaker>({
        windowSize: integer(),
        failureRatio: number(),
        probeSeconds: number(),
        maxProbeSeconds: number(),
      }),
      schemaOf({ type: 'boolean', const: false }),
    ),
    lagLimitSeconds: optional(number()),
    batchSize: integer(),
    ordered: optional(yes),
    onKeyFailure: optional(choice('block', 'park', 'skip')),
    timeoutSeconds: number(),
    heartbeatSeconds: number(),
    retry: ref('Retry'),
  }),
  SubscriptionOverrides: objectOf<SubscriptionOverrides>({
    concurrency: optional(integer()),
    retry: optional(ref('Retry')),
    paused: optional(yes),
    by: text(),
    reason: optional(text()),
    at: time(),
    expiresAt: time('From then on the options of the code count again.'),
  }),
  Subscription: objectOf<SubscriptionInfo>(
    {
      name: text(),
      service: text('The service that owns it.'),
      events: list(text(), 'Names and patterns.'),
      where: optional(text()),
      options: ref('SubscriptionOptions'),
      state: choice('active', 'paused', 'circuit open', 'unserved'),
      pause: optional(
        objectOf<NonNullable<SubscriptionInfo['pause']>>({
          at: time(),
          by: optional(text()),
          reason: optional(text()),
        }),
      ),
      circuit: optional(
        objectOf<NonNullable<SubscriptionInfo['circuit']>>({
          openedAt: time(),
          reason: text(),
          nextProbeAt: time(),
        }),
      ),
      overrides: optional(ref('SubscriptionOverrides')),
      waitingCount: integer('Events that wait, counted for up to 2,500 jobs.'),
      isWaitingCountPartial: flag(),
      instanceCount: integer('Processes that run it.'),
      lagSeconds: number('For how long its first event has been due that may run now.'),
      isBehind: flag('Whether that is longer than its limit.'),
      uncoveredSince: optional(time()),
      registeredAt: time(),
    },
    'A subscription, as the database knows it.',
  ),
} as const
