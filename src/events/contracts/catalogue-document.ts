import { invalidOption } from '../../foundation/options.ts'
import type { KnownType, TypeDescription } from './catalogue-description.ts'
import type { SchemaOrigin } from './json-schema.ts'
import type { JsonSchema } from './schema-dialect.ts'

/** Incremented when the meaning of `x-bossbus` changes. */
const format = 1

/** A catalogue as one JSON Schema document, to commit and to compare with: `$defs` holds each type and version. */
export interface CatalogueDocument {
  readonly $schema: string
  readonly title: string
  readonly 'x-bossbus': {
    readonly format: number
    readonly source: string
    readonly types: readonly DocumentType[]
  }
  readonly $defs: Readonly<Record<string, JsonSchema>>
}

interface DocumentType {
  readonly type: string
  readonly version: number
  readonly schemaOrigin: SchemaOrigin
  readonly sources?: readonly string[]
  readonly upcastsFrom?: number
  readonly redact?: readonly string[]
}

/** The name of a type's version in `$defs`. */
export function definitionName({
  type,
  version,
}: {
  readonly type: string
  readonly version: number
}): string {
  return `${type}.v${version}`
}

/** A name as part of a reference: a JSON pointer (RFC 6901) in a URI fragment. */
function inPointer(name: string): string {
  return encodeURIComponent(name.replaceAll('~', '~0').replaceAll('/', '~1'))
}

/**
 * @param older - known versions that the code has replaced; versions of types that the code no longer declares are
 *   dropped
 */
export function toCatalogueDocument(
  source: string,
  current: readonly TypeDescription[],
  older: readonly TypeDescription[] = [],
): CatalogueDocument {
  const newest = new Map(current.map(({ type, version }) => [type, version]))
  const all = [
    ...current,
    ...older.filter(({ type, version }) => version < (newest.get(type) ?? 0)),
  ].toSorted((a, b) => (a.type === b.type ? a.version - b.version : a.type < b.type ? -1 : 1))
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: `Events of ${source}`,
    'x-bossbus': {
      format,
      source,
      types: all.map(({ type, version, schemaOrigin, sources, upcastsFrom, redact }) => ({
        ...{ type, version, schemaOrigin },
        ...(sources && { sources }),
        ...(upcastsFrom === undefined ? {} : { upcastsFrom }),
        ...(redact && { redact }),
      })),
    },
    $defs: Object.fromEntries(
      all.map((description) => [
        definitionName(description),
        placed(description.schema ?? true, `#/$defs/${inPointer(definitionName(description))}`),
      ]),
    ),
  }
}

/**
 * Reads the description of each version from a document.
 *
 * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` if it is not such a document
 */
export function readCatalogueDocument(document: unknown, what: string): readonly KnownType[] {
  const { 'x-bossbus': about, $defs } = (document ?? {}) as Partial<CatalogueDocument>
  if (about?.format !== format || !Array.isArray(about.types) || typeof $defs !== 'object')
    throw invalidOption(
      `Expected ${what} to be a catalogue as \`bossbus catalog export\` writes it${about === undefined ? '' : `, in format ${format}`}`,
    )
  const { source } = about
  const types = about.types as readonly DocumentType[]
  return types.map((entry) => {
    const name = definitionName(entry)
    return {
      type: entry.type,
      version: entry.version,
      service: source,
      schema:
        entry.schemaOrigin === 'unknown'
          ? undefined
          : placed($defs[name] ?? true, '#', `#/$defs/${inPointer(name)}`),
      schemaOrigin: entry.schemaOrigin,
      sources: entry.sources,
      upcastsFrom: entry.upcastsFrom,
      redact: entry.redact,
    }
  })
}

/** A schema whose references point to its new location. */
export function placed(schema: JsonSchema, to: string, from = '#'): JsonSchema {
  if (typeof schema === 'boolean') return schema
  return JSON.parse(
    JSON.stringify(schema, (key, value: unknown) => {
      if (key !== '$ref' || typeof value !== 'string') return value
      return value === from || value.startsWith(`${from}/`) ? `${to}${value.slice(from.length)}` : value
    }),
  ) as JsonSchema
}
