import type { EventCatalogue, EventType, PayloadOutput } from '../../events/catalogue.ts'
import type { StoredEvent } from '../../events/envelope.ts'
import type { EventPattern, MatchedType } from '../../events/pattern.ts'
import type { HandlerTransaction } from '../../database/drizzle-handle.ts'
import type { DeadLetterCallbacks } from './dead-letter-callbacks.ts'
import type { ExactlyOnceContext, HandlerContext } from './handler-context.ts'

/** The guarantee for the effects of a handler. */
export type DeliveryMode = 'at-least-once' | 'exactly-once'

/** What happens to a key whose event has failed its last attempt. */
export type KeyFailureRule = 'block' | 'park' | 'skip'

/** How often, and with which delays, a failed event is retried. */
export interface RetryOptions {
  /**
   * Maximum number of attempts, including the first one, 1 to 100. With the defaults the last one is 67 to 77 minutes after the
   * first: an outage of an hour leaves no dead letters.
   * @defaultValue `16`
   */
  readonly maxAttempts?: number | undefined
  /**
   * The delay before the second attempt, in whole seconds. With backoff it doubles for each further attempt.
   * @defaultValue `1`
   */
  readonly delaySeconds?: number | undefined
  /** Whether the delay doubles with each attempt, with up to 100 % random jitter. @defaultValue `true` */
  readonly backoff?: boolean | undefined
  /** The maximum delay, in whole seconds. @defaultValue `600` */
  readonly maxDelaySeconds?: number | undefined
  /**
   * A schedule in place of the options above: the delay before the second attempt, before the third, and so on, in whole seconds, 1 to
   * 99 of them. There is one attempt more than delays. They are kept exactly, without jitter.
   */
  readonly delays?: readonly number[] | undefined
}

/** When a failing subscription is halted, and how it is probed. */
export interface CircuitBreakerOptions {
  /** The number of latest attempts of a process that are considered, 5 to 1,000. @defaultValue `20` */
  readonly windowSize?: number | undefined
  /** The share of them that must have failed to open the breaker, 0.5 to 1. @defaultValue `0.9` */
  readonly failureRatio?: number | undefined
  /** The delay before the first probe, in whole seconds; it doubles each time. @defaultValue `5` */
  readonly probeSeconds?: number | undefined
  /** The maximum delay between two probes, in whole seconds. @defaultValue `300` */
  readonly maxProbeSeconds?: number | undefined
}

/** Options of all subscriptions. */
interface CommonOptions<P extends string> extends DeadLetterCallbacks {
  /**
   * The permanent name of the subscription: letters, digits, `.`, `_` and `-`, up to 100 characters. Its queue is
   * `bus.<name>`.
   */
  readonly name: string
  /** Event names or patterns: `*` stands for one segment, `**` at the end for one or more. */
  readonly events: readonly P[]
  /** A SQL/JSON path predicate over the payload that PostgreSQL evaluates, such as `$.amountCents > 1000`. */
  readonly where?: string | undefined
  /**
   * Maximum number of handlers that run concurrently in this process, 1 to 1,000. Raise it for handlers that mostly
   * wait.
   * @defaultValue `10`
   */
  readonly concurrency?: number | undefined
  /**
   * Maximum number of handlers of one tenant that run concurrently in this process, at least 1. Waiting events of a
   * tenant at its limit use neither slots nor memory of the others.
   * @defaultValue no limit except `concurrency`
   */
  readonly tenantConcurrency?: number | undefined
  /**
   * Maximum number of events whose first attempt shares one pg-boss job, 1 to 100. Large batches make delivery fast.
   * With slow handlers, small ones distribute work over the processes sooner, and limit how many events run again after
   * a crash.
   * @defaultValue `100`
   */
  readonly batchSize?: number | undefined
  /**
   * Whether events with an `orderingKey` are handled in publish order, one at a time for each tenant and key, across
   * all instances. A failed event is retried before the next one; other keys continue. Events without a key have no
   * order. Cannot be changed later.
   * @defaultValue `false`
   */
  readonly ordered?: boolean | undefined
  /**
   * What happens to the key of an event that has failed its last attempt, in an ordered subscription. `'block'`: later
   * events wait until the key is released. `'park'`: they wait as dead letters. `'skip'`: the event stays behind as a
   * dead letter, and the key continues.
   * @defaultValue `'block'`
   */
  readonly onKeyFailure?: KeyFailureRule | undefined
  /**
   * The time limit of an attempt, 1 to 3,600 seconds. Then the attempt fails and its signal is aborted. A handler that
   * keeps running occupies its place in `concurrency` and `tenantConcurrency`, and in an ordered subscription its key,
   * until it ends.
   * @defaultValue `60`
   */
  readonly timeoutSeconds?: number | undefined
  /**
   * How long a worker may go without a heartbeat before it is considered dead, 10 to 3,600 seconds. Its events run again
   * at most 5 seconds later. Workers send three heartbeats in this time, also while handlers run, but not while a handler
   * blocks the event loop: a worker blocked for this long is considered dead, and its events run twice.
   * @defaultValue `30`
   */
  readonly heartbeatSeconds?: number | undefined
  readonly retry?: RetryOptions | undefined
  /**
   * For how long an event may wait that could run, in whole seconds, 1 to 604,800. Beyond that the subscription is behind: `bus.health()`
   * has the finding `subscription-behind`, and the state of the subscription is `'behind'`.
   * @defaultValue no limit
   */
  readonly lagLimitSeconds?: number | undefined
  /**
   * When the subscription is halted: when nearly all of the latest attempts failed, at several events, and no tenant's
   * latest attempt within a minute succeeded. Then no process starts new events, and no attempts are used up. Single
   * events are tried as probes, whose failures do not count, and the first success closes the breaker. `false`: every
   * event is tried as often as `retry` says, even during an outage.
   * @defaultValue `{ windowSize: 20, failureRatio: 0.9, probeSeconds: 5, maxProbeSeconds: 300 }`
   */
  readonly circuitBreaker?: CircuitBreakerOptions | false | undefined
  /**
   * Where a new subscription starts: it also gets what the log holds from the beginning, or from a time on, each event once, while new events
   * are delivered beside it. In an ordered subscription new events wait until it has caught up. It counts when the subscription is
   * registered first, and never again.
   * @defaultValue with the events that are published after its first start
   */
  readonly startFrom?: 'beginning' | Date | undefined
}

/** `EventOf`, displayed by its events: under its own name an editor would show the whole catalogue twice. */
type HandledEvent<C extends EventCatalogue, T extends EventType<C>> = T extends unknown
  ? StoredEvent<T, PayloadOutput<C, T>>
  : never

/** The context of a handler in a mode. */
type ContextOf<C extends EventCatalogue, M extends DeliveryMode, Tx> = M extends 'exactly-once'
  ? ExactlyOnceContext<C, Tx>
  : HandlerContext<C>

/** The options of a subscription without its handler. */
export type OptionsBesideHandler<P extends string, M extends DeliveryMode> = ModeOption<P, M> &
  ([M] extends ['exactly-once'] ? { readonly mode: NoInfer<M> } : unknown)

/** The options of all subscriptions, and the mode. */
export interface ModeOption<P extends string, M extends DeliveryMode> extends CommonOptions<P> {
  /**
   * `'exactly-once'` passes `ctx.tx` to the handler. Writes through that transaction commit with the event's receipt,
   * so they take effect once. This covers only this database; calls to other systems are repeated by a second attempt.
   * These handlers take their connections from a separate pool, of the same size as the bus's pool.
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
  /** Called once per attempt. Any return or resolved value is a success; any throw or rejection is a failed attempt. */
  readonly handler: Handler<C, P, M, Tx>
}

/** Options of `bus.subscribe` and `defineSubscription`. */
export type SubscriptionOptions<
  C extends EventCatalogue,
  P extends EventPattern<C>,
  M extends DeliveryMode = 'at-least-once',
  Tx = HandlerTransaction,
> = OptionsBesideHandler<P, M> & HandlerOption<C, P, M, Tx>

/** The options of any subscription of any catalogue. */
export interface AnySubscriptionOptions extends CommonOptions<string> {
  readonly mode?: DeliveryMode | undefined
  readonly handler: (event: never, ctx: never) => unknown
}
