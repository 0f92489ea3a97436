import type { EventCatalogue } from '../../events/catalogue.ts'
import { ConfigurationError } from '../../foundation/errors.ts'
import { describe, invalidOption } from '../../foundation/options.ts'
import { compilePatterns, type EventPattern } from '../../events/pattern.ts'
import type { HandlerTransaction } from '../../database/drizzle-handle.ts'
import type { DeliveryMode, HandlerOption, ModeOption, SubscriptionOptions } from './subscription-options.ts'
import { resolveSubscription, type Subscription } from './subscription.ts'

/**
 * Says for which buses a subscription was defined: those whose catalogue has the events that it was defined with, and whose `ctx.tx` its
 * handler takes. For the compiler alone.
 */
interface ForBus<C extends EventCatalogue, Tx> {
  // Not marked as internal: what is taken out of the declarations is not checked where they are used.
  readonly '~bus': (catalogue: C, tx: Tx) => void
}

/** A subscription made by {@link defineSubscription}, of a bus that has the events `C`: what `bus.subscribe` takes. */
export interface DefinedSubscription<C extends EventCatalogue = never, Tx = never> extends ForBus<C, Tx> {
  readonly name: string
}

/**
 * Which `ctx.tx` of a bus fits: that of any, where the handler asks no more of it than each bus has. A bus with tables (the option
 * `drizzle`) has all that one without has.
 */
type FittingTx<M extends DeliveryMode, Tx> = M extends 'exactly-once'
  ? HandlerTransaction extends Tx
    ? unknown
    : Tx
  : unknown

/** What {@link defineSubscription} returns: the options that it was given, and for which buses they are. */
export interface SubscriptionDefinition<
  C extends EventCatalogue,
  P extends EventPattern<C>,
  M extends DeliveryMode = 'at-least-once',
  Tx = HandlerTransaction,
>
  extends ModeOption<P, M>, HandlerOption<C, P, M, Tx>, DefinedSubscription<C, FittingTx<M, Tx>> {
  readonly name: string
  readonly mode: [M] extends ['exactly-once'] ? M : M | undefined
}

/** Which events each was defined with. */
const definedWith = new WeakMap<object, EventCatalogue>()

/**
 * Declares a subscription apart from the bus that runs it, as in a file of its own: `bus.subscribe(openCase)`. Types are those of
 * `bus.subscribe`. A bus whose catalogue has more events takes it too. For tests, `openCase.handler` can be called, and
 * `runHandler` of `bossbus/testing` calls it as a bus does. Returns a frozen copy: later changes to the object given have no effect.
 *
 * @example
 * ```ts
 * export const openCase = defineSubscription(events, {
 *   name: 'open-case',
 *   events: ['payment.paid'],
 *   handler: async ({ payload, tenantId }) => openCaseFor(tenantId, payload.paymentId),
 * })
 * ```
 * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`, `BUS_INVALID_PATTERN`, `BUS_INVALID_WHERE`
 */
export function defineSubscription<
  const C extends EventCatalogue,
  const P extends EventPattern<C>,
  const M extends DeliveryMode = 'at-least-once',
  Tx = HandlerTransaction,
>(events: C, options: SubscriptionOptions<C, P, M, Tx>): SubscriptionDefinition<C, P, M, Tx> {
  if (events === null || typeof events !== 'object')
    throw invalidOption(
      `Expected the first argument to be the catalogue made by defineEvents, got ${describe(events)}`,
    )
  resolveSubscription(options, events)
  const defined = Object.freeze({ ...options })
  definedWith.set(defined, events)
  return defined as unknown as SubscriptionDefinition<C, P, M, Tx>
}

/**
 * Refuses a subscription that would be given events of the bus that those it was defined with do not have.
 * @throws a {@link ConfigurationError} `BUS_INVALID_PATTERN`
 */
export function assertFits(given: object, { name, patterns }: Subscription, catalogue: EventCatalogue): void {
  const events = definedWith.get(given)
  if (events === undefined) return
  const matches = compilePatterns(patterns)
  const foreign = Object.keys(catalogue).find((type) => matches(type) && !Object.hasOwn(events, type))
  if (foreign === undefined) return
  throw new ConfigurationError(
    'BUS_INVALID_PATTERN',
    `The subscription \`${name}\` would be given ${describe(foreign)}, which the events that it was defined with do not have. Define it with all events of the bus, or name its types`,
  )
}
