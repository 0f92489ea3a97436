import { objectKinds, partSeparator, type ObjectKind, type SchemaObjects } from './catalog.ts'

/** An object that is not as the migrations made it. */
export interface Difference {
  readonly kind: ObjectKind
  /** Behind the name of its table, if it belongs to one. */
  readonly name: string
  /** The definition that the migrations gave it. Undefined if they do not know it. */
  readonly expected: string | undefined
  /** Undefined if it is missing. */
  readonly actual: string | undefined
}

const ownKinds: readonly ObjectKind[] = ['table', 'view', 'sequence', 'function', 'grant']

/** The table that an object belongs to. */
export function tableOf({ kind, name }: Pick<Difference, 'kind' | 'name'>): string | undefined {
  if (ownKinds.includes(kind)) return undefined
  return name.split(partSeparator)[0]
}

/** The name of an object inside its table. */
export function partOf(name: string): string {
  return name.slice(name.indexOf(partSeparator) + 1)
}

/** What of a table that is missing, or is not the bus's own, is not listed piece by piece. */
export function differencesOf(expected: SchemaObjects, actual: SchemaObjects): readonly Difference[] {
  const all = objectKinds.flatMap((kind) => {
    const [wanted, there] = [expected[kind], actual[kind]]
    const names = new Set([...Object.keys(wanted), ...Object.keys(there)])
    return [...names]
      .filter((name) => wanted[name] !== there[name])
      .map((name): Difference => ({ kind, name, expected: wanted[name], actual: there[name] }))
  })
  const tables = new Set([...Object.keys(actual.table), ...Object.keys(actual.view)])
  const known = new Set([...Object.keys(expected.table), ...Object.keys(expected.view)])
  return all.filter((difference) => {
    const table = tableOf(difference)
    return table === undefined || (tables.has(table) && known.has(table))
  })
}
