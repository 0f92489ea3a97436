/** The measurements that have the same attributes. */
export type SeriesOf<Operation extends string | undefined, Series> = (
  operation: Operation,
  type: string | undefined,
  subscription: string | undefined,
  errorType: string | undefined,
) => Series

type Level<V> = Map<string | undefined, V>

/**
 * Finds series without making attributes and keys of them for each event.
 *
 * @param maxCount - series that are kept; beyond, all are found anew. @defaultValue all are kept, so names must be bounded
 */
export function cachedSeries<Operation extends string | undefined, Series>(
  find: SeriesOf<Operation, Series>,
  maxCount = Number.POSITIVE_INFINITY,
): SeriesOf<Operation, Series> {
  let known: Level<Level<Level<Level<Series>>>> = new Map()
  let size = 0
  return (operation, type, subscription, errorType) => {
    const cached = known.get(operation)?.get(type)?.get(subscription)?.get(errorType)
    if (cached !== undefined) return cached
    if (size >= maxCount) {
      known = new Map()
      size = 0
    }
    size += 1
    const found = find(operation, type, subscription, errorType)
    below(below(below(known, operation), type), subscription).set(errorType, found)
    return found
  }
}

function below<V>(level: Level<Level<V>>, key: string | undefined): Level<V> {
  const found = level.get(key)
  if (found !== undefined) return found
  const made: Level<V> = new Map()
  level.set(key, made)
  return made
}
