import type { StandardSchemaV1 } from '../../foundation/standard-schema.ts'
import type * as toJsonSchemaPackage from '@valibot/to-json-schema'
import { isFlagged } from './zod-json-schema.ts'
import type { SchemaDialect } from './schema-dialect.ts'

type Json = Record<string, unknown>

/** The parts of valibot's schemas and actions that are read here. */
interface ValibotItem {
  readonly kind: string
  readonly type: string
  readonly default?: unknown
  readonly requirement?: unknown
  readonly entries?: Readonly<Record<string, ValibotItem>>
}

/**
 * Converts a valibot schema to JSON Schema, if `@valibot/to-json-schema` is installed. That package describes the input
 * of a transformation, unless a schema follows it in its pipe; here the output is described.
 *
 * @throws if the package is not installed, or not for this version of valibot
 */
export async function importValibotConverter(): Promise<
  (schema: StandardSchemaV1, side: 'input' | 'output', target: SchemaDialect) => unknown
> {
  const { toJsonSchema } = await importPackage()
  return (schema, typeMode, target) =>
    toJsonSchema(schema as never, {
      typeMode,
      target,
      errorMode: 'ignore',
      overrideAction: ({ valibotAction, jsonSchema }) =>
        overrideAction(typeMode, valibotAction, jsonSchema as Json),
      ...(typeMode === 'output' && {
        overrideSchema: ({ valibotSchema, jsonSchema }) => storedSchema(valibotSchema, jsonSchema as Json),
      }),
    })
}

/** In a `try`, which tells bundlers that the package may be missing. */
async function importPackage(): Promise<typeof toJsonSchemaPackage> {
  try {
    return await import('@valibot/to-json-schema')
  } catch (error) {
    throw new Error('@valibot/to-json-schema could not be loaded', { cause: error })
  }
}

/** Undefined: the description is already right. */
function overrideAction(side: 'input' | 'output', action: ValibotItem, schema: Json): Json | undefined {
  const { kind, type, requirement } = action
  if (type === 'regex' && requirement instanceof RegExp && isFlagged(requirement)) {
    const { pattern: _flagged, ...rest } = schema
    return rest
  }
  return side === 'output' && kind === 'transformation' ? given(action, schema) : undefined
}

/** Formats whose texts keep the format when they are trimmed or change case. */
const kept: ReadonlySet<unknown> = new Set(['email', 'uuid', 'ipv4', 'ipv6', 'uri', 'date'])

const texts = [
  ...['normalize', 'to_string', 'stringify_json', 'to_camel_case', 'to_kebab_case'],
  ...['to_pascal_case', 'to_snake_case'],
]

/** The output of a transformation; unconstrained if it is custom code. */
function given({ type, requirement }: ValibotItem, schema: Json): Json | undefined {
  if (['brand', 'flavor', 'readonly', 'guard'].includes(type)) return undefined
  if (texts.includes(type)) return { type: 'string' }
  switch (type) {
    case 'trim':
    case 'trim_start':
    case 'trim_end':
    case 'to_lower_case':
    case 'to_upper_case':
      return { type: 'string', ...(kept.has(schema['format']) && { format: schema['format'] }) }
    case 'to_number':
      return { type: 'number' }
    case 'to_boolean':
    case 'parse_boolean':
      return { type: 'boolean' }
    case 'sort_items':
      return schema['prefixItems'] === undefined ? schema : { type: 'array' }
    case 'filter_items':
      return pick(
        schema,
        schema['prefixItems'] === undefined ? ['type', 'items', 'maxItems'] : ['type', 'maxItems'],
      )
    case 'map_items':
      return pick(schema, ['type', 'minItems', 'maxItems'])
    case 'to_min_value':
    case 'to_max_value':
      if (schema['type'] !== 'number' && schema['type'] !== 'integer') return {}
      return { type: Number.isInteger(requirement) ? schema['type'] : 'number' }
    default:
      return {}
  }
}

/** The stored output of a schema that changes its input without an action. */
function storedSchema(schema: ValibotItem, json: Json): Json | undefined {
  if (schema.entries !== undefined) {
    const required = Object.entries(schema.entries)
      .filter(([, entry]) => isAlwaysThere(entry))
      .map(([name]) => name)
    return { ...json, required }
  }
  // Items after those of a tuple are dropped.
  if (schema.type === 'tuple' && json['prefixItems'] !== undefined) return { ...json, items: false }
  if ((schema.type === 'nullable' || schema.type === 'nullish') && replaces(schema.default)) {
    const [wrapped] = json['anyOf'] as [Json]
    return wrapped
  }
  return undefined
}

/** Whether a property is in the JSON of every result: an undefined property is not. */
function isAlwaysThere({ type, default: value }: ValibotItem): boolean {
  if (type === 'optional' || type === 'nullish') return replaces(value)
  if (type === 'undefinedable') return replaces(value)
  return type !== 'exact_optional' && type !== 'undefined' && type !== 'void'
}

/** Whether a default replaces a missing value; the result of a function is not known. */
function replaces(value: unknown): boolean {
  return value !== undefined && value !== null && typeof value !== 'function'
}

function pick(schema: Json, keywords: readonly string[]): Json {
  return Object.fromEntries(Object.entries(schema).filter(([keyword]) => keywords.includes(keyword)))
}
