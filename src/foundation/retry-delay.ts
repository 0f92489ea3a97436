const delaysMs = [50, 100, 250, 500, 1000, 2000]

/** How long to wait after so many failures in a row before trying again, in milliseconds: from 50 up to 2,000. */
export function failureDelayMs(failures: number): number {
  return delaysMs[Math.min(failures, delaysMs.length - 1)] ?? 2000
}
