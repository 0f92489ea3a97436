const delaysMs = [50, 100, 250, 500, 1000, 2000]

/** The delay in milliseconds before the next try, after a number of consecutive failures: from 50 to 2,000. */
export function failureDelayMs(failures: number): number {
  return delaysMs[Math.min(failures, delaysMs.length - 1)] ?? 2000
}
