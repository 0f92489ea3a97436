import type { Readable } from 'node:stream'
import type { ArchiveFormat } from './archive-store.ts'

/** The tables that are archived, in this order. */
export const archivedTables = ['events', 'receipts', 'receipt_batches', 'attempts'] as const

export type ArchivedTable = (typeof archivedTables)[number]

/** A file of an archive. */
export interface ArchivedFile {
  readonly name: string
  readonly rowCount: number
  readonly byteCount: number
  /** Of the bytes of the file, in hexadecimal. */
  readonly sha256: string
  /** The lowest and the highest id of an event in it. */
  readonly minId: string
  readonly maxId: string
}

/** What is in an archive of one table. */
export interface ArchivedRows {
  /** Names of the columns of the log when it was written. */
  readonly columns: readonly string[]
  readonly rowCount: number
  /** The sum of PostgreSQL's `hash_record_extended(row, 0)`, whatever the order of the rows. */
  readonly rowHash: string
  /** Of its rows as JSON lines, file after file, in hexadecimal. */
  readonly sha256: string
  /** Events whose payloads were erased. */
  readonly erasedCount: number
  readonly minId: string | null
  readonly maxId: string | null
  readonly files: readonly ArchivedFile[]
}

/** The content of `manifest.json`. */
export interface ArchiveManifest {
  readonly format: ArchiveFormat
  /** Of this description. */
  readonly version: 1
  /** The number of migrations of the schema `bus` it was written from. */
  readonly schemaVersion: number
  /** The folder, such as `2026_09`. */
  readonly name: string
  /** The range of ids: from the first, up to and not including the second. */
  readonly fromId: string
  readonly toId: string
  readonly from: string
  readonly to: string
  readonly archivedAt: string
  readonly tables: Readonly<Record<ArchivedTable, ArchivedRows>>
}

/** The column by which a table is partitioned. */
export function keyColumn(table: ArchivedTable): 'id' | 'event_id' {
  return table === 'events' ? 'id' : 'event_id'
}

/** Collects a stream. */
export async function readAll(stream: Readable): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of stream) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}
