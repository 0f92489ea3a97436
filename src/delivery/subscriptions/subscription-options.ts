import type { EventCatalogue, EventType, PayloadOutput } from '../../events/catalogue.ts'
import type { StoredEvent } from '../../events/envelope.ts'
import type { EventPattern, MatchedType } from '../../events/pattern.ts'
import type { HandlerTransaction } from '../../database/drizzle-handle.ts'
import type { ExactlyOnceContext, HandlerContext } from './handler-context.ts'

/** What a delivery promises about the effects of a handler. */
export type DeliveryMode = 'at-least-once' | 'exactly-once'

/** What becomes of a key whose event has failed its last attempt. */
export type KeyFailureRule = 'block' | 'park' | 'skip'

/** How often and how fast a failed event is tried again. */
export interface RetryOptions {
  /** Attempts in all, the first one included, 1 to 100. @defaultValue `5` */
  readonly maxAttempts?: number | undefined
  /** Before the second attempt, in whole seconds. With backoff, doubled each time. @defaultValue `1` */
  readonly delaySeconds?: number | undefined
  /** Whether the delay doubles with each attempt, with up to as much again at random. @defaultValue `true` */
  readonly backoff?: boolean | undefined
  /** The longest delay, in whole seconds. @defaultValue `300` */
  readonly maxDelaySeconds?: number | undefined
}

/** When a subscription that fails everything is halted, and how it is tried again. */
export interface CircuitBreakerOptions {
  /** The latest attempts of a process that are looked at, 5 to 1,000. @defaultValue `20` */
  readonly windowSize?: number | undefined
  /** The share of them that must have failed, 0.5 to 1. @defaultValue `0.9` */
  readonly failureRatio?: number | undefined
  /** Until the first event is tried again, in whole seconds; doubled each time. @defaultValue `5` */
  readonly probeSeconds?: number | undefined
  /** The longest time between two such events, in whole seconds. @defaultValue `300` */
  readonly maxProbeSeconds?: number | undefined
}

/** What all subscriptions take. */
interface CommonOptions<P extends string> {
  /** Names the subscription for good: letters, digits, `.`, `_` and `-`, up to 100 characters. Its queue is `bus.<name>`. */
  readonly name: string
  /** Event names, or patterns: `*` stands for one segment, `**` at the end for one or more. */
  readonly events: readonly P[]
  /** A SQL/JSON path predicate over the payload, evaluated by PostgreSQL, such as `$.amountCents > 1000`. */
  readonly where?: string | undefined
  /** Handlers running at a time in this process, 1 to 1,000. Raise it for handlers that wait. @defaultValue `10` */
  readonly concurrency?: number | undefined
  /**
   * Handlers of one tenant running at a time in this process, at least 1. What waits of a tenant at its limit keeps neither slots nor memory from
   * the others. @defaultValue no limit but `concurrency`
   */
  readonly tenantConcurrency?: number | undefined
  /**
   * Most events whose first attempt is one pg-boss job, 1 to 100. Large ones are what makes delivery fast; with slow
   * handlers a small one spreads the work over processes sooner, and bounds what runs again after a crash.
   * @defaultValue `100`
   */
  readonly batchSize?: number | undefined
  /**
   * Whether events with an `orderingKey` reach the handler in the order they were published, one at a time for each
   * tenant and key, whatever the number of instances. A failed one is tried again before the next; other keys go on.
   * Events without a key have no order. Cannot be changed later. @defaultValue `false`
   */
  readonly ordered?: boolean | undefined
  /**
   * What an event that has failed its last attempt means for its key, in an ordered subscription. `'block'`: the later
   * events wait until the key is released. `'park'`: they wait too, as dead letters. `'skip'`: it is left behind as a dead letter, and the
   * key goes on. @defaultValue `'block'`
   */
  readonly onKeyFailure?: KeyFailureRule | undefined
  /**
   * An attempt fails after this long, 1 to 3,600 seconds; its signal is aborted. A handler that runs on all the same keeps its place among
   * `concurrency` and `tenantConcurrency` until it ends and, in an ordered subscription, its key. @defaultValue `60`
   */
  readonly timeoutSeconds?: number | undefined
  /**
   * A worker that was not heard of for this long is taken for dead, and its events run again at most 5 seconds later, 10 to
   * 3,600 seconds. Workers are heard of three times as often, also while a handler runs, but not while one keeps the event
   * loop busy: one that does so for this long is taken for dead, and its events run twice.
   * @defaultValue `30`
   */
  readonly heartbeatSeconds?: number | undefined
  readonly retry?: RetryOptions | undefined
  /**
   * What happens when everything fails: nearly all of the latest attempts, at several events, and of no tenant the latest
   * attempt within a minute succeeded. Then nothing new is begun, in any process, and no attempts are used up; one event at a time
   * is tried, which does not count when it fails, and the first success lets everything go on. `false`: every event is tried as
   * often as `retry` says, also through an outage. @defaultValue `{ windowSize: 20, failureRatio: 0.9, probeSeconds: 5, maxProbeSeconds: 300 }`
   */
  readonly circuitBreaker?: CircuitBreakerOptions | false | undefined
}

/** `EventOf`, told by its events: of its own name an editor would show the whole catalogue, twice. */
type HandledEvent<C extends EventCatalogue, T extends EventType<C>> = T extends unknown
  ? StoredEvent<T, PayloadOutput<C, T>>
  : never

/** The context of a handler in a mode. */
type ContextOf<C extends EventCatalogue, M extends DeliveryMode, Tx> = M extends 'exactly-once'
  ? ExactlyOnceContext<C, Tx>
  : HandlerContext<C>

/** The options of a subscription but its handler. */
export type OptionsBesideHandler<P extends string, M extends DeliveryMode> = ModeOption<P, M> &
  ([M] extends ['exactly-once'] ? { readonly mode: NoInfer<M> } : unknown)

/** The options that all subscriptions take, and the mode. */
export interface ModeOption<P extends string, M extends DeliveryMode> extends CommonOptions<P> {
  /**
   * `'exactly-once'` gives the handler `ctx.tx`: what it writes through that transaction commits with the event's receipt,
   * so it happens once. It holds for this database only; calls to the outside are made again by a second attempt.
   * Such handlers take their connections from a pool of their own, of the size of the bus's pool.
   * @defaultValue `'at-least-once'`
   */
  readonly mode?: M | undefined
}

/** A handler of some events of a catalogue. */
export type Handler<
  C extends EventCatalogue,
  P extends EventPattern<C>,
  M extends DeliveryMode = 'at-least-once',
  Tx = HandlerTransaction,
> = (event: HandledEvent<C, MatchedType<C, P>>, ctx: ContextOf<C, M, Tx>) => unknown

/** The handler of a subscription. */
export interface HandlerOption<
  C extends EventCatalogue,
  P extends EventPattern<C>,
  M extends DeliveryMode,
  Tx,
> {
  /**
   * Called once an attempt. Returning or resolving, whatever with, is success; throwing or rejecting, whatever with,
   * is a failed attempt.
   */
  readonly handler: Handler<C, P, M, Tx>
}

/** What `bus.subscribe` and `defineSubscription` take. */
export type SubscriptionOptions<
  C extends EventCatalogue,
  P extends EventPattern<C>,
  M extends DeliveryMode = 'at-least-once',
  Tx = HandlerTransaction,
> = OptionsBesideHandler<P, M> & HandlerOption<C, P, M, Tx>

/** The options of any subscription, of any catalogue. */
export interface AnySubscriptionOptions extends CommonOptions<string> {
  readonly mode?: DeliveryMode | undefined
  readonly handler: (event: never, ctx: never) => unknown
}
