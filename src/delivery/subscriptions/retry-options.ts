import { limits } from '../../foundation/limits.ts'
import {
  booleanOption,
  describe,
  integerOption,
  invalidOption,
  refuseUnknownKeys,
} from '../../foundation/options.ts'
import type { RetryOptions } from './subscription-options.ts'

/** Retry options with every default applied. */
export interface ResolvedRetry {
  readonly maxAttempts: number
  readonly delaySeconds: number
  readonly backoff: boolean
  readonly maxDelaySeconds: number
  /** The schedule, if there is one: then `delaySeconds` is its first delay and `maxDelaySeconds` its longest. */
  readonly delays?: readonly number[]
}

const formula = ['maxAttempts', 'delaySeconds', 'backoff', 'maxDelaySeconds'] as const

/**
 * Validates retry options and applies the defaults.
 *
 * @param what - names them in the message
 * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`
 */
export function resolveRetry(what: string, retry: RetryOptions): ResolvedRetry {
  if (retry === null || typeof retry !== 'object' || Array.isArray(retry))
    throw invalidOption(`Expected ${what} to be an object, got ${describe(retry)}`, 'retry')
  refuseUnknownKeys(retry, [...formula, 'delays'], '`retry`')
  if (retry.delays !== undefined) return resolveSchedule(what, retry, retry.delays)
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
    throw invalidOption(
      `Expected \`retry.maxDelaySeconds\` to be at least \`retry.delaySeconds\`, got ${resolved.maxDelaySeconds} and ${resolved.delaySeconds}`,
      'retry.maxDelaySeconds',
    )
  }
  return Object.freeze(resolved)
}

function resolveSchedule(what: string, retry: RetryOptions, given: unknown): ResolvedRetry {
  const beside = formula.find((name) => retry[name] !== undefined)
  if (beside !== undefined)
    throw invalidOption(
      `Expected ${what} to have either \`delays\` or \`${beside}\`: a schedule says how many attempts there are, and when`,
      'retry.delays',
    )
  // Read once, so that the validated values are the ones that are kept.
  const delays: unknown = Array.isArray(given) ? given.slice(0, limits.retryDelayCount + 1) : given
  const { max } = limits['retry.maxDelaySeconds']
  const isDelay = (each: unknown): each is number =>
    typeof each === 'number' && Number.isInteger(each) && each >= 0 && each <= max
  if (
    !Array.isArray(delays) ||
    delays.length === 0 ||
    delays.length > limits.retryDelayCount ||
    !delays.every(isDelay)
  )
    throw invalidOption(
      `Expected \`retry.delays\` to be a list of 1 to ${limits.retryDelayCount} whole numbers of seconds, each from 0 to ${max}, got ${describe(given)}`,
      'retry.delays',
    )
  return Object.freeze({
    maxAttempts: delays.length + 1,
    delaySeconds: delays[0] ?? 0,
    backoff: false,
    maxDelaySeconds: Math.max(...delays),
    delays: Object.freeze(delays),
  })
}
