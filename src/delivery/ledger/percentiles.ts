/**
 * The duration, in milliseconds, below which a share of the durations in some bins are, as `bus.rollups` has them: bin n begins at
 * 2^(n/2) milliseconds. Within a bin it is interpolated, so it is exact to a factor of the square root of two at most. Undefined if the
 * bins are empty.
 *
 * @param share - 0 to 1, such as 0.95
 */
export function percentileOf(bins: readonly number[], share: number): number | undefined {
  const total = bins.reduce((sum, count) => sum + count, 0)
  if (total === 0) return undefined
  const wanted = share * total
  let below = 0
  for (const [bin, count] of bins.entries()) {
    if (count > 0 && below + count >= wanted) {
      const begin = bin === 0 ? 0 : 2 ** (bin / 2)
      const end = 2 ** ((bin + 1) / 2)
      return begin + ((end - begin) * (wanted - below)) / count
    }
    below += count
  }
  return 2 ** (bins.length / 2)
}

/** The sum of bins. */
export function addBins(sum: number[], bins: readonly number[]): void {
  for (const [bin, count] of bins.entries()) sum[bin] = (sum[bin] ?? 0) + count
}
