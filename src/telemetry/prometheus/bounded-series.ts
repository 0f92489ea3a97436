import { toLabelValue, type Labels } from './text-format.ts'

/** The value of a label that stands for all values beyond its bound. That of OpenTelemetry for errors without a type. */
export const otherValue = '_OTHER'

/** Returns a function that returns values as they are, up to so many different ones, and `_OTHER` for all others. */
export function boundedValues(maxCount: number): (value: string) => string {
  const known = new Map<string, string>()
  return (value) => {
    const found = known.get(value)
    if (found !== undefined) return found
    if (known.size >= maxCount) return otherValue
    const label = toLabelValue(value)
    known.set(value, label)
    return label
  }
}

/** The series of one metric: at most so many, and a few more for what is beyond them. */
export interface BoundedSeries<Series> {
  /** The series of these labels. Where there are too many, one with `_OTHER` in place of all values but those of the fixed labels. */
  of: (labels: Labels) => Series
  readonly all: readonly { readonly labels: Labels; readonly series: Series }[]
}

/** @param fixed - the names of labels that have few values */
export function createBoundedSeries<Series>(
  maxCount: number,
  fixed: readonly string[],
  create: () => Series,
): BoundedSeries<Series> {
  const known = new Map<string, { readonly labels: Labels; readonly series: Series }>()

  function find(labels: Labels, isOpen: boolean): Series | undefined {
    const key = JSON.stringify(labels)
    const found = known.get(key)
    if (found !== undefined || !isOpen) return found?.series
    const series = create()
    known.set(key, { labels, series })
    return series
  }

  return {
    of(labels) {
      const own = find(labels, known.size < maxCount)
      if (own !== undefined) return own
      const others = Object.entries(labels).map(([name, value]) => [
        name,
        fixed.includes(name) ? value : otherValue,
      ])
      return find(Object.fromEntries(others) as Labels, true) ?? create()
    },
    get all() {
      return [...known.values()]
    },
  }
}
