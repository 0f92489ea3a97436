import type { BusState } from './bus-health.ts'
import type { SubscriptionHandle } from './bus-interface.ts'
import type { Delivery } from './delivery/delivery.ts'
import { assertFits } from './delivery/subscriptions/define-subscription.ts'
import type { DeadLetterCallbacks } from './delivery/subscriptions/dead-letter-callbacks.ts'
import type { AnySubscriptionOptions } from './delivery/subscriptions/subscription-options.ts'
import {
  assertSubscriptionLimits,
  resolveSubscription,
  type Subscription,
} from './delivery/subscriptions/subscription.ts'
import type { EventCatalogue } from './events/catalogue.ts'
import { ConfigurationError, StateError } from './foundation/errors.ts'
import { reasonOf } from './foundation/error-reason.ts'
import { limits } from './foundation/limits.ts'
import type { BusLogger } from './foundation/logger.ts'
import { assertObject, integerOption, refuseUnknownKeys } from './foundation/options.ts'
import { runOutside } from './telemetry/guarded-span.ts'

/** What the subscriptions of a bus need to know of it. */
export interface BusSubscriptionsParts {
  readonly catalogue: EventCatalogue
  /** Subscriptions of the bus itself. */
  readonly builtIn: readonly Subscription[]
  /** Of the bus: for subscriptions without their own. */
  readonly callbacks: DeadLetterCallbacks
  readonly logger: BusLogger
  readonly state: () => BusState
  /** The start that is under way, or over. */
  readonly starting: () => Promise<void> | undefined
  readonly delivery: () => Delivery | undefined
  /** Names of receivers: `run` lists both. */
  readonly receiverNames: () => readonly string[]
}

/** The subscriptions that a bus declares, before its start and after it. */
export interface BusSubscriptions {
  readonly declared: readonly Subscription[]
  /** What was passed to `subscribe` for them. */
  readonly given: () => readonly object[]
  readonly subscribe: (given: object) => SubscriptionHandle
}

export function createBusSubscriptions(parts: BusSubscriptionsParts): BusSubscriptions {
  const { catalogue, callbacks, logger } = parts
  const declared = [...parts.builtIn]
  const givenFor = new WeakMap<Subscription, object>()

  function withdraw(subscription: Subscription): void {
    const index = declared.indexOf(subscription)
    if (index !== -1) declared.splice(index, 1)
  }

  async function add(subscription: Subscription): Promise<void> {
    await parts.starting()
    const delivery = parts.delivery()
    if (parts.state() !== 'started' || delivery === undefined)
      throw new StateError(`Expected the bus to run when \`${subscription.name}\` is added: it was stopped`)
    await delivery.add(subscription)
  }

  /** Nobody need wait for it: then the log says that it failed. */
  function addNow(subscription: Subscription): Promise<void> {
    // Its worker goes on when the caller's trace is long over.
    const adding = runOutside(async () => add(subscription))
    adding.catch((error: unknown) => {
      withdraw(subscription)
      logger.error(
        { subscription: subscription.name, reason: reasonOf(error) },
        'a subscription could not be added to the running bus',
      )
    })
    return adding
  }

  function subscribe(given: object): SubscriptionHandle {
    const state = parts.state()
    if (state === 'stopping' || state === 'stopped')
      throw new StateError('Expected subscribe() before stop(): a stopped bus delivers nothing')
    if (state === 'started' && parts.delivery() === undefined)
      throw new StateError(
        "Expected subscribe() before start({ run: 'nothing' }), or a bus that runs subscriptions: this one only publishes",
      )
    const resolved = resolveSubscription(given as AnySubscriptionOptions, catalogue)
    assertFits(given, resolved, catalogue)
    const subscription: Subscription = Object.freeze({ ...callbacks, ...resolved })
    const isReceiver = parts.receiverNames().includes(subscription.name)
    if (isReceiver || declared.some(({ name }) => name === subscription.name)) {
      throw new ConfigurationError(
        'BUS_DUPLICATE_SUBSCRIPTION',
        `The ${isReceiver ? 'receiver' : 'subscription'} \`${subscription.name}\` exists already in this bus`,
      )
    }
    assertSubscriptionLimits(declared, subscription)
    declared.push(subscription)
    givenFor.set(subscription, given)
    const adding = state === 'created' ? undefined : addNow(subscription)
    let stopping: Promise<void> | undefined

    async function stop(graceMs: number): Promise<void> {
      // Whoever added it has heard of a failure.
      await adding?.catch(() => {})
      await parts.starting()?.catch(() => {})
      await parts.delivery()?.remove(subscription.name, graceMs)
      withdraw(subscription)
    }

    return {
      name: subscription.name,
      async ready() {
        if (adding !== undefined) return adding
        if (parts.starting() === undefined)
          throw new StateError(`Expected start() before ready() of the subscription \`${subscription.name}\``)
        await parts.starting()
      },
      async stop(options = {}) {
        assertObject('options like { graceMs }', options)
        refuseUnknownKeys(options, ['graceMs'], 'stop')
        stopping ??= stop(integerOption('graceMs', options.graceMs, limits.graceMs))
        await stopping
      },
    }
  }

  return { declared, given: () => declared.flatMap((each) => givenFor.get(each) ?? []), subscribe }
}
