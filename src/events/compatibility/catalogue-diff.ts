import type { KnownType, TypeDescription } from '../contracts/catalogue-description.ts'

/** A place where two versions of a type differ. */
interface CatalogueDifference {
  /** Names and positions, separated by dots, such as `schema.properties.amountCents.type`. */
  readonly path: string
  /** Undefined where there was nothing. */
  readonly before: unknown
  /** Undefined where there is nothing. */
  readonly after: unknown
}

/** How a type of a catalogue differs from what a service has recorded. */
export interface CatalogueChange {
  readonly type: string
  /** `added`: nobody has recorded it. `removed`: the code does not declare what its service has recorded. */
  readonly change: 'added' | 'removed' | 'changed'
  /** Who has recorded it; the service of the code if nobody has. */
  readonly service: string
  /** The newest version that is recorded. Undefined for one that was added. */
  readonly recordedVersion: number | undefined
  /** The version of the code. Undefined for one that was removed. */
  readonly version: number | undefined
  /** Up to 100. Empty for types that were added or removed. */
  readonly differences: readonly CatalogueDifference[]
}

const maxDifferences = 100

/**
 * What differs between the catalogue of some code and the newest versions that its service and others have recorded, by type. Of types of
 * other services only those that the code declares too.
 *
 * @param source - the service of the code
 */
export function diffCatalogues(
  source: string,
  current: readonly TypeDescription[],
  known: readonly KnownType[],
): readonly CatalogueChange[] {
  const newest = new Map<string, KnownType>()
  for (const row of known) {
    const key = JSON.stringify([row.service, row.type])
    if (row.version > (newest.get(key)?.version ?? 0)) newest.set(key, row)
  }
  const recorded = [...newest.values()]
  const changes = current.flatMap((now): CatalogueChange[] => {
    const { type, version } = now
    const rows = recorded.filter((row) => row.type === type)
    if (rows.length === 0)
      return [
        { type, change: 'added', service: source, recordedVersion: undefined, version, differences: [] },
      ]
    return rows.flatMap((row): CatalogueChange[] => {
      const differences = differencesOf(partsOf(row), partsOf(now))
      return differences.length === 0
        ? []
        : [
            {
              type,
              change: 'changed',
              service: row.service,
              recordedVersion: row.version,
              version,
              differences,
            },
          ]
    })
  })
  const names = new Set(current.map(({ type }) => type))
  const removed = recorded
    .filter((row) => row.service === source && !names.has(row.type))
    .map(({ type, service, version }): CatalogueChange => ({
      ...{ type, change: 'removed', service, recordedVersion: version, version: undefined, differences: [] },
    }))
  return [...changes, ...removed].toSorted((a, b) =>
    a.type === b.type ? (a.service < b.service ? -1 : 1) : a.type < b.type ? -1 : 1,
  )
}

function partsOf({ version, schema, sources, upcastsFrom, redact }: TypeDescription): object {
  return { version, sources, upcastsFrom, redact, schema }
}

/** Of JSON values, whose properties may have any order. */
function differencesOf(before: object, after: object): readonly CatalogueDifference[] {
  const found: CatalogueDifference[] = []
  compare(before, after, [], found)
  return found
}

function compare(
  before: unknown,
  after: unknown,
  path: readonly string[],
  found: CatalogueDifference[],
): void {
  if (found.length >= maxDifferences || Object.is(before, after)) return
  if (isOpen(before) && isOpen(after) && Array.isArray(before) === Array.isArray(after)) {
    const names = [...new Set([...Object.keys(before), ...Object.keys(after)])]
    // A database keeps the properties of an object in an order of its own.
    for (const name of Array.isArray(before) ? names : names.toSorted())
      compare(partOf(before, name), partOf(after, name), [...path, name], found)
    return
  }
  found.push({ path: path.join('.'), before, after })
}

function isOpen(value: unknown): value is object {
  return value !== null && typeof value === 'object'
}

function partOf(whole: object, name: string): unknown {
  return Object.hasOwn(whole, name) ? (whole as Readonly<Record<string, unknown>>)[name] : undefined
}
