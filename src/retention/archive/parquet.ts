import type { Readable } from 'node:stream'
import type * as Reader from 'hyparquet'
import type * as Writer from 'hyparquet-writer'
import { ConfigurationError } from '../../foundation/errors.ts'
import { valuesOf, lineOf } from './json-values.ts'
import { readAll } from './manifest.ts'

/** Columns whose JSON is kept as it is. All others are texts, numbers or booleans. */
const jsonColumns: ReadonlySet<string> = new Set(['payload', 'metadata', 'event_ids', 'durations_ms'])

/**
 * A Parquet file of these rows. Each column has type String, or JSON for payload and metadata, and exactly the text that PostgreSQL wrote, so
 * that a row is restored as it was. Held in memory while it is made.
 */
export async function* encodeParquet(
  columns: readonly string[],
  lines: AsyncIterable<string>,
): AsyncGenerator<Uint8Array> {
  const { parquetWriteBuffer } = await importWriter()
  const data = columns.map((name) => ({
    name,
    type: 'STRING' as const,
    nullable: true,
    data: [] as (string | null)[],
  }))
  for await (const line of lines) {
    const values = valuesOf(line)
    for (const column of data) {
      const value = values.get(column.name) ?? 'null'
      column.data.push(toText(column.name, value))
    }
  }
  yield new Uint8Array(parquetWriteBuffer({ columnData: data }))
}

/** The rows of a file of {@link encodeParquet}, as the lines that they were. */
export async function* decodeParquet(columns: readonly string[], content: Readable): AsyncGenerator<string> {
  const { parquetReadObjects } = await importReader()
  const bytes = await readAll(content)
  const file = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer
  const rows = await parquetReadObjects({ file })
  for (const row of rows)
    yield lineOf(new Map(columns.map((name) => [name, toJson(name, (row[name] as string | null) ?? null)])))
}

/** A JSON string is kept as its text, anything else as its JSON. */
function toText(name: string, value: string): string | null {
  if (jsonColumns.has(name)) return value
  if (value === 'null') return null
  return value.startsWith('"') ? (JSON.parse(value) as string) : value
}

/** Columns of numbers and booleans, whose JSON is their text. */
const bareColumns: ReadonlySet<string> = new Set([
  'schema_version',
  'subscription_id',
  'attempts',
  'attempt',
  'expired',
  'erased',
  'succeeded',
  'duration_ms',
])

function toJson(name: string, text: string | null): string {
  if (text === null) return 'null'
  if (jsonColumns.has(name)) return text
  return bareColumns.has(name) && /^(?:-?\d|true$|false$)/.test(text) ? text : JSON.stringify(text)
}

// Each in a `try`, which tells bundlers that the packages may be missing.

async function importWriter(): Promise<typeof Writer> {
  try {
    return await import('hyparquet-writer')
  } catch (error) {
    throw missing(error)
  }
}

async function importReader(): Promise<typeof Reader> {
  try {
    return await import('hyparquet')
  } catch (error) {
    throw missing(error)
  }
}

function missing(cause: unknown): ConfigurationError {
  return new ConfigurationError(
    'BUS_INVALID_OPTION',
    'An archive of the format "parquet" needs the packages `hyparquet-writer` and `hyparquet`: install them',
    { option: 'retention.archive', cause },
  )
}
