import { canary, isEventTypeName } from './event-type.ts'
import { limits } from '../foundation/limits.ts'
import { describe, refuseUnknownKeys, invalidOption } from '../foundation/options.ts'
import { hasControls, isLonger, invalidTextReason } from '../foundation/text.ts'
import type { InferInput, InferOutput, StandardSchemaV1 } from '../foundation/standard-schema.ts'
import { checkRedact } from './redact-paths.ts'

/** One event type: the schema of its payload, the services that may publish it, and how older payloads are upgraded. */
export interface EventDefinition<S extends StandardSchemaV1 = StandardSchemaV1> {
  /**
   * Any Standard Schema (zod, valibot, arktype, …), synchronous or asynchronous. The value that it returns is stored.
   * zod 4 runs an asynchronous check twice and drops the first promise: catch rejections inside the check, because an
   * unhandled rejection ends the process.
   */
  readonly schema: S
  /** The services that may publish this type. Default: every service. */
  readonly sources?: readonly string[] | undefined
  /** The version of the payload's shape that this code publishes, starting at 1. @defaultValue `1` */
  readonly version?: number | undefined
  /**
   * For each older version that is still stored, a synchronous function that upgrades its payload to the next version.
   * There must be no gap up to the newest version. Handlers always receive the newest shape. Each function gets its own
   * copy of the payload and returns the payload of the next version, which is not validated. If it throws, the attempt
   * fails. Without `upcast`, older payloads are delivered unchanged.
   */
  readonly upcast?: { readonly [version: number]: (payload: never) => unknown } | undefined
  /**
   * The parts of the payload that are hidden in logs, dashboards and the bus's read APIs; handlers receive everything.
   * Dotted paths of any version: `card.number`; `*` stands for one level, including the items of an array:
   * `customers.*.email`. A backslash escapes a dot or a star in a name. A path that matches nothing hides nothing.
   */
  readonly redact?: readonly string[] | undefined
}

/** Every event type that a service knows, by name. */
export type EventCatalogue = { readonly [type: string]: EventDefinition }

/** The event type names of a catalogue. */
export type EventType<C extends EventCatalogue> = keyof C & string

/** What publish takes as the payload of a type: the schema's input. */
export type PayloadInput<C extends EventCatalogue, T extends EventType<C>> = InferInput<C[T]['schema']>

/** What a handler gets as the payload of a type: the schema's output. */
export type PayloadOutput<C extends EventCatalogue, T extends EventType<C>> = InferOutput<C[T]['schema']>

/**
 * Declares the events of a service by name. A name is any text that cannot be mistaken for a pattern, such as
 * `payment.paid`, `order:created` or `io.k8s.x/v1`; docs/catalogue.md has the rule. Event names and payload types are
 * inferred from the catalogue everywhere else. Returns a frozen copy, so later changes to the object passed in have no
 * effect.
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
    // Copied before it is checked, so that the checked value is the one that is kept.
    const definition = copyOf(given)
    checkDefinition(type, definition)
    return [type, definition] as const
  })
  return Object.freeze(Object.fromEntries(checked)) as C
}

/** The events of several catalogues as one catalogue; `never` if two of them declare the same type. */
type Merged<L extends readonly EventCatalogue[]> = L extends readonly [
  infer First extends EventCatalogue,
  ...infer Rest extends readonly EventCatalogue[],
]
  ? First & Merged<Rest>
  : unknown

/** The types that two catalogues of a list both declare. */
type RepeatedType<L extends readonly EventCatalogue[]> = L extends readonly [
  infer First extends EventCatalogue,
  ...infer Rest extends readonly EventCatalogue[],
]
  ? (keyof First & keyof Merged<Rest>) | RepeatedType<Rest>
  : never

/**
 * Merges several catalogues into one, for example those of the packages of a monorepo. A type that two of them declare
 * is refused, both at compile time and at run time.
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
          `Expected each type in one catalogue, got ${describe(type)} in argument ${index + 1} of mergeEvents and in an earlier one`,
        )
      merged.set(type, definition)
    }
  }
  return defineEvents(Object.fromEntries(merged)) as ReturnType<typeof mergeEvents<L>>
}

/**
 * The names of a catalogue's types as constants, so that an editor can find them and rename them together with the
 * catalogue. A constant works wherever the string does. A string literal such as `'payment.paid'` is not renamed, but
 * the compiler reports it when it no longer exists.
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

/** Mapped over the keys of the catalogue itself, so that an editor links each constant to its key and renames both together. */
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
      `Expected an event type like \`payment.paid\` of at most ${limits.typeLength} characters, without \`*\`, control characters, leading or trailing spaces, or empty segments, got ${describe(type)}`,
    )
  }
  if (type === canary.type)
    throw invalidOption(`Expected an event type other than \`${type}\`, by which the bus tests itself`)
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
      `Expected \`sources\` of \`${type}\` to be a list of 1 to ${limits.sourceCount} names, or omitted`,
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

/** Whether a value is a valid service name, as used in `source` and `sources`. */
export function isSourceName(value: unknown): value is string {
  return (
    typeof value === 'string' &&
    value !== '' &&
    !isLonger(value, limits.sourceLength) &&
    invalidTextReason(value) === undefined &&
    !hasControls(value)
  )
}

/** The upcasts must lead without a gap from the oldest version that they name to the newest one. */
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
        `Expected \`upcast\` of \`${type}\` to contain a function for version ${from}: the step to version ${from + 1} is missing`,
        'upcast',
      )
  }
}

function standardOf(schema: unknown): Partial<StandardSchemaV1['~standard']> | undefined {
  if (schema === null || (typeof schema !== 'object' && typeof schema !== 'function')) return undefined
  return (schema as Partial<StandardSchemaV1>)['~standard']
}
