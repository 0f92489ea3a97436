import { describe, invalidOption, kindOf, refuseUnknownKeys } from '../foundation/options.ts'
import { parseRequestJson } from './request-json.ts'
import type { Json } from './schemas/schema.ts'

/**
 * A parameter of a request. A field only translates: a text of the query becomes a number, an ISO time becomes a Date. Whether a value will do
 * is checked by the method of the bus, so that both say the same of it.
 *
 * @typeParam T - what the method of the bus takes
 */
export interface Field<T, Required extends boolean = boolean> {
  readonly json: Json
  readonly isRequired: Required
  readonly fromQuery: (name: string, given: string) => unknown
  readonly fromBody: (name: string, given: unknown) => unknown
  /** Whether the query may have it several times, or separated by commas. */
  readonly isList?: boolean
  /** Whether the query has it as JSON. */
  readonly isJson?: boolean
  /** For the compiler alone: never set. */
  readonly takes?: T
}

export type Fields = Readonly<Record<string, Field<unknown>>>

/** What a request gives for some fields, once it is translated. The bus checks it. */
export type Values<F extends Fields> = {
  readonly [K in keyof F]: F[K] extends Field<infer T, infer Required>
    ? Required extends true
      ? T
      : T | undefined
    : never
}

const asItIs = (_name: string, given: unknown): unknown => given

function field<T>(
  json: Json,
  description: string | undefined,
  more: Partial<Pick<Field<T>, 'fromQuery' | 'fromBody' | 'isList' | 'isJson'>> = {},
): Field<T, false> {
  return {
    json: description === undefined ? json : { ...json, description },
    isRequired: false,
    fromQuery: asItIs,
    fromBody: asItIs,
    ...more,
  }
}

export const required = <T>(given: Field<T>): Field<T, true> => ({ ...given, isRequired: true })

/** @param max - characters; for the document */
export const textField = (description?: string, max?: number): Field<string, false> =>
  field({ type: 'string', minLength: 1, ...(max === undefined ? {} : { maxLength: max }) }, description)

export const uuidField = (description?: string): Field<string, false> =>
  field({ type: 'string', format: 'uuid' }, description)

/** One of some words. */
export const choiceField = <const T extends string>(
  values: readonly T[],
  description?: string,
): Field<T, false> => field({ type: 'string', enum: values }, description)

/** @param range - for the document */
export function integerField(
  { min, max, default: value }: { readonly min: number; readonly max: number; readonly default?: number },
  description?: string,
): Field<number, false> {
  return field(
    { type: 'integer', minimum: min, maximum: max, ...(value === undefined ? {} : { default: value }) },
    description,
    { fromQuery: (_name, given) => (/^-?\d{1,15}$/.test(given) ? Number(given) : given) },
  )
}

export const flagField = (description?: string): Field<boolean, false> =>
  field({ type: 'boolean' }, description, {
    fromQuery: (_name, given) => (given === 'true' ? true : given === 'false' ? false : given),
  })

const timeShape =
  /^\d{4}-(?:0\d|1[0-2])-(?:[0-2]\d|3[01])T(?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d{1,9})?)?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)$/

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
function toTime(name: string, given: unknown): Date {
  const date = typeof given === 'string' && timeShape.test(given) ? new Date(given) : undefined
  if (date !== undefined && !Number.isNaN(date.getTime())) return date
  throw invalidOption(
    `Expected \`${name}\` to be a time with its zone, like 2026-11-28T03:12:44Z, got ${describe(given)}`,
    name,
  )
}

/** ISO 8601 with a zone. */
export const timeField = (description?: string): Field<Date, false> =>
  field({ type: 'string', format: 'date-time' }, description, { fromQuery: toTime, fromBody: toTime })

/** One text, or several. In a query repeated, or separated by commas; `\,` is a comma. */
export const listField = (description?: string, items: Json = { type: 'string' }): Field<string[], false> =>
  field({ type: 'array', items }, description, { isList: true })

/** JSON. In a query as text. */
export const jsonField = <T>(description?: string, json: Json = {}): Field<T, false> =>
  field(json, description, {
    fromQuery: (name, given) => parseRequestJson(given, `\`${name}\``, name),
    isJson: true,
  })

/** An object with fields of its own, in a body. */
export function objectField<F extends Fields>(fields: F, description?: string): Field<Values<F>, false> {
  return field(objectSchema(fields), description, {
    fromBody: (name, given) => readObject(fields, given, `\`${name}\``, name),
  })
}

/** The schema of a body, or of an object in it. */
export function objectSchema(fields: Fields): Json {
  const all = Object.entries(fields)
  const names = all.filter(([, { isRequired }]) => isRequired).map(([name]) => name)
  return {
    type: 'object',
    properties: Object.fromEntries(all.map(([name, { json }]) => [name, json])),
    ...(names.length === 0 ? {} : { required: names }),
    additionalProperties: false,
  }
}

/**
 * Translates the query of a request. A name that there is not, or a single value twice, is refused.
 *
 * @param query - after the question mark
 * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`
 */
export function readQuery(fields: Fields, query: string, action: string): Readonly<Record<string, unknown>> {
  const given = new URLSearchParams(query)
  const names = [...new Set(given.keys())]
  refuseUnknownKeys(
    Object.fromEntries(names.map((name) => [name, true])),
    Object.keys(fields),
    `the query of ${action}`,
  )
  return Object.fromEntries(
    names.map((name) => {
      const known = fields[name]
      const values = given.getAll(name)
      if (known?.isList === true) return [name, values.flatMap(itemsOf)]
      if (values.length > 1)
        throw invalidOption(`Expected \`${name}\` once in the query, got ${values.length}`, name)
      return [name, known?.fromQuery(name, values[0] ?? '')]
    }),
  )
}

/** The items of a list with commas. */
function itemsOf(value: string): string[] {
  return value.split(/(?<!\\),/).map((item) => item.replaceAll(String.raw`\,`, ','))
}

/**
 * Translates a body, or an object in it. A name that there is not is refused.
 *
 * @param what - for messages, such as `the body of replay`
 * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`
 */
export function readObject(
  fields: Fields,
  given: unknown,
  what: string,
  option?: string,
): Readonly<Record<string, unknown>> {
  if (given === null || typeof given !== 'object' || Array.isArray(given))
    throw invalidOption(`Expected ${what} to be an object, got ${kindOf(given)}`, option)
  refuseUnknownKeys(given, Object.keys(fields), what)
  return Object.fromEntries(
    Object.entries(given).map(([name, value]) => {
      const path = option === undefined ? name : `${option}.${name}`
      const known = fields[name]
      // Taken as left out, it would select more than was meant.
      if (value === null && known?.isJson !== true)
        throw invalidOption(`Expected \`${path}\` to have a value, or to be left out, got null`, path)
      return [name, known?.fromBody(path, value)]
    }),
  )
}
