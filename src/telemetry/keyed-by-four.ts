type Key = string | undefined
type Level<V> = Map<Key, V>

/** Values by four keys, which are found without making an object or a text of the keys for each event. */
export interface KeyedByFour<V> {
  readonly get: (a: Key, b: Key, c: Key, d: Key) => V | undefined
  readonly set: (a: Key, b: Key, c: Key, d: Key, value: V) => void
}

export function createKeyedByFour<V>(): KeyedByFour<V> {
  const known: Level<Level<Level<Level<V>>>> = new Map()
  return {
    get: (a, b, c, d) => known.get(a)?.get(b)?.get(c)?.get(d),
    set(a, b, c, d, value) {
      below(below(below(known, a), b), c).set(d, value)
    },
  }
}

function below<V>(level: Level<Level<V>>, key: Key): Level<V> {
  const found = level.get(key)
  if (found !== undefined) return found
  const made: Level<V> = new Map()
  level.set(key, made)
  return made
}
