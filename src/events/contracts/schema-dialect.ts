/** The supported dialects: the one for storing and comparing, and AsyncAPI's. */
export type SchemaDialect = 'draft-2020-12' | 'draft-07'

/** A JSON Schema: an object, or true (anything) or false (nothing). */
export type JsonSchema = boolean | { readonly [keyword: string]: unknown }
