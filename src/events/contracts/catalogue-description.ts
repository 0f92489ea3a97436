import type { EventCatalogue } from '../catalogue.ts'
import { describeSchema, type SchemaOrigin } from './json-schema.ts'
import type { JsonSchema, SchemaDialect } from './schema-dialect.ts'

/** One version of an event type as data, for comparing and exporting catalogues. */
export interface TypeDescription {
  readonly type: string
  readonly version: number
  /** JSON Schema (2020-12) of the stored payload, which is the output of the type's schema. Undefined if not known. */
  readonly schema: JsonSchema | undefined
  /** The source of `schema`; `unknown` if the schema's library provides none. */
  readonly schemaOrigin: SchemaOrigin
  /** The services that may publish it. Undefined: every service. */
  readonly sources: readonly string[] | undefined
  /** The oldest version that has an upcast. Undefined: there is no upcast. */
  readonly upcastsFrom: number | undefined
  readonly redact: readonly string[] | undefined
}

/** A {@link TypeDescription} and the service that declared it. */
export interface KnownType extends TypeDescription {
  readonly service: string
}

/** The newest version of each type of a catalogue as data, ordered by name. */
export async function describeCatalogue(
  catalogue: EventCatalogue,
  dialect: SchemaDialect = 'draft-2020-12',
): Promise<readonly TypeDescription[]> {
  const described = await Promise.all(
    Object.entries(catalogue).map(async ([type, definition]): Promise<TypeDescription> => {
      const { output, origin } = await describeSchema(definition.schema, dialect)
      const steps = Object.keys(definition.upcast ?? {}).map(Number)
      return {
        type,
        version: definition.version ?? 1,
        schema: output,
        schemaOrigin: origin,
        sources: definition.sources,
        upcastsFrom: steps.length === 0 ? undefined : Math.min(...steps),
        redact: definition.redact,
      }
    }),
  )
  return described.toSorted((a, b) => (a.type < b.type ? -1 : 1))
}
