import type { ResolvedRetry } from './retry-options.ts'

/** The delay before the second attempt in seconds, computed like pg-boss, with the same jitter. */
export function firstRetryDelaySeconds(retry: ResolvedRetry): number {
  if (!retry.backoff) return retry.delaySeconds
  return Math.min(retry.maxDelaySeconds, Math.max(1, retry.delaySeconds) * (1 + Math.random()))
}

/**
 * The delay after an attempt, if a schedule says it: pg-boss does not know schedules. Beyond its end, which a change of the options may
 * cause, the last delay counts.
 *
 * @param attempt - the number of attempts that count, including the one that has just failed
 */
export function scheduledDelaySeconds({ delays }: ResolvedRetry, attempt: number): number | undefined {
  return delays?.[Math.min(Math.max(attempt, 1), delays.length) - 1]
}

/** The minimum delay in seconds before the attempt after this one. With jitter it may be twice as long. */
export function leastDelaySeconds(retry: ResolvedRetry, attempt: number): number {
  if (!retry.backoff) return scheduledDelaySeconds(retry, attempt) ?? retry.delaySeconds
  return Math.min(retry.maxDelaySeconds, Math.max(1, retry.delaySeconds) * 2 ** Math.min(16, attempt - 1))
}
