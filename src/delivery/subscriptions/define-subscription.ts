import type { EventCatalogue } from '../../events/catalogue.ts'
import { ConfigurationError } from '../../foundation/errors.ts'
import { describe, invalidOption } from '../../foundation/options.ts'
import { compilePatterns, type EventPattern } from '../../events/pattern.ts'
import type { HandlerTransaction } from '../../database/drizzle-handle.ts'
import type { DeliveryMode, HandlerOption, ModeOption, SubscriptionOptions } from './subscription-options.ts'
import { resolveSubscription, type Subscription } from './subscription.ts'

/**
 * Marks the buses that a subscription fits: those whose catalogue has its events, and whose `ctx.tx` its handler
 * accepts. For the compiler only.
 */
interface ForBus<C extends EventCatalogue, Tx> {
  // Not marked as internal, because the compiler does not check members that are stripped from the declarations.
  readonly '~bus': (catalogue: C, tx: Tx) => void
}

/** A subscription made by {@link defineSubscription} for buses with the events `C`: an argument of `bus.subscribe`. */
export interface DefinedSubscription<C extends EventCatalogue = never, Tx = never> extends ForBus<C, Tx> {
  readonly name: string
}

/**
 * The `ctx.tx` that a bus must have: any, if the handler needs only what every bus has. A bus with tables (the option
 * `drizzle`) has everything that one without tables has.
 */
type FittingTx<M extends DeliveryMode, Tx> = M extends 'exactly-once'
  ? HandlerTransaction extends Tx
    ? unknown
    : Tx
  : unknown

/** The result of {@link defineSubscription}: its options, and the buses that they fit. */
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

/** The catalogue that each subscription was defined with. */
const definedWith = new WeakMap<object, EventCatalogue>()

/**
 * Declares a subscription separately from the bus that runs it, for example in a file of its own:
 * `bus.subscribe(openCase)`. The types are those of `bus.subscribe`. A bus whose catalogue has more events accepts it
 * too. In tests, call `openCase.handler` directly, or use `runHandler` of `bossbus/testing`, which calls it like a bus.
 * Returns a frozen copy: later changes to the object passed in have no effect.
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
 * Refuses a subscription whose patterns match events of the bus that the catalogue it was defined with does not have.
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
    `The subscription \`${name}\` would receive ${describe(foreign)}, which its own catalogue does not contain. Define it with all events of the bus, or list its types`,
  )
}
