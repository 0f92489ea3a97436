import type { EventCatalogue } from '../../events/catalogue.ts'
import type { StoredEvent } from '../../events/envelope.ts'
import { ConfigurationError } from '../../foundation/errors.ts'
import { limits } from '../../foundation/limits.ts'
import {
  booleanOption,
  describe,
  integerOption,
  refuseUnknownKeys,
  invalidOption,
} from '../../foundation/options.ts'
import { checkPattern, isWildcard } from '../../events/pattern.ts'
import { callbackNames, resolveCallbacks, type DeadLetterCallbacks } from './dead-letter-callbacks.ts'
import type { HandlerContext } from './handler-context.ts'
import type {
  AnySubscriptionOptions,
  CircuitBreakerOptions,
  DeliveryMode,
  KeyFailureRule,
} from './subscription-options.ts'
import { isDate } from '../../foundation/cross-realm.ts'
import { isLonger, invalidTextReason } from '../../foundation/text.ts'
import { assertSubscriptionName } from './subscription-name.ts'
import { resolveRetry, type ResolvedRetry } from './retry-options.ts'

/** Circuit breaker options with every default applied. */
export interface CircuitBreaker {
  readonly windowSize: number
  readonly failureRatio: number
  readonly probeSeconds: number
  readonly maxProbeSeconds: number
}

/** The options of a subscription that are stored in the database and read by every relay. */
export interface DurableOptions {
  readonly batchSize: number
  /** Omitted if it is false. */
  readonly ordered?: true
  /** Omitted if the subscription is not ordered. */
  readonly onKeyFailure?: KeyFailureRule
  readonly timeoutSeconds: number
  readonly heartbeatSeconds: number
  readonly retry: ResolvedRetry
}

/** All registered options of a subscription. */
export interface RegisteredOptions extends DurableOptions {
  readonly mode: DeliveryMode
  readonly concurrency: number
  readonly tenantConcurrency?: number
  readonly circuitBreaker: CircuitBreaker | false
  readonly lagLimitSeconds?: number
}

/** A subscription with validated options and every default applied. */
export interface Subscription extends RegisteredOptions, DeadLetterCallbacks {
  readonly name: string
  readonly patterns: readonly string[]
  readonly where: string | undefined
  /** Where it starts in the log if it is new. Not registered. */
  readonly startFrom?: 'beginning' | Date
  readonly handler: (event: StoredEvent, ctx: HandlerContext) => unknown
}

/** Options of `bus.subscribe`. */
export const subscriptionOptionNames: readonly string[] = [
  'name',
  'events',
  'where',
  'mode',
  'concurrency',
  'tenantConcurrency',
  'batchSize',
  'ordered',
  'onKeyFailure',
  'timeoutSeconds',
  'heartbeatSeconds',
  'retry',
  'lagLimitSeconds',
  'circuitBreaker',
  'startFrom',
  'handler',
  ...callbackNames,
]

/** @throws {@link ConfigurationError} if a bus already has the maximum number of subscriptions or patterns */
export function assertSubscriptionLimits(subscriptions: readonly Subscription[], added: Subscription): void {
  if (subscriptions.length >= limits.subscriptionCount)
    throw invalidOption(`Expected at most ${limits.subscriptionCount} subscriptions in one bus`)
  const patternCount = [...subscriptions, added].reduce((sum, { patterns }) => sum + patterns.length, 0)
  if (patternCount > limits.busPatternCount)
    throw invalidOption(
      `Expected at most ${limits.busPatternCount} names and patterns in the subscriptions of one bus, got ${patternCount}`,
    )
}

/**
 * Validates the options of a subscription and applies the defaults. PostgreSQL checks the syntax of the predicate at
 * the start.
 *
 * @throws {@link ConfigurationError} `BUS_INVALID_OPTION`, `BUS_INVALID_PATTERN`, `BUS_INVALID_WHERE`
 */
export function resolveSubscription(
  options: AnySubscriptionOptions,
  catalogue: EventCatalogue,
): Subscription {
  if (options === null || typeof options !== 'object')
    throw invalidOption(`Expected the options of a subscription, got ${describe(options)}`)
  refuseUnknownKeys(options, subscriptionOptionNames, 'a subscription')
  const { name, where, retry = {} } = options
  assertSubscriptionName(name)
  const mode: DeliveryMode = options.mode === undefined ? 'at-least-once' : options.mode
  if (mode !== 'at-least-once' && mode !== 'exactly-once')
    throw invalidOption(
      `Expected \`mode\` to be 'at-least-once' or 'exactly-once', got ${describe(mode)}`,
      'mode',
    )
  if (typeof options.handler !== 'function')
    throw invalidOption(
      `Expected \`handler\` of \`${name}\` to be a function, got ${describe(options.handler)}`,
      'handler',
    )
  if (
    where !== undefined &&
    (typeof where !== 'string' ||
      where.trim() === '' ||
      isLonger(where, limits.whereLength) ||
      invalidTextReason(where) !== undefined)
  ) {
    throw new ConfigurationError(
      'BUS_INVALID_WHERE',
      `Expected \`where\` of \`${name}\` to be a SQL/JSON path predicate like \`$.amountCents > 1000\``,
      { option: 'where' },
    )
  }
  if (where !== undefined && !where.includes('$')) {
    throw new ConfigurationError(
      'BUS_INVALID_WHERE',
      `Expected \`where\` of \`${name}\` to be a SQL/JSON path predicate over the payload, which is \`$\`: such as ${describe(`$.${where.trim()}`)}, got ${describe(where)}`,
      { option: 'where' },
    )
  }
  return Object.freeze({
    name,
    patterns: resolvePatterns(name, options.events, catalogue),
    where,
    mode,
    concurrency: integerOption('concurrency', options.concurrency, limits.concurrency),
    ...resolveTenantConcurrency(options.tenantConcurrency),
    ...resolveLagLimit(options.lagLimitSeconds),
    batchSize: integerOption('batchSize', options.batchSize, limits.batchSize),
    timeoutSeconds: integerOption('timeoutSeconds', options.timeoutSeconds, limits.timeoutSeconds),
    heartbeatSeconds: integerOption('heartbeatSeconds', options.heartbeatSeconds, limits.heartbeatSeconds),
    retry: resolveRetry(`\`retry\` of \`${name}\``, retry),
    circuitBreaker: resolveCircuitBreaker(name, options.circuitBreaker),
    ...resolveOrder(name, options),
    ...resolveCallbacks(`\`${name}\``, options),
    ...resolveStartFrom(name, options.startFrom),
    // The types of the catalogue end here: internally, an event is whatever the log contains.
    handler: options.handler as unknown as Subscription['handler'],
  })
}

function resolvePatterns(name: string, given: unknown, catalogue: EventCatalogue): readonly string[] {
  // Read once, so that the validated value is the one that is kept.
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
        `The subscription \`${name}\` names ${describe(pattern)}, which the catalogue does not contain. Declare it, or use a pattern`,
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
      throw invalidOption(
        `Expected \`onKeyFailure\` of \`${name}\` only together with \`ordered: true\``,
        'onKeyFailure',
      )
    return {}
  }
  if (
    onKeyFailure !== undefined &&
    onKeyFailure !== 'block' &&
    onKeyFailure !== 'park' &&
    onKeyFailure !== 'skip'
  ) {
    throw invalidOption(
      `Expected \`onKeyFailure\` of \`${name}\` to be 'block', 'park' or 'skip', got ${describe(onKeyFailure)}`,
      'onKeyFailure',
    )
  }
  return { ordered: true, onKeyFailure: onKeyFailure ?? 'block' }
}

function resolveStartFrom(name: string, given: unknown): Pick<Subscription, 'startFrom'> {
  if (given === undefined) return {}
  if (given === 'beginning') return { startFrom: given }
  const year = isDate(given) ? given.getUTCFullYear() : Number.NaN
  if (year >= 1970 && year <= 9999) return { startFrom: new Date((given as Date).getTime()) }
  throw invalidOption(
    `Expected \`startFrom\` of \`${name}\` to be 'beginning' or a Date from 1970 to 9999, got ${describe(given)}`,
    'startFrom',
  )
}

function resolveTenantConcurrency(given: unknown): { readonly tenantConcurrency?: number } {
  if (given === undefined) return {}
  return { tenantConcurrency: integerOption('tenantConcurrency', given, { min: 1, max: 1000, default: 1 }) }
}

function resolveLagLimit(given: unknown): { readonly lagLimitSeconds?: number } {
  if (given === undefined) return {}
  return { lagLimitSeconds: integerOption('lagLimitSeconds', given, limits.lagLimitSeconds) }
}

function resolveCircuitBreaker(
  name: string,
  given: CircuitBreakerOptions | false = {},
): CircuitBreaker | false {
  if (given === false) return false
  if (given === null || typeof given !== 'object' || Array.isArray(given))
    throw invalidOption(
      `Expected \`circuitBreaker\` of \`${name}\` to be an object or false, got ${describe(given)}`,
      'circuitBreaker',
    )
  const known = ['windowSize', 'failureRatio', 'probeSeconds', 'maxProbeSeconds']
  refuseUnknownKeys(given, known, '`circuitBreaker`')
  const failureRatio: unknown = given.failureRatio === undefined ? 0.9 : given.failureRatio
  if (typeof failureRatio !== 'number' || !(failureRatio >= 0.5 && failureRatio <= 1)) {
    throw invalidOption(
      `Expected \`circuitBreaker.failureRatio\` to be a number of at least 0.5 and at most 1, got ${describe(failureRatio)}`,
      'circuitBreaker.failureRatio',
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
