import { idPrefix, timeInId } from '../events/event-id.ts'
import type { CatalogueFinding, TypeNeed } from '../events/compatibility/catalogue-comparison.ts'
import { type EventCatalogue, type EventDefinition } from '../events/catalogue.ts'
import type { KnownType } from '../events/contracts/catalogue-description.ts'
import { InvalidEventError, type EventIssue } from '../foundation/errors.ts'
import { describeSchema } from '../events/contracts/json-schema.ts'
import { compilePatterns } from '../events/pattern.ts'
import { findIncompatibilities } from '../events/compatibility/schema-comparison.ts'
import { parseJson } from '../events/json/parse-json.ts'
import type { Executor } from '../database/database.ts'
import { upcastPayload } from '../events/upcast.ts'
import { validatePayload } from '../events/validate-payload.ts'

/** The sample of one type and version. */
export interface SampledVersion {
  readonly type: string
  readonly version: number
  readonly sampledCount: number
  readonly unfitCount: number
}

export interface SampleReport {
  readonly versions: readonly SampledVersion[]
  readonly findings: readonly CatalogueFinding[]
}

interface SampleRow extends Record<string, unknown> {
  readonly id: string
  readonly schema_version: number
  readonly payload: string
}

/** A problem of some sampled events, reported once. */
interface Complaint {
  readonly rule: 'upcast-failed' | 'sample-unfit' | 'sample-newer'
  readonly path: string
  readonly reason: string
  readonly exampleId: string
  count: number
}

/**
 * Validates stored events against the code's catalogue. For each type, `sampleSize` of the newest events, of the
 * oldest, and of random ones between them are upgraded to the newest shape and validated. The index on type and id
 * finds them, so the cost depends on the sample, not on the size of the log. Erased events are skipped.
 */
export async function checkHistory(
  executor: Executor,
  catalogue: EventCatalogue,
  known: readonly KnownType[],
  sampleSize: number,
): Promise<SampleReport> {
  const versions: SampledVersion[] = []
  const findings: CatalogueFinding[] = []
  for (const [type, definition] of Object.entries(catalogue)) {
    const rows = await sampleType(executor, type, sampleSize)
    const byVersion = new Map<number, SampleRow[]>()
    for (const row of rows) {
      const stored = byVersion.get(row.schema_version)
      if (stored === undefined) byVersion.set(row.schema_version, [row])
      else stored.push(row)
    }
    const isTransformed = await hasTransforms(definition)
    for (const [version, stored] of [...byVersion].toSorted(([a], [b]) => a - b)) {
      const complaints = await checkEvents(type, definition, stored)
      const unfitCount = complaints.reduce((most, { count }) => Math.max(most, count), 0)
      versions.push({ type, version, sampledCount: stored.length, unfitCount })
      findings.push(
        ...complaints.map((complaint) => toFinding(type, version, complaint, stored.length, isTransformed)),
      )
    }
    findings.push(...notFound(type, known, byVersion))
  }
  return { versions, findings }
}

/** Finds the types that the code no longer declares but that the log or a subscription still uses. */
export async function findNeeds(
  executor: Executor,
  types: readonly string[],
): Promise<ReadonlyMap<string, TypeNeed>> {
  const { rows: subscriptions } = await executor.query<{ name: string; patterns: string[] }>(
    'select name, patterns from bus.subscriptions order by name',
  )
  const needs = new Map<string, TypeNeed>()
  for (const type of types) {
    const { rows } = await executor.query<{ there: boolean }>(
      'select exists (select 1 from bus.events where type = $1) as there',
      [type],
    )
    const matching = subscriptions.filter(({ patterns }) => compilePatterns(patterns)(type))
    needs.set(type, {
      inHistory: rows[0]?.there === true,
      subscriptions: matching.map(({ name }) => name),
    })
  }
  return needs
}

async function sampleType(
  executor: Executor,
  type: string,
  sampleSize: number,
): Promise<readonly SampleRow[]> {
  const select =
    'select id, schema_version, payload::text as payload from bus.events where type = $1 and erased_at is null'
  const [newest, oldest] = await Promise.all([
    executor.query<SampleRow>(`${select} order by id desc limit $2`, [type, sampleSize]),
    executor.query<SampleRow>(`${select} order by id limit $2`, [type, sampleSize]),
  ])
  const sampled = new Map([...oldest.rows, ...newest.rows].map((row) => [row.id, row]))
  const [first, last] = [oldest.rows.at(-1), newest.rows.at(-1)]
  if (first !== undefined && last !== undefined && first.id < last.id) {
    const { rows } = await executor.query<SampleRow>(
      `select e.* from unnest($2::uuid[]) as p (point)
       cross join lateral (${select} and id >= p.point order by id limit 1) e`,
      [type, pointsBetween(first.id, last.id, sampleSize)],
    )
    for (const row of rows) sampled.set(row.id, row)
  }
  return [...sampled.values()]
}

/** A random moment in each of several equal parts of the time between two events, as the lowest id of that moment. */
function pointsBetween(first: string, last: string, count: number): string[] {
  const [from, to] = [timeInId(first), timeInId(last)]
  return Array.from({ length: count }, (_, part) => {
    const moment = Math.floor(from + ((to - from) * (part + Math.random())) / count)
    const random = Math.floor(Math.random() * 0x1000)
      .toString(16)
      .padStart(3, '0')
    return `${idPrefix(moment)}-7${random}-8000-000000000000`
  })
}

async function checkEvents(
  type: string,
  definition: EventDefinition,
  stored: readonly SampleRow[],
): Promise<readonly Complaint[]> {
  const complaints = new Map<string, Complaint>()
  for (const { id, schema_version: version, payload } of stored) {
    const found = new Set<string>()
    const complain = (rule: Complaint['rule'], path: string, reason: string): void => {
      const key = JSON.stringify([rule, path, reason])
      // An event counts once for each problem, even if several items of its lists have it.
      if (found.has(key)) return
      found.add(key)
      const complaint = complaints.get(key) ?? { rule, path, reason, exampleId: id, count: 0 }
      complaint.count += 1
      complaints.set(key, complaint)
    }
    let shaped: unknown
    try {
      shaped = upcastPayload(type, definition, version, parseJson(payload))
    } catch (error) {
      const { code, message } = error as { code?: string; message: string }
      complain(code === 'BUS_EVENT_TOO_NEW' ? 'sample-newer' : 'upcast-failed', '', message)
      continue
    }
    for (const { path, message } of await issuesOf(type, definition, shaped))
      complain('sample-unfit', path.replaceAll(/(?<=^|\.)\d+(?=\.|$)/g, '*'), message)
  }
  return [...complaints.values()]
}

/** Paths and reasons, without the payload values that they quote. */
async function issuesOf(
  type: string,
  definition: EventDefinition,
  payload: unknown,
): Promise<readonly EventIssue[]> {
  try {
    await validatePayload(type, definition, payload)
    return []
  } catch (error) {
    if (!(error instanceof InvalidEventError)) throw error
    return error.issues.length > 0
      ? error.issues
      : [{ path: '', message: 'the schema failed while validating' }]
  }
}

/** Whether a schema accepts something other than it returns: stored output may then be valid although it is not valid input. */
async function hasTransforms({ schema }: EventDefinition): Promise<boolean> {
  const { input, output } = await describeSchema(schema)
  return output !== undefined && findIncompatibilities(output, input ?? true).length > 0
}

function toFinding(
  type: string,
  version: number,
  { rule, path, reason, exampleId, count }: Complaint,
  sampledCount: number,
  isTransformed: boolean,
): CatalogueFinding {
  const share = `${count} of ${sampledCount} sampled events of version ${version}, such as ${exampleId}`
  const about = { rule, type, version, ...(path === '' ? {} : { path }) }
  if (rule === 'sample-newer')
    return {
      ...about,
      severity: 'breaking',
      what: `${share}, have a newer version than this code knows`,
      why: 'This code refuses them (BUS_EVENT_TOO_NEW).',
      remedy: 'Adopt the newer definition before this code is deployed.',
    }
  if (rule === 'upcast-failed')
    return {
      ...about,
      severity: 'breaking',
      what: `${share}: ${reason}`,
      why: 'No handler can receive them: every attempt fails (BUS_UPCAST_FAILED).',
      remedy: 'Correct the upcast.',
    }
  const what = `${share}, do not fit in the newest shape: ${path === '' ? '' : `${path}: `}${reason}`
  if (isTransformed)
    return {
      ...about,
      severity: 'warning',
      what,
      why: 'The schema transforms its input, and its output is stored: this need not be a problem.',
      remedy: 'Look at one of them. A schema without transformations can be checked better.',
    }
  return {
    ...about,
    severity: 'breaking',
    what,
    why: 'Handlers receive them unchanged, in a shape that contradicts their types.',
    remedy: 'Loosen the schema, or raise `version` and add an `upcast` that makes them fit.',
  }
}

function notFound(
  type: string,
  known: readonly KnownType[],
  found: ReadonlyMap<number, unknown>,
): CatalogueFinding[] {
  const versions = new Set(known.filter((row) => row.type === type).map(({ version }) => version))
  return [...versions]
    .filter((version) => !found.has(version))
    .map((version) => ({
      severity: 'note',
      rule: 'sample-missing',
      type,
      version,
      what: `No stored event of version ${version} is in the sample`,
      why: 'There may be none, or few. Their upcast was not tested.',
      remedy: 'Raise --sample to look at more.',
    }))
}
