import type { ResolvedRetry } from './subscription.ts'

/** The delay before the second attempt in seconds, computed like pg-boss, with the same jitter. */
export function firstRetryDelaySeconds(retry: ResolvedRetry): number {
  if (!retry.backoff) return retry.delaySeconds
  return Math.min(retry.maxDelaySeconds, Math.max(1, retry.delaySeconds) * (1 + Math.random()))
}

/** The minimum delay in seconds before the attempt after this one. With jitter it may be twice as long. */
export function leastDelaySeconds(retry: ResolvedRetry, attempt: number): number {
  if (!retry.backoff) return retry.delaySeconds
  return Math.min(retry.maxDelaySeconds, Math.max(1, retry.delaySeconds) * 2 ** Math.min(16, attempt - 1))
}
