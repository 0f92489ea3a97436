import type { StandardJsonSchemaV1, StandardSchemaV1 } from '../../foundation/standard-schema.ts'
import { importValibotConverter } from './valibot-json-schema.ts'
import { overrideZod } from './zod-json-schema.ts'
import type { SchemaDialect, JsonSchema } from './schema-dialect.ts'

/** The source of the JSON Schema of a type; `unknown` if its library provides none. */
export type SchemaOrigin = 'standard' | 'arktype' | 'valibot' | 'unknown'

/** A schema as JSON Schema 2020-12. What JSON Schema cannot express, such as a transformation, is left unconstrained. */
export interface DescribedSchema {
  /** The schema of what is stored: the output. Undefined if the library provides none. */
  readonly output: JsonSchema | undefined
  /** The schema of what publish takes: the input. */
  readonly input: JsonSchema | undefined
  readonly origin: SchemaOrigin
}

type Side = 'input' | 'output'
type Converter = (side: Side) => unknown

/**
 * Converts any Standard Schema to JSON Schema: through the Standard JSON Schema interface (zod from 4.2, arktype from
 * 2.1.28, and others), through `toJsonSchema()` of an older arktype, or for valibot through the package
 * `@valibot/to-json-schema` if it is installed. Never throws: a schema that cannot be converted is `unknown`.
 */
export async function describeSchema(
  schema: StandardSchemaV1,
  target: SchemaDialect = 'draft-2020-12',
): Promise<DescribedSchema> {
  const standard = schema['~standard'] as StandardSchemaV1['~standard'] &
    Partial<StandardJsonSchemaV1['~standard']>
  const { jsonSchema } = standard
  if (typeof jsonSchema?.output === 'function') {
    const described = convert('standard', (side) =>
      convertStandard(jsonSchema, side, target, standard.vendor === 'zod'),
    )
    if (described !== undefined) return described
  }
  if (standard.vendor === 'arktype' && typeof (schema as Partial<OldArktype>).toJsonSchema === 'function') {
    const described = convert('arktype', (side) => describeArktype(schema as OldArktype, side))
    if (described !== undefined) return described
  }
  if (standard.vendor === 'valibot') {
    const described = await importValibotConverter().then(
      (toJsonSchema) => convert('valibot', (side) => toJsonSchema(schema, side, target)),
      // Not installed, or not for this version of valibot.
      () => undefined,
    )
    if (described !== undefined) return described
  }
  return { output: undefined, input: undefined, origin: 'unknown' }
}

/** zod refuses to convert what JSON Schema cannot express, unless told to leave it unconstrained. */
function convertStandard(
  converter: StandardJsonSchemaV1['~standard']['jsonSchema'],
  side: Side,
  target: SchemaDialect,
  isZod: boolean,
): unknown {
  const own = isZod ? { override: overrideZod(side, target) } : {}
  try {
    return converter[side]({ target, libraryOptions: own })
  } catch {
    return converter[side]({ target, libraryOptions: { ...own, unrepresentable: 'any' } })
  }
}

/** An arktype older than the interface: types of input and output. */
interface OldArktype extends StandardSchemaV1 {
  readonly in?: OldArktype
  readonly out?: OldArktype
  readonly toJsonSchema: (options?: object) => unknown
}

function describeArktype(schema: OldArktype, side: Side): unknown {
  const type = (side === 'output' ? schema.out : schema.in) ?? schema
  return type.toJsonSchema({ fallback: ({ base }: { base: unknown }) => base })
}

function convert(origin: SchemaOrigin, converter: Converter): DescribedSchema | undefined {
  const output = attempt(() => converter('output'))
  if (output === undefined) return undefined
  return { output, input: attempt(() => converter('input')), origin }
}

/** A plain JSON copy, without the dialect, which is always the same. */
function attempt(converted: () => unknown): JsonSchema | undefined {
  try {
    const copy = JSON.parse(JSON.stringify(converted())) as JsonSchema
    if (typeof copy !== 'object') return copy
    if (copy === null || Array.isArray(copy)) return undefined
    const { $schema: _dialect, ...rest } = copy
    return rest
  } catch {
    return undefined
  }
}
