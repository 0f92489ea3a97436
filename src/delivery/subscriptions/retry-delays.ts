import type { ResolvedRetry } from './subscription.ts'

/** The delay before the second attempt, in seconds: as pg-boss would compute it, with the same jitter. */
export function firstRetryDelaySeconds(retry: ResolvedRetry): number {
  if (!retry.backoff) return retry.delaySeconds
  return Math.min(retry.maxDelaySeconds, Math.max(1, retry.delaySeconds) * (1 + Math.random()))
}

/** How long the next attempt is away at least, in seconds, after that many. At random, it may be twice as far. */
export function leastDelaySeconds(retry: ResolvedRetry, attempt: number): number {
  if (!retry.backoff) return retry.delaySeconds
  return Math.min(retry.maxDelaySeconds, Math.max(1, retry.delaySeconds) * 2 ** Math.min(16, attempt - 1))
}
