import type { KnownType, TypeDescription } from '../contracts/catalogue-description.ts'
import { findIncompatibilities, type Incompatibility } from './schema-comparison.ts'
import type { JsonSchema } from '../contracts/schema-dialect.ts'

/** One consequence of a change of a catalogue. A `breaking` finding fails the check. */
export interface CatalogueFinding {
  readonly severity: 'breaking' | 'warning' | 'note'
  readonly rule:
    | 'type-removed'
    | 'version-lowered'
    | 'stored-events-unfit'
    | 'readers-unfit'
    | 'sources-narrowed'
    | 'redact-removed'
    | 'service-behind'
    | 'service-ahead'
    | 'not-comparable'
    | 'upcast-failed'
    | 'sample-unfit'
    | 'sample-missing'
    | 'sample-newer'
  readonly type: string
  /** The stored version that the finding is about. */
  readonly version: number
  /** The path inside the payload, if the finding is about a part of it. */
  readonly path?: string
  /** What was found. Never a value of an event. */
  readonly what: string
  /** Why it matters. */
  readonly why: string
  /** What to do. */
  readonly remedy: string
}

/** What still needs a type that the code no longer declares: `undefined` if nobody could check. */
export interface TypeNeed {
  readonly inHistory: boolean
  /** Names of subscriptions whose patterns match it. */
  readonly subscriptions: readonly string[]
}

const raise = 'Raise `version` and add an `upcast` from the previous version, or revert the change.'

/**
 * Compares the catalogue of some code with the catalogues of earlier code and of other services. The new code must be
 * able to read what was stored, and services that have not been deployed yet must be able to read what the new code
 * publishes.
 *
 * @param source - the service that owns the catalogue
 * @param needs - for types that the code no longer declares: what still needs them
 */
export function compareCatalogues(
  source: string,
  current: readonly TypeDescription[],
  known: readonly KnownType[],
  needs: ReadonlyMap<string, TypeNeed> = new Map(),
): readonly CatalogueFinding[] {
  const byType = new Map(current.map((description) => [description.type, description]))
  const own = known.filter(({ service }) => service === source)
  const findings: CatalogueFinding[] = []
  for (const type of new Set(own.map((row) => row.type))) {
    const rows = own.filter((row) => row.type === type).toSorted((a, b) => b.version - a.version)
    const now = byType.get(type)
    if (now === undefined) findings.push(...typeRemoved(rows, needs.get(type)))
    else findings.push(...compareOwn(now, rows))
  }
  for (const row of newestOfOthers(source, known)) {
    const now = byType.get(row.type)
    if (now !== undefined) findings.push(...compareOther(now, row, findings))
  }
  return findings
}

function typeRemoved(rows: readonly KnownType[], need: TypeNeed | undefined): CatalogueFinding[] {
  const [newest] = rows
  if (newest === undefined) return []
  const { type, version, service } = newest
  const isNeeded = need === undefined || need.inHistory || need.subscriptions.length > 0
  const needing = [
    ...(need?.inHistory === true ? ['events of it are in the log'] : []),
    ...(need === undefined ? ['there may be events of it in the log, and subscriptions to it'] : []),
    ...(need?.subscriptions ?? []).slice(0, 5).map((name) => `the subscription \`${name}\` matches it`),
  ]
  return [
    {
      severity: isNeeded ? 'breaking' : 'note',
      rule: 'type-removed',
      type,
      version,
      what: 'The type is no longer in the catalogue',
      why: isNeeded
        ? `${capital(needing.join(', '))}: they would be delivered without upcast, and shown without redaction or not at all.`
        : 'The log contains no events of it, and no subscription matches it.',
      remedy: `Keep the definition until nothing needs it. To forget it: delete from bus.catalogue where service = '${service.replaceAll("'", "''")}' and type = '${type.replaceAll("'", "''")}'`,
    },
  ]
}

function compareOwn(now: TypeDescription, rows: readonly KnownType[]): CatalogueFinding[] {
  const { type } = now
  const [newest] = rows
  if (newest === undefined) return []
  const findings: CatalogueFinding[] = []
  if (now.version < newest.version) {
    findings.push({
      severity: 'breaking',
      rule: 'version-lowered',
      type,
      version: newest.version,
      what: `The version is ${now.version}, and was ${newest.version}`,
      why: `Events stored under version ${newest.version} are newer than this code knows: it refuses them (BUS_EVENT_TOO_NEW).`,
      remedy: `To go back to an older shape, make it version ${newest.version + 1} with an \`upcast\` from ${newest.version}.`,
    })
  }
  for (const row of rows) {
    if (row.version < now.version) findings.push(...compareOlder(now, row, rows))
    else if (row.version === now.version) {
      findings.push(...toFindings(type, row.version, 'stored-events-unfit', row.schema, now.schema))
      findings.push(...toFindings(type, row.version, 'readers-unfit', now.schema, row.schema))
    }
  }
  findings.push(...compareSources(now, newest), ...compareRedact(now, newest))
  return findings
}

/** Without an upcast from its version, an older payload is passed unchanged to the oldest upcast, or to the newest shape. */
function compareOlder(now: TypeDescription, row: KnownType, rows: readonly KnownType[]): CatalogueFinding[] {
  const { type, version } = row
  if (now.upcastsFrom !== undefined && version >= now.upcastsFrom) return []
  if (now.upcastsFrom === undefined)
    return toFindings(type, version, 'stored-events-unfit', row.schema, now.schema)
  const entry = rows.find((candidate) => candidate.version === now.upcastsFrom)
  return toFindings(type, version, 'stored-events-unfit', row.schema, entry?.schema)
}

function toFindings(
  type: string,
  version: number,
  rule: 'stored-events-unfit' | 'readers-unfit',
  from: JsonSchema | undefined,
  to: JsonSchema | undefined,
  reader?: string,
): CatalogueFinding[] {
  if (from === undefined || to === undefined) {
    // Reported once for both directions.
    if (rule === 'readers-unfit' && reader === undefined) return []
    return [
      {
        severity: 'warning',
        rule: 'not-comparable',
        type,
        version,
        what: 'The schema is not known as JSON Schema, so this version was not compared',
        why: 'The schema library provides none, or the version was never recorded. Only the sample of the history was checked, if there is one.',
        remedy:
          'Use a library with the Standard JSON Schema interface (zod, arktype), or install `@valibot/to-json-schema` beside valibot.',
      },
    ]
  }
  return findIncompatibilities(from, to).map((found) =>
    describeIncompatibility(type, version, rule, found, reader),
  )
}

function describeIncompatibility(
  type: string,
  version: number,
  rule: 'stored-events-unfit' | 'readers-unfit',
  { path, rule: incompatibilityRule, detail }: Incompatibility,
  reader: string | undefined,
): CatalogueFinding {
  const where = path === '' ? 'The payload' : `\`${path}\``
  const isStored = rule === 'stored-events-unfit'
  return {
    severity: incompatibilityRule === 'unclear' ? 'warning' : 'breaking',
    rule,
    type,
    version,
    path,
    what: isStored
      ? `In events stored under version ${version}, ${where} ${detail}`
      : `In events published from now on, ${where} ${detail}`,
    why: isStored
      ? 'Handlers receive what was stored, in a shape that contradicts their types.'
      : `${reader === undefined ? 'Processes that are not deployed yet' : `The service \`${reader}\``} read${reader === undefined ? '' : 's'} version ${version} as it was declared.`,
    remedy: raise,
  }
}

function compareSources(now: TypeDescription, before: KnownType): CatalogueFinding[] {
  if (now.sources === undefined) return []
  const allowed = new Set(now.sources)
  const removed = before.sources?.filter((name) => !allowed.has(name))
  if (removed?.length === 0) return []
  return [
    {
      severity: 'breaking',
      rule: 'sources-narrowed',
      type: now.type,
      version: before.version,
      what:
        removed === undefined
          ? `Every source could publish it, now only ${now.sources.map((name) => `\`${name}\``).join(', ')}`
          : `${removed.map((name) => `\`${name}\``).join(', ')} could publish it, and no longer may`,
      why: 'Their events of this type are refused with this catalogue (BUS_SOURCE_NOT_ALLOWED).',
      remedy:
        'Make sure that no other source publishes it, then accept the change by deploying it; or keep the source in the list until then.',
    },
  ]
}

function compareRedact(now: TypeDescription, before: KnownType): CatalogueFinding[] {
  const hidden = new Set(now.redact)
  const removed = before.redact?.filter((path) => !hidden.has(path)) ?? []
  if (removed.length === 0) return []
  return [
    {
      severity: 'warning',
      rule: 'redact-removed',
      type: now.type,
      version: before.version,
      what: `\`redact\` does not name ${removed.map((path) => `\`${path}\``).join(', ')} any more`,
      why: 'It applies to stored events of every version: their values would be visible.',
      remedy: 'Keep the paths of older versions in the list.',
    },
  ]
}

function newestOfOthers(source: string, known: readonly KnownType[]): readonly KnownType[] {
  const newest = new Map<string, KnownType>()
  for (const row of known) {
    if (row.service === source) continue
    const key = JSON.stringify([row.service, row.type])
    const other = newest.get(key)
    if (other === undefined || other.version < row.version) newest.set(key, row)
  }
  return [...newest.values()]
}

function compareOther(
  now: TypeDescription,
  row: KnownType,
  said: readonly CatalogueFinding[],
): CatalogueFinding[] {
  const { type, service } = row
  if (row.version < now.version) {
    return [
      {
        severity: 'warning',
        rule: 'service-behind',
        type,
        version: row.version,
        what: `The service \`${service}\` knows version ${row.version}, and this code publishes version ${now.version}`,
        why: 'If it subscribes, it retries such events every 60 s, and they become dead letters after the last attempt (BUS_EVENT_TOO_NEW).',
        remedy: `Deploy \`${service}\` with version ${now.version} before this one publishes.`,
      },
    ]
  }
  if (row.version > now.version) {
    return [
      {
        severity: 'warning',
        rule: 'service-ahead',
        type,
        version: row.version,
        what: `The service \`${service}\` knows version ${row.version}, and this code version ${now.version}`,
        why: 'Its events are newer than this code knows: a subscription here would refuse them (BUS_EVENT_TOO_NEW).',
        remedy: 'Adopt the newer definition.',
      },
    ]
  }
  return [
    ...toFindings(type, row.version, 'readers-unfit', now.schema, row.schema, service),
    ...toFindings(type, row.version, 'stored-events-unfit', row.schema, now.schema, service),
  ].filter(
    ({ rule, path, what }) =>
      !said.some(
        (other) => other.type === type && other.rule === rule && other.path === path && other.what === what,
      ),
  )
}

function capital(text: string): string {
  return `${text.slice(0, 1).toUpperCase()}${text.slice(1)}`
}
