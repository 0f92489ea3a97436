import type { EventCatalogue } from '../events/catalogue.ts'
import { isLonger } from '../events/characters.ts'
import type { EventOf, NewEvent, Published, StoredEvent } from '../events/envelope.ts'
import { ConfigurationError } from '../events/errors.ts'
import { textProblem } from '../events/json.ts'
import { limits } from '../events/limits.ts'
import type { BusLogger } from '../events/logger.ts'
import { booleanOption, describe, integerOption, refuseUnknownKeys } from '../events/options.ts'
import { checkPattern, isWildcard, type EventPattern, type MatchedType } from '../events/pattern.ts'
import type { DrizzleTransaction } from '../outbox/caller-transaction.ts'
import type { HandlerTransaction } from '../outbox/drizzle-handle.ts'

export type { HandlerTransaction } from '../outbox/drizzle-handle.ts'

/** What a handler gets beside the event. */
export interface HandlerContext<C extends EventCatalogue = EventCatalogue> {
  /** 1 for the first attempt of this subscription at this event. */
  readonly attempt: number
  /** Aborted when the attempt has run out of time, or the process has to stop. Pass it on to what you call. */
  readonly signal: AbortSignal
  /** A logger whose lines carry the event, the subscription and the attempt. */
  readonly log: BusLogger
  /** True when the event was delivered before and is now replayed on purpose. */
  readonly isReplay: boolean
  /**
   * Publishes an event caused by this one: its causation id is this event, its correlation id is carried on unless
   * given. With a Drizzle transaction in front it commits with that transaction; without one it is its own.
   */
  readonly publish: {
    (event: NewEvent<C>): Promise<Published>
    (tx: DrizzleTransaction, event: NewEvent<C>): Promise<Published>
  }
}

/** What a handler gets beside the event with `mode: 'exactly-once'`. */
export interface ExactlyOnceContext<
  C extends EventCatalogue = EventCatalogue,
  Tx = HandlerTransaction,
> extends HandlerContext<C> {
  /**
   * What is written through it commits together with the receipt of the event, or not at all: once, whatever crashes,
   * retries, redeliveries and presumed-dead workers there are. The bus commits it: a handler that ends it by hand is
   * refused. `publish` without a transaction in front joins it. It is read committed, with the search path, time zone and date style
   * that the database and the role say.
   */
  readonly tx: Tx
}

/** What a delivery promises about the effects of a handler. */
export type DeliveryMode = 'at-least-once' | 'exactly-once'

/** The context of a handler in a mode. */
type ContextOf<C extends EventCatalogue, M extends DeliveryMode, Tx> = M extends 'exactly-once'
  ? ExactlyOnceContext<C, Tx>
  : HandlerContext<C>

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

/** What {@link subscribe} takes. */
export interface SubscriptionOptions<
  C extends EventCatalogue,
  P extends EventPattern<C>,
  M extends DeliveryMode = 'at-least-once',
  Tx = HandlerTransaction,
> {
  /** Names the subscription for good: letters, digits, `.`, `_` and `-`, up to 100 characters. Its queue is `bus.<name>`. */
  readonly name: string
  /** Event names, or patterns: `*` stands for one segment, `**` at the end for one or more. */
  readonly events: readonly P[]
  /** A SQL/JSON path predicate over the payload, evaluated by PostgreSQL, such as `$.amountCents > 1000`. */
  readonly where?: string | undefined
  /**
   * `'exactly-once'` gives the handler `ctx.tx`: what it writes through that transaction commits with the event's receipt,
   * so it happens once. It holds for this database only; calls to the outside are made again by a second attempt.
   * Such handlers take their connections from a pool of their own, of the size of the bus's pool.
   * @defaultValue `'at-least-once'`
   */
  readonly mode?: M | undefined
  /** @defaultValue `'now'`: events published before the subscription was first registered are not delivered */
  readonly startFrom?: 'now' | undefined
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
   * Events without a key have no order. With `mode: 'exactly-once'` a row that belongs to the key is read and written by one handler at a
   * time, and each effect is there once, in order. Cannot be changed later. @defaultValue `false`
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
  /**
   * Called once an attempt. Returning or resolving, whatever with, is success; throwing or rejecting, whatever with,
   * is a failed attempt.
   */
  readonly handler: (event: EventOf<C, MatchedType<C, P>>, ctx: ContextOf<C, M, Tx>) => unknown
}

/** Retry options with every default in place. */
export interface ResolvedRetry {
  readonly maxAttempts: number
  readonly delaySeconds: number
  readonly backoff: boolean
  readonly maxDelaySeconds: number
}

/** Circuit breaker options with every default in place. */
export interface CircuitBreaker {
  readonly windowSize: number
  readonly failureRatio: number
  readonly probeSeconds: number
  readonly maxProbeSeconds: number
}

/** What becomes of a key whose event has failed its last attempt. */
export type KeyFailureRule = 'block' | 'park' | 'skip'

/** What of a subscription is kept in the database and read by every relay. */
export interface DurableOptions {
  readonly batchSize: number
  /** Left out where it is false. */
  readonly ordered?: true
  /** Left out where the subscription is not ordered. */
  readonly onKeyFailure?: KeyFailureRule
  readonly timeoutSeconds: number
  readonly heartbeatSeconds: number
  readonly retry: ResolvedRetry
}

/** All options of a subscription but what it is for, as they are registered. */
export interface RegisteredOptions extends DurableOptions {
  readonly mode: DeliveryMode
  readonly concurrency: number
  readonly tenantConcurrency?: number
  readonly circuitBreaker: CircuitBreaker | false
}

/** A subscription with every option checked and in place. */
export interface Subscription extends RegisteredOptions {
  readonly name: string
  readonly patterns: readonly string[]
  readonly where: string | undefined
  readonly handler: (event: StoredEvent, ctx: HandlerContext) => unknown
}

const optionNames = [
  'name',
  'events',
  'where',
  'mode',
  'startFrom',
  'concurrency',
  'tenantConcurrency',
  'batchSize',
  'ordered',
  'onKeyFailure',
  'timeoutSeconds',
  'heartbeatSeconds',
  'retry',
  'circuitBreaker',
  'handler',
]

/** @throws {@link ConfigurationError} where a bus has as many subscriptions, or patterns, as it may have */
export function assertRoom(subscriptions: readonly Subscription[], added: Subscription): void {
  if (subscriptions.length >= limits.subscriptionCount)
    throw invalid(`Expected at most ${limits.subscriptionCount} subscriptions in one bus`)
  const patternCount = [...subscriptions, added].reduce((sum, { patterns }) => sum + patterns.length, 0)
  if (patternCount > limits.busPatternCount)
    throw invalid(
      `Expected at most ${limits.busPatternCount} names and patterns in the subscriptions of one bus, got ${patternCount}`,
    )
}

/** The pg-boss queue of a subscription. */
export function queueName(subscriptionName: string): string {
  return `bus.${subscriptionName}`
}

/** The pg-boss queue of a subscription's dead letters. */
export function deadLetterQueueName(subscriptionName: string): string {
  return `bus.${subscriptionName}.dead`
}

/**
 * Checks the options of a subscription and fills in the defaults. The predicate's syntax is PostgreSQL's to judge,
 * at the start.
 *
 * @throws {@link ConfigurationError} `BUS_INVALID_OPTION`, `BUS_INVALID_PATTERN`, `BUS_INVALID_WHERE`
 */
export function resolveSubscription<
  C extends EventCatalogue,
  P extends EventPattern<C>,
  M extends DeliveryMode,
  Tx,
>(options: SubscriptionOptions<C, P, M, Tx>, catalogue: C): Subscription {
  if (options === null || typeof options !== 'object')
    throw invalid(`Expected the options of a subscription, got ${describe(options)}`)
  refuseUnknownKeys(options, optionNames, 'a subscription')
  const { name, where, retry = {} } = options
  if (
    typeof name !== 'string' ||
    name.length > limits.subscriptionNameLength ||
    !/^[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_-])?$/.test(name) ||
    name.endsWith('.dead')
  ) {
    throw invalid(
      `Expected \`name\` to be 1 to ${limits.subscriptionNameLength} letters, digits, \`.\`, \`_\` or \`-\`, not ending in \`.dead\`, got ${describe(name)}`,
    )
  }
  const mode: DeliveryMode = options.mode === undefined ? 'at-least-once' : options.mode
  if (mode !== 'at-least-once' && mode !== 'exactly-once')
    throw invalid(`Expected \`mode\` to be 'at-least-once' or 'exactly-once', got ${describe(mode)}`)
  if (options.startFrom !== undefined && options.startFrom !== 'now')
    throw invalid(`Expected \`startFrom\` to be 'now', got ${describe(options.startFrom)}`)
  if (typeof options.handler !== 'function')
    throw invalid(`Expected \`handler\` of \`${name}\` to be a function, got ${describe(options.handler)}`)
  if (
    where !== undefined &&
    (typeof where !== 'string' ||
      where.trim() === '' ||
      isLonger(where, limits.whereLength) ||
      textProblem(where) !== undefined)
  ) {
    throw new ConfigurationError(
      'BUS_INVALID_WHERE',
      `Expected \`where\` of \`${name}\` to be a SQL/JSON path predicate like \`$.amountCents > 1000\``,
    )
  }
  return Object.freeze({
    name,
    patterns: resolvePatterns(name, options.events, catalogue),
    where,
    mode,
    concurrency: integerOption('concurrency', options.concurrency, limits.concurrency),
    ...resolveTenantConcurrency(options.tenantConcurrency),
    batchSize: integerOption('batchSize', options.batchSize, limits.batchSize),
    timeoutSeconds: integerOption('timeoutSeconds', options.timeoutSeconds, limits.timeoutSeconds),
    heartbeatSeconds: integerOption('heartbeatSeconds', options.heartbeatSeconds, limits.heartbeatSeconds),
    retry: resolveRetry(name, retry),
    circuitBreaker: resolveCircuitBreaker(name, options.circuitBreaker),
    ...resolveOrder(name, options),
    // The catalogue's types end here: inside, an event is what the log says it is.
    handler: options.handler as unknown as Subscription['handler'],
  })
}

function resolvePatterns(name: string, given: unknown, catalogue: EventCatalogue): readonly string[] {
  // Read once: what is checked is what is kept.
  const patterns: unknown = Array.isArray(given) ? given.slice(0, limits.patternCount + 1) : given
  if (!Array.isArray(patterns) || patterns.length === 0 || patterns.length > limits.patternCount) {
    throw new ConfigurationError(
      'BUS_INVALID_PATTERN',
      `Expected \`events\` of \`${name}\` to be a list of 1 to ${limits.patternCount} event names or patterns`,
    )
  }
  for (const pattern of patterns as unknown[]) {
    checkPattern(pattern)
    if (!isWildcard(pattern) && !Object.hasOwn(catalogue, pattern)) {
      throw new ConfigurationError(
        'BUS_INVALID_PATTERN',
        `The subscription \`${name}\` names ${describe(pattern)}, which the catalogue does not have. Declare it, or use a pattern`,
      )
    }
  }
  return Object.freeze([...new Set(patterns as string[])])
}

function resolveOrder(
  name: string,
  options: { readonly ordered?: unknown; readonly onKeyFailure?: unknown; readonly mode?: unknown },
): Pick<DurableOptions, 'ordered' | 'onKeyFailure'> {
  const ordered = booleanOption('ordered', options.ordered, false)
  const { onKeyFailure } = options
  if (!ordered) {
    if (onKeyFailure !== undefined)
      throw invalid(`Expected \`onKeyFailure\` of \`${name}\` only together with \`ordered: true\``)
    return {}
  }
  if (
    onKeyFailure !== undefined &&
    onKeyFailure !== 'block' &&
    onKeyFailure !== 'park' &&
    onKeyFailure !== 'skip'
  ) {
    throw invalid(
      `Expected \`onKeyFailure\` of \`${name}\` to be 'block', 'park' or 'skip', got ${describe(onKeyFailure)}`,
    )
  }
  return { ordered: true, onKeyFailure: onKeyFailure ?? 'block' }
}

function resolveRetry(name: string, retry: RetryOptions): ResolvedRetry {
  if (retry === null || typeof retry !== 'object' || Array.isArray(retry))
    throw invalid(`Expected \`retry\` of \`${name}\` to be an object, got ${describe(retry)}`)
  refuseUnknownKeys(retry, ['maxAttempts', 'delaySeconds', 'backoff', 'maxDelaySeconds'], '`retry`')
  const resolved = {
    maxAttempts: integerOption('retry.maxAttempts', retry.maxAttempts, limits['retry.maxAttempts']),
    delaySeconds: integerOption('retry.delaySeconds', retry.delaySeconds, limits['retry.delaySeconds']),
    backoff: booleanOption('retry.backoff', retry.backoff, true),
    maxDelaySeconds: integerOption('retry.maxDelaySeconds', retry.maxDelaySeconds, {
      ...limits['retry.maxDelaySeconds'],
      default: Math.max(limits['retry.maxDelaySeconds'].default, retry.delaySeconds ?? 0),
    }),
  }
  if (resolved.maxDelaySeconds < resolved.delaySeconds) {
    throw invalid(
      `Expected \`retry.maxDelaySeconds\` to be at least \`retry.delaySeconds\`, got ${resolved.maxDelaySeconds} and ${resolved.delaySeconds}`,
    )
  }
  return Object.freeze(resolved)
}

function resolveTenantConcurrency(given: unknown): { readonly tenantConcurrency?: number } {
  if (given === undefined) return {}
  return { tenantConcurrency: integerOption('tenantConcurrency', given, { min: 1, max: 1000, default: 1 }) }
}

function resolveCircuitBreaker(
  name: string,
  given: CircuitBreakerOptions | false = {},
): CircuitBreaker | false {
  if (given === false) return false
  if (given === null || typeof given !== 'object' || Array.isArray(given))
    throw invalid(
      `Expected \`circuitBreaker\` of \`${name}\` to be an object or false, got ${describe(given)}`,
    )
  const known = ['windowSize', 'failureRatio', 'probeSeconds', 'maxProbeSeconds']
  refuseUnknownKeys(given, known, '`circuitBreaker`')
  const failureRatio: unknown = given.failureRatio ?? 0.9
  if (typeof failureRatio !== 'number' || !(failureRatio >= 0.5 && failureRatio <= 1)) {
    throw invalid(
      `Expected \`circuitBreaker.failureRatio\` to be a number of at least 0.5 and at most 1, got ${describe(failureRatio)}`,
    )
  }
  const seconds = { min: 1, max: 86_400 }
  const probeSeconds = integerOption('circuitBreaker.probeSeconds', given.probeSeconds, {
    ...seconds,
    default: 5,
  })
  return Object.freeze({
    windowSize: integerOption('circuitBreaker.windowSize', given.windowSize, {
      min: 5,
      max: 1000,
      default: 20,
    }),
    failureRatio,
    probeSeconds,
    maxProbeSeconds: integerOption('circuitBreaker.maxProbeSeconds', given.maxProbeSeconds, {
      min: probeSeconds,
      max: 86_400,
      default: Math.max(300, probeSeconds),
    }),
  })
}

function invalid(message: string): ConfigurationError {
  return new ConfigurationError('BUS_INVALID_OPTION', message)
}
