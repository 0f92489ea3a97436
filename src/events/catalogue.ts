import { DeliveryError, InvalidEventError, type EventIssue } from '../foundation/errors.ts'
import { isEventTypeName } from './event-type.ts'
import { limits } from '../foundation/limits.ts'
import { isThenable } from '../foundation/cross-realm.ts'
import { describe, refuseUnknownKeys, invalidOption } from '../foundation/options.ts'
import { redactIssue, redactThrown } from '../foundation/error-redaction.ts'
import { hasControls, printable, isLonger, printablePath, textProblem } from '../foundation/text.ts'
import type {
  InferInput,
  InferOutput,
  StandardIssue,
  StandardSchemaV1,
} from '../foundation/standard-schema.ts'
import { checkRedact } from './redact-paths.ts'

/** What one event type is: its payload's schema, who may publish it, and how older payloads are read. */
export interface EventDefinition<S extends StandardSchemaV1 = StandardSchemaV1> {
  /**
   * Any Standard Schema (zod, valibot, arktype, …), synchronous or not. What it returns is what is stored. zod 4 runs an
   * asynchronous check twice and drops the first promise: one that rejects ends the process, so let it catch.
   */
  readonly schema: S
  /** The sources that may publish this type. Left out: every source may. */
  readonly sources?: readonly string[] | undefined
  /** The version of the payload's shape that this code publishes, from 1. @defaultValue `1` */
  readonly version?: number | undefined
  /**
   * For each older version still stored, the step to the next one, without a gap up to the newest. Synchronous.
   * Handlers always see the newest shape. A step gets a copy that is its own, and gives the payload of the next version, not
   * validated. One that throws fails the attempt. Left out: what was stored under an older version fits as it is.
   */
  readonly upcast?: { readonly [version: number]: (payload: never) => unknown } | undefined
  /**
   * What of the payload is not shown in logs, dashboards and the bus's read APIs; handlers get everything. Dotted paths of
   * any version: `card.number`; `*` stands for one level, an array's items included: `customers.*.email`. A backslash
   * takes the meaning from a dot or a star in a name. A path that leads nowhere hides nothing.
   */
  readonly redact?: readonly string[] | undefined
}

/** Every event type a service knows, by name. */
export type EventCatalogue = { readonly [type: string]: EventDefinition }

/** The names of a catalogue. */
export type EventType<C extends EventCatalogue> = keyof C & string

/** What publish takes as the payload of a type: the schema's input. */
export type PayloadInput<C extends EventCatalogue, T extends EventType<C>> = InferInput<C[T]['schema']>

/** What a handler gets as the payload of a type: the schema's output. */
export type PayloadOutput<C extends EventCatalogue, T extends EventType<C>> = InferOutput<C[T]['schema']>

/**
 * Declares the events of a service, each by its name: any text that cannot be taken for a pattern, such as `payment.paid`,
 * `order:created` or `io.k8s.x/v1` (docs/catalogue.md has the rule). Names and payload types are inferred from it everywhere else. Gives a frozen copy:
 * later changes to the object given have no effect.
 *
 * @example
 * ```ts
 * const events = defineEvents({
 *   'payment.paid': {
 *     schema: z.object({ paymentId: z.string(), amountCents: z.number().int() }),
 *     sources: ['payment-service'],
 *   },
 * })
 * ```
 * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` for a malformed name, schema, version or upcast chain
 */
export function defineEvents<const C extends EventCatalogue>(catalogue: C): C {
  if (catalogue === null || typeof catalogue !== 'object' || Array.isArray(catalogue))
    throw invalidOption(`Expected the events by name, got ${describe(catalogue)}`)
  const checked = Object.entries(catalogue).map(([type, given]) => {
    if (isEventTypeName(type) && standardOf(given) !== undefined)
      throw invalidOption(`Expected \`${type}\` to be { schema }, got the schema itself: write { schema: … }`)
    // Copied before it is checked: what is checked is what is kept.
    const definition = copyOf(given)
    checkDefinition(type, definition)
    return [type, definition] as const
  })
  return Object.freeze(Object.fromEntries(checked)) as C
}

/** The events of several catalogues as one; never where one of them has a type of another. */
type Merged<L extends readonly EventCatalogue[]> = L extends readonly [
  infer First extends EventCatalogue,
  ...infer Rest extends readonly EventCatalogue[],
]
  ? First & Merged<Rest>
  : unknown

/** What is wrong with a list of catalogues: the types that two of them have. */
type RepeatedType<L extends readonly EventCatalogue[]> = L extends readonly [
  infer First extends EventCatalogue,
  ...infer Rest extends readonly EventCatalogue[],
]
  ? (keyof First & keyof Merged<Rest>) | RepeatedType<Rest>
  : never

/**
 * One catalogue of several, as of the packages of a monorepo. A type that two of them have is refused, by the compiler and when it runs.
 *
 * @example
 * ```ts
 * export const events = mergeEvents(paymentEvents, orderEvents)
 * ```
 * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`
 */
export function mergeEvents<const L extends readonly EventCatalogue[]>(
  ...catalogues: [RepeatedType<L>] extends [never] ? L : { readonly 'both have the type': RepeatedType<L> }[]
): { readonly [T in keyof Merged<L>]: Merged<L>[T] } {
  const merged = new Map<string, EventDefinition>()
  for (const [index, catalogue] of (catalogues as readonly EventCatalogue[]).entries()) {
    if (catalogue === null || typeof catalogue !== 'object')
      throw invalidOption(
        `Expected each argument of mergeEvents to be a catalogue, got ${describe(catalogue)}`,
      )
    for (const [type, definition] of Object.entries(catalogue)) {
      if (merged.has(type))
        throw invalidOption(
          `Expected each type in one catalogue, got ${describe(type)} in argument ${index + 1} of mergeEvents and in one before`,
        )
      merged.set(type, definition)
    }
  }
  return defineEvents(Object.fromEntries(merged)) as ReturnType<typeof mergeEvents<L>>
}

/**
 * The names of a catalogue's types as constants, for an editor to find and to rename with the catalogue. They go wherever the text does;
 * a text itself, `'payment.paid'`, is not renamed, but where it is wrong then the compiler says so.
 *
 * @example
 * ```ts
 * const types = eventTypes(events)
 * await bus.tryPublish({ type: types['payment.paid'], tenantId, payload })
 * ```
 */
export function eventTypes<const C extends EventCatalogue>(events: C): EventTypes<C> {
  const types = Object.keys(events).map((type) => [type, type] as const)
  return Object.freeze(Object.fromEntries(types)) as EventTypes<C>
}

/** Over the keys of the catalogue itself: so an editor knows that each constant is one of them, and renames them together. */
type EventTypes<C extends EventCatalogue> = { readonly [T in keyof C]: T }

function copyOf(given: EventDefinition): EventDefinition {
  if (given === null || typeof given !== 'object') return given
  const copy: EventDefinition = { ...given }
  const { sources, redact, upcast } = copy
  return Object.freeze({
    ...copy,
    ...(Array.isArray(sources) ? { sources: Object.freeze([...(sources as readonly string[])]) } : {}),
    ...(Array.isArray(redact) ? { redact: Object.freeze([...(redact as readonly string[])]) } : {}),
    ...(isPlainObject(upcast) ? { upcast: Object.freeze({ ...upcast }) } : {}),
  })
}

function isPlainObject(value: unknown): value is object {
  return value !== null && typeof value === 'object' && Object.getPrototypeOf(value) === Object.prototype
}

function checkDefinition(type: string, definition: EventDefinition): void {
  if (!isEventTypeName(type)) {
    throw invalidOption(
      `Expected an event type like \`payment.paid\` of at most ${limits.typeLength} characters, without \`*\`, control characters, blanks at its ends or empty segments, got ${describe(type)}`,
    )
  }
  if (definition === null || typeof definition !== 'object')
    throw invalidOption(`Expected \`${type}\` to be an object with a \`schema\``)
  refuseUnknownKeys(definition, ['schema', 'sources', 'version', 'upcast', 'redact'], `event \`${type}\``)
  if (typeof standardOf(definition.schema)?.validate !== 'function') {
    throw invalidOption(
      `Expected \`schema\` of \`${type}\` to be a Standard Schema (zod, valibot, arktype and others are)`,
      'schema',
    )
  }
  const { sources, version = 1, upcast = {} } = definition
  if (
    sources !== undefined &&
    (!Array.isArray(sources) ||
      sources.length === 0 ||
      sources.length > limits.sourceCount ||
      !sources.every(isSourceName))
  ) {
    throw invalidOption(
      `Expected \`sources\` of \`${type}\` to be a list of 1 to ${limits.sourceCount} names, or to be left out`,
      'sources',
    )
  }
  if (!Number.isInteger(version) || version < 1 || version > limits.schemaVersion) {
    throw invalidOption(
      `Expected \`version\` of \`${type}\` to be an integer from 1 to ${limits.schemaVersion}, got ${describe(version)}`,
      'version',
    )
  }
  checkUpcast(type, upcast, version)
  checkRedact(type, definition.redact)
}

/** Whether a value can be the name of a service, as `source` and `sources` say it. */
export function isSourceName(value: unknown): value is string {
  return (
    typeof value === 'string' &&
    value !== '' &&
    !isLonger(value, limits.sourceLength) &&
    textProblem(value) === undefined &&
    !hasControls(value)
  )
}

/** The steps have to lead, without a gap, from the oldest version they name to the newest one. */
function checkUpcast(type: string, upcast: unknown, version: number): void {
  if (!isPlainObject(upcast))
    throw invalidOption(
      `Expected \`upcast\` of \`${type}\` to hold functions by version, got ${describe(upcast)}`,
      'upcast',
    )
  const steps = Object.entries(upcast)
  for (const [from, step] of steps) {
    if (!/^[1-9]\d*$/.test(from) || Number(from) >= version || typeof step !== 'function') {
      throw invalidOption(
        `Expected \`upcast\` of \`${type}\` to hold functions for versions 1 to ${version - 1}, got ${describe(from)}`,
        'upcast',
      )
    }
  }
  const oldest = Math.min(...steps.map(([from]) => Number(from)))
  for (let from = oldest; from < version; from += 1) {
    if (!Object.hasOwn(upcast, from))
      throw invalidOption(
        `Expected \`upcast\` of \`${type}\` to lead on from version ${from} to ${from + 1}: a step is missing`,
        'upcast',
      )
  }
}

function standardOf(schema: unknown): Partial<StandardSchemaV1['~standard']> | undefined {
  if (schema === null || (typeof schema !== 'object' && typeof schema !== 'function')) return undefined
  return (schema as Partial<StandardSchemaV1>)['~standard']
}

/**
 * The payload as the schema returns it.
 *
 * @throws an {@link InvalidEventError} `BUS_INVALID_EVENT` with the schema's findings: paths and reasons, no values
 */
export async function validatePayload(
  type: string,
  definition: EventDefinition,
  payload: unknown,
): Promise<unknown> {
  let issues: readonly EventIssue[]
  try {
    const result = await definition.schema['~standard'].validate(payload)
    if (!result.issues) return result.value
    issues = result.issues.slice(0, 20).map((issue) => describeIssue(issue, payload))
  } catch (error) {
    throw new InvalidEventError(
      'BUS_INVALID_EVENT',
      `The schema of \`${type}\` failed while validating`,
      [],
      { cause: redactThrown(error) },
    )
  }
  const summary = issues
    .map((issue) => (issue.path === '' ? issue.message : `${issue.path}: ${issue.message}`))
    .join('; ')
  throw new InvalidEventError(
    'BUS_INVALID_EVENT',
    `The payload of \`${type}\` does not fit its schema: ${summary.slice(0, 1000)}`,
    issues,
  )
}

function describeIssue(issue: StandardIssue, payload: unknown): EventIssue {
  const path = (issue.path ?? []).map((part) => String(typeof part === 'object' ? part.key : part))
  return { path: printablePath(path), message: printable(redactIssue(issue, payload), 299) }
}

/**
 * The payload in the newest shape, through each upcast between the stored version and the catalogue's. What the last step
 * gives is not validated: schemas may transform, and a handler would wait for them. `bossbus catalog check` validates a sample.
 *
 * @throws a {@link DeliveryError} `BUS_EVENT_TOO_NEW` when it was stored under a newer version than this code knows;
 *   `BUS_UPCAST_FAILED` when a step throws, or gives a promise or undefined
 */
export function upcastPayload(
  type: string,
  definition: EventDefinition | undefined,
  storedVersion: number,
  payload: unknown,
): unknown {
  const newest = definition?.version ?? 1
  if (definition !== undefined && storedVersion > newest) {
    throw new DeliveryError(
      'BUS_EVENT_TOO_NEW',
      `The event was published under version ${storedVersion} of \`${type}\`, but this service knows version ${newest}`,
      { retryable: true },
    )
  }
  let current = payload
  for (let version = storedVersion; version < newest; version += 1) {
    const step = definition?.upcast?.[version]
    if (step === undefined) continue
    try {
      current = step(current as never)
    } catch (thrown) {
      const cause = redactThrown(thrown)
      throw upcastFailed(type, version, `threw ${cause.name}`, cause)
    }
    if (isThenable(current)) {
      current.then(undefined, () => {})
      throw upcastFailed(type, version, 'gave a promise: it has to be synchronous')
    }
    if (current === undefined) throw upcastFailed(type, version, 'gave undefined')
  }
  return current
}

function upcastFailed(type: string, from: number, what: string, cause?: Error): DeliveryError {
  const message = `The upcast of \`${type}\` from version ${from} to ${from + 1} ${what}`
  return new DeliveryError('BUS_UPCAST_FAILED', message, { cause })
}
