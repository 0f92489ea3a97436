/** A JSON Schema, as an object. */
export type Json = Readonly<Record<string, unknown>>

/**
 * The schema of a value that is always there.
 *
 * @typeParam V - its words, if it is one of some words
 */
export interface Schema<V = unknown> {
  readonly json: Json
  readonly isOptional: false
  /** For the compiler alone: never set. */
  readonly words?: (words: V) => V
}

/** The schema of a property that may be left out. */
export interface OptionalSchema<V = unknown> {
  readonly json: Json
  readonly isOptional: true
  /** For the compiler alone: never set. */
  readonly words?: (words: V) => V
}

/** Any schema, where it does not matter of what. */
type AnySchema = Pick<Schema, 'json'>

/** The words of a property that is one of some words; unknown for any other. */
type WordsOf<V> = [V] extends [string] ? (string extends V ? unknown : V) : unknown

/**
 * The schemas of the properties of `T`: each must be described, is optional if it may be undefined, and has all words and no others if it is one
 * of some words.
 */
export type PropertiesOf<T> = {
  readonly [K in keyof T]-?: unknown extends T[K]
    ? Schema
    : undefined extends T[K]
      ? OptionalSchema<WordsOf<Exclude<T[K], undefined>>>
      : Schema<WordsOf<T[K]>>
}

export const schemaOf = (json: Json): Schema => ({ json, isOptional: false })

const described = (json: Json, description: string | undefined): Schema =>
  schemaOf(description === undefined ? json : { ...json, description })

export const text = (description?: string): Schema => described({ type: 'string' }, description)
export const integer = (description?: string): Schema => described({ type: 'integer' }, description)
export const number = (description?: string): Schema => described({ type: 'number' }, description)
export const flag = (description?: string): Schema => described({ type: 'boolean' }, description)

/** A uuid. */
export const uuid = (description?: string): Schema =>
  described({ type: 'string', format: 'uuid' }, description)

/** ISO 8601, in UTC, with milliseconds. */
export const time = (description?: string): Schema =>
  described({ type: 'string', format: 'date-time' }, description)

/** Any JSON. */
export const anything = (description?: string): Schema => described({}, description)

/** An object whose properties are not known in advance. */
export const anyObject = (description?: string): Schema =>
  described({ type: 'object', additionalProperties: true }, description)

/** One of some words. */
export const choice = <const V extends string>(...words: readonly V[]): Schema<V> => ({
  json: { type: 'string', enum: words },
  isOptional: false,
})

export const list = (items: AnySchema, description?: string): Schema =>
  described({ type: 'array', items: items.json }, description)

/** An object with a value of one kind for each of its names. */
export const record = (values: AnySchema, description?: string): Schema =>
  described({ type: 'object', additionalProperties: values.json }, description)

export const anyOf = (...schemas: readonly AnySchema[]): Schema =>
  schemaOf({ anyOf: schemas.map(({ json }) => json) })

export const nullable = (schema: AnySchema): Schema => anyOf(schema, schemaOf({ type: 'null' }))

/** A schema of the document's components. */
export const ref = (name: string): Schema => schemaOf({ $ref: `#/components/schemas/${name}` })

export const optional = <V>({ json }: Schema<V>): OptionalSchema<V> => ({ json, isOptional: true })

/**
 * The schema of the objects of a type, which the compiler compares with it: a property that is missing here, or that may be undefined and is
 * not optional here, does not compile.
 */
export function objectOf<T>(properties: PropertiesOf<T>, description?: string): Schema {
  const all = Object.entries(
    properties as Readonly<Record<string, Pick<Schema | OptionalSchema, 'json' | 'isOptional'>>>,
  )
  return described(
    {
      type: 'object',
      properties: Object.fromEntries(all.map(([name, { json }]) => [name, json])),
      required: all.filter(([, { isOptional }]) => !isOptional).map(([name]) => name),
    },
    description,
  )
}
