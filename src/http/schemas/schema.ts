/** A JSON Schema, as an object. */
export type Json = Readonly<Record<string, unknown>>

/** The schema of a value that is always there. */
export interface Schema {
  readonly json: Json
  readonly isOptional: false
}

/** The schema of a property that may be left out. */
export interface OptionalSchema {
  readonly json: Json
  readonly isOptional: true
}

/** The schemas of the properties of `T`: each must be described, and is optional if it may be undefined. */
export type PropertiesOf<T> = {
  readonly [K in keyof T]-?: unknown extends T[K] ? Schema : undefined extends T[K] ? OptionalSchema : Schema
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

/** One of some texts. */
export const choice = (...values: readonly string[]): Schema => schemaOf({ type: 'string', enum: values })

export const list = (items: Schema, description?: string): Schema =>
  described({ type: 'array', items: items.json }, description)

/** An object with a value of one kind for each of its names. */
export const record = (values: Schema, description?: string): Schema =>
  described({ type: 'object', additionalProperties: values.json }, description)

export const anyOf = (...schemas: readonly Schema[]): Schema =>
  schemaOf({ anyOf: schemas.map(({ json }) => json) })

export const nullable = (schema: Schema): Schema => anyOf(schema, schemaOf({ type: 'null' }))

/** A schema of the document's components. */
export const ref = (name: string): Schema => schemaOf({ $ref: `#/components/schemas/${name}` })

export const optional = ({ json }: Schema): OptionalSchema => ({ json, isOptional: true })

/**
 * The schema of the objects of a type, which the compiler compares with it: a property that is missing here, or that may be undefined and is
 * not optional here, does not compile.
 */
export function objectOf<T>(properties: PropertiesOf<T>, description?: string): Schema {
  const all = Object.entries<Schema | OptionalSchema>(properties)
  return described(
    {
      type: 'object',
      properties: Object.fromEntries(all.map(([name, { json }]) => [name, json])),
      required: all.filter(([, { isOptional }]) => !isOptional).map(([name]) => name),
    },
    description,
  )
}
