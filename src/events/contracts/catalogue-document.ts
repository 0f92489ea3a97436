import { invalidOption } from '../../foundation/options.ts'
import type { KnownType, TypeDescription } from './catalogue-description.ts'
import type { SchemaOrigin } from './json-schema.ts'
import type { JsonSchema } from './schema-dialect.ts'

/** Raised when what `x-bossbus` holds changes its meaning. */
const format = 1

/** A catalogue as one JSON Schema document, to commit and to compare with: `$defs` has each type and version. */
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

/** A name as a part of a reference: a JSON pointer (RFC 6901) in a URI's fragment. */
function inPointer(name: string): string {
  return encodeURIComponent(name.replaceAll('~', '~0').replaceAll('/', '~1'))
}

/**
 * @param older - versions that the code has gone on from, as they are known: of types that it has no more nothing is kept
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
 * What a document says of each version.
 *
 * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` when it is no such document
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

/** A schema with its references led to where it stands now. */
export function placed(schema: JsonSchema, to: string, from = '#'): JsonSchema {
  if (typeof schema === 'boolean') return schema
  return JSON.parse(
    JSON.stringify(schema, (key, value: unknown) => {
      if (key !== '$ref' || typeof value !== 'string') return value
      return value === from || value.startsWith(`${from}/`) ? `${to}${value.slice(from.length)}` : value
    }),
  ) as JsonSchema
}
