import { isDate } from './cross-realm.ts'
import { ConfigurationError } from './errors.ts'
import type { Range } from './limits.ts'
import { characterCount, printable, isLonger, invalidTextReason, uuidShape } from './text.ts'

/**
 * Refuses unknown keys of an options object, and suggests the key that was probably meant.
 *
 * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`
 */
export function refuseUnknownKeys(given: object, known: readonly string[], what: string): void {
  for (const key of Object.keys(given)) {
    if (known.includes(key)) continue
    const near = suggestName(key, known)
    const hint = near === undefined ? `Known are: ${known.join(', ')}` : `Did you mean \`${near}\`?`
    throw invalidOption(`Unknown option \`${printable(key, 60)}\` in ${what}. ${hint}`, printable(key, 60))
  }
}

/**
 * Names that other libraries use, and our names for the same thing. A name is omitted if its meaning is uncertain.
 *
 * The names come from BullMQ, pg-boss, graphile-worker, Inngest, Trigger.dev, NestJS and AWS, which users migrate from.
 */
const namesInOtherLibraries: Readonly<Record<string, readonly string[]>> = {
  timeout: ['timeoutSeconds', 'graceMs', 'timeoutMs'],
  timeoutMs: ['timeoutSeconds'],
  expireInSeconds: ['timeoutSeconds'],
  visibilityTimeout: ['timeoutSeconds'],
  retries: ['retry'],
  retryLimit: ['retry', 'maxAttempts'],
  attempts: ['retry', 'maxAttempts'],
  maxAttempts: ['retry'],
  maxRetries: ['retry', 'maxAttempts'],
  retryDelay: ['retry', 'delaySeconds'],
  retryBackoff: ['retry', 'backoff'],
  backoff: ['retry'],
  delay: ['delaySeconds', 'availableIn'],
  schedule: ['delays'],
  retrySchedule: ['delays', 'retry'],
  delaySeconds: ['availableIn'],
  startAfter: ['availableAt'],
  runAt: ['availableAt'],
  scheduledAt: ['availableAt'],
  expireIn: ['expiresAt'],
  name: ['type'],
  event: ['type', 'events'],
  eventName: ['type'],
  eventType: ['type'],
  topic: ['type', 'events'],
  pattern: ['events'],
  types: ['events'],
  type: ['events'],
  data: ['payload'],
  body: ['payload'],
  detail: ['payload'],
  key: ['orderingKey'],
  partitionKey: ['orderingKey'],
  groupId: ['orderingKey', 'name'],
  messageGroupId: ['orderingKey'],
  jobId: ['idempotencyKey'],
  singletonKey: ['idempotencyKey'],
  deduplicationId: ['idempotencyKey'],
  id: ['eventId', 'name'],
  tenant: ['tenantId'],
  headers: ['metadata'],
  filter: ['where'],
  if: ['where'],
  fn: ['handler'],
  run: ['handler'],
  process: ['handler'],
  teamSize: ['concurrency'],
  localConcurrency: ['concurrency'],
  poolSize: ['concurrency'],
  prefetch: ['batchSize'],
  connectionString: ['database'],
  connection: ['database'],
  url: ['database'],
  db: ['database'],
  pool: ['database'],
  service: ['source'],
  serviceName: ['source'],
  catalogue: ['events'],
  catalog: ['events'],
  schema: ['events', 'bossSchema'],
  log: ['logger'],
}

/** The known name that was probably meant: one with a similar spelling, or another library's name for it. */
export function suggestName(key: string, known: readonly string[]): string | undefined {
  const elsewhere = Object.hasOwn(namesInOtherLibraries, key) ? (namesInOtherLibraries[key] ?? []) : []
  return elsewhere.find((name) => known.includes(name)) ?? nearest(key, known)
}

/** The error for an invalid option. */
export function invalidOption(message: string, option?: string): ConfigurationError {
  return new ConfigurationError('BUS_INVALID_OPTION', message, { option })
}

/** An integer within its bounds, or the default if omitted; null is not omitted. @throws a {@link ConfigurationError} */
export function integerOption(name: string, value: unknown, range: Range): number {
  const given = value === undefined ? range.default : value
  if (typeof given === 'number' && Number.isInteger(given) && given >= range.min && given <= range.max)
    return given
  throw invalidOption(
    `Expected \`${name}\` to be an integer of at least ${range.min} and at most ${range.max}, got ${describe(given)}`,
    name,
  )
}

/** A boolean, or the default if omitted; null is not omitted. @throws a {@link ConfigurationError} */
export function booleanOption(name: string, value: unknown, fallback: boolean): boolean {
  const given = value === undefined ? fallback : value
  if (typeof given === 'boolean') return given
  throw invalidOption(`Expected \`${name}\` to be true or false, got ${describe(given)}`, name)
}

/** Refuses a value that is not an object. @throws a {@link ConfigurationError} */
export function assertObject(what: string, value: unknown): asserts value is object {
  if (value !== null && typeof value === 'object') return
  throw invalidOption(`Expected ${what}, got ${describe(value)}`)
}

/** A uuid, in lower case. @throws a {@link ConfigurationError} */
export function idOption(name: string, value: unknown): string {
  if (typeof value === 'string' && uuidShape.test(value)) return value.toLowerCase()
  throw invalidOption(`Expected \`${name}\` to be an id (a uuid), got ${describe(value)}`, name)
}

/** A Date from 1970 to 9999. @throws a {@link ConfigurationError} */
export function timeOption(name: string, value: unknown): Date {
  const year = isDate(value) ? value.getUTCFullYear() : Number.NaN
  if (year >= 1970 && year <= 9999) return value as Date
  throw invalidOption(`Expected \`${name}\` to be a Date from 1970 to 9999, got ${describe(value)}`, name)
}

/** The ends of a span of time, each of which may be left out. @throws a {@link ConfigurationError} also if it has no length */
export function spanOption(given: { readonly from?: unknown; readonly to?: unknown }): {
  readonly from: Date | undefined
  readonly to: Date | undefined
} {
  const from = given.from === undefined ? undefined : timeOption('from', given.from)
  const to = given.to === undefined ? undefined : timeOption('to', given.to)
  if (from !== undefined && to !== undefined && from >= to)
    throw invalidOption(
      `Expected \`from\` to be before \`to\`, got ${from.toISOString()} and ${to.toISOString()}`,
      'from',
    )
  return { from, to }
}

/** The lengths that a text may have, in characters. */
interface TextLength {
  readonly min?: number
  readonly max?: number
}

/**
 * Why a value is not a text of these lengths that PostgreSQL can store, as a message; undefined if it is one. The message
 * does not quote the text, which may be personal data.
 */
export function describeInvalidText(name: string, value: unknown, max: number, min = 1): string | undefined {
  const reason = invalidTextValueReason(value, min, max)
  if (reason === undefined) return undefined
  const bound = Number.isFinite(max) ? ` of ${min} to ${max} characters` : ''
  return `Expected \`${name}\` to be a text${bound} that PostgreSQL can store: ${reason}`
}

function invalidTextValueReason(value: unknown, min: number, max: number): string | undefined {
  if (typeof value !== 'string') return `got ${describe(value)}`
  if (value.length < min || isLonger(value, max)) return `got ${characterCount(value)} characters`
  return invalidTextReason(value)
}

/** A text that PostgreSQL can store, 1 to `max` characters unless `min` is given. @throws a {@link ConfigurationError} */
export function textOption(name: string, value: unknown, length: TextLength): string {
  assertTextOption(name, value, length)
  return value
}

/** Refuses a value that {@link textOption} would refuse. @throws a {@link ConfigurationError} */
export function assertTextOption(
  name: string,
  value: unknown,
  { min = 1, max = Number.POSITIVE_INFINITY }: TextLength = {},
): asserts value is string {
  const message = describeInvalidText(name, value, max, min)
  if (message !== undefined) throw invalidOption(message, name)
}

/** A short, printable description of a value for an error message. */
export function describe(value: unknown): string {
  if (typeof value === 'string') return `"${printable(value, 60).replaceAll('"', String.raw`\"`)}"`
  if (typeof value === 'number' || typeof value === 'boolean' || typeof value === 'bigint')
    return String(value)
  return kindOf(value)
}

/** The kind of a value, never the value itself: for values that may be a payload. */
export function kindOf(value: unknown): string {
  if (value === null || value === undefined) return String(value)
  return Array.isArray(value) ? 'an array' : `a value of type ${typeof value}`
}

/** Maximum number of characters of a name that are compared: the input may have any length. */
const maxComparedLength = 60

/** The known name with the smallest edit distance, if that distance is small. */
export function nearest(key: string, known: readonly string[]): string | undefined {
  const typed = key.slice(0, maxComparedLength).toLowerCase()
  const scored = known
    .map((candidate) => ({ candidate, distance: editDistance(typed, candidate.toLowerCase()) }))
    .toSorted((a, b) => a.distance - b.distance)
  const best = scored[0]
  return best !== undefined && best.distance <= Math.max(2, Math.floor(typed.length / 3))
    ? best.candidate
    : undefined
}

/** Levenshtein distance. */
function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i += 1) {
    const row = [i]
    for (let j = 1; j <= b.length; j += 1) {
      const substitution = (previous[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)
      row.push(Math.min((previous[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, substitution))
    }
    previous = row
  }
  return previous[b.length] ?? 0
}
