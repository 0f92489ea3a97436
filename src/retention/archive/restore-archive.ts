import { ConfigurationError } from '../../foundation/errors.ts'
import {
  assertObject,
  describe,
  invalidOption,
  refuseUnknownKeys,
  textOption,
} from '../../foundation/options.ts'
import type { ArchiveStore } from './archive-store.ts'
import { archivedTables, readAll, type ArchivedTable, type ArchiveManifest } from './manifest.ts'
import { readFile } from './write-archive.ts'

/** A connection of node-postgres, or anything that takes a statement and its values like it. */
export interface RestoringClient {
  readonly query: (text: string, values?: unknown[]) => Promise<unknown>
}

/** Options of `restoreArchive`. */
export interface RestoreOptions {
  /** A connection to a database with the schema `bus`, whose role may create the table. */
  readonly client: RestoringClient
  /** Where the archive is. */
  readonly archive: Pick<ArchiveStore, 'read'>
  /** The name of its manifest, such as `2026_09/manifest.json`. */
  readonly manifest: string
  /** Which of its tables to restore. @defaultValue `'events'` */
  readonly table?: ArchivedTable | undefined
  /** The table to be created, such as `archive.events_2026_09`. Its schema must exist, and it must not. */
  readonly into: string
}

/** Rows of one statement. */
const batchRows = 1000

/**
 * Creates a table with the columns of the log and fills it with the rows of an archive, each exactly as it was, in one transaction. Nothing
 * is delivered: the table is not the log.
 *
 * @returns the number of rows
 * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`, also if the manifest cannot be read, the table exists or its schema does not; an
 *   Error if a file is not what the manifest says
 */
export async function restoreArchive(given: RestoreOptions): Promise<number> {
  assertObject('options like { client, archive, manifest, into }', given)
  refuseUnknownKeys(given, ['client', 'archive', 'manifest', 'table', 'into'], 'restoreArchive')
  const { client, archive, table = 'events' } = given
  if (typeof client?.query !== 'function')
    throw invalidOption('Expected `client` to have a method `query`', 'client')
  if (typeof archive?.read !== 'function')
    throw invalidOption('Expected `archive` to have a method `read`', 'archive')
  if (!archivedTables.includes(table))
    throw invalidOption(
      `Expected \`table\` to be one of ${archivedTables.join(', ')}, got ${describe(table)}`,
      'table',
    )
  const into = quoteTable(textOption('into', given.into, { max: 127 }))
  const name = textOption('manifest', given.manifest, { max: 1024 })
  const manifest = await readManifest(archive, name, table)
  const { columns, files, rowCount } = manifest.tables[table]
  const list = columns.map((column) => quote(column)).join(', ')
  // A payload may be the JSON value null, which json_populate_recordset takes for no value; these columns always have one.
  const values = columns.map((column) =>
    column === 'payload' || column === 'metadata'
      ? `coalesce(r.${quote(column)}, 'null'::jsonb)`
      : `r.${quote(column)}`,
  )
  const insert = `insert into ${into} (${list}) select ${values.join(', ')} from json_populate_recordset(null::bus.${table}, $1::json) r`
  await client.query('begin')
  try {
    await createTable(client, `create table ${into} (like bus.${table})`, given.into)
    let batch: string[] = []
    let restored = 0
    const flush = async (): Promise<void> => {
      if (batch.length === 0) return
      await client.query(insert, [`[${batch.join(',')}]`])
      restored += batch.length
      batch = []
    }
    for (const file of files)
      for await (const line of readFile(archive, manifest, columns, file)) {
        batch.push(line)
        if (batch.length >= batchRows) await flush()
      }
    await flush()
    if (restored !== rowCount) throw new Error(`The archive ${name} has ${restored} rows of ${rowCount}`)
    await client.query('commit')
    return restored
  } catch (error) {
    await client.query('rollback')
    throw error
  }
}

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` if it cannot be read, or is no manifest */
export async function readManifest(
  archive: Pick<ArchiveStore, 'read'>,
  name: string,
  table: ArchivedTable,
): Promise<ArchiveManifest> {
  let cause: unknown
  try {
    const manifest = JSON.parse((await readAll(await archive.read(name))).toString()) as ArchiveManifest
    const { columns, files, rowCount } = manifest.tables[table]
    if (
      columns.every((column) => columnShape.test(column)) &&
      Array.isArray(files) &&
      Number.isInteger(rowCount)
    )
      return manifest
  } catch (error) {
    cause = error
  }
  throw new ConfigurationError(
    'BUS_INVALID_OPTION',
    `Expected \`manifest\` to be the name of the manifest of an archive, such as "2026_09/manifest.json": ${describe(name)} cannot be read, or is none`,
    { option: 'manifest', cause },
  )
}

const columnShape = /^[a-z_]{1,63}$/

/** What PostgreSQL says of a schema that is not there, and of a table or a type that is. */
const reasons: Readonly<Record<string, string>> = {
  '3F000': 'its schema does not exist',
  '42P07': 'it already exists',
  '42710': 'it already exists',
}

async function createTable(client: RestoringClient, statement: string, into: string): Promise<void> {
  try {
    await client.query(statement)
  } catch (error) {
    const { code } = error as { readonly code?: unknown }
    if (typeof code !== 'string' || !Object.hasOwn(reasons, code)) throw error
    throw new ConfigurationError(
      'BUS_INVALID_OPTION',
      `Expected \`into\` to be a new table in a schema that exists, got ${describe(into)}: ${reasons[code]}`,
      { option: 'into', cause: error },
    )
  }
}

function quote(name: string): string {
  return `"${name.replaceAll('"', '""')}"`
}

/** PostgreSQL cuts longer names off. */
const maxNameBytes = 63

function quoteTable(name: string): string {
  const parts = name.split('.')
  if (parts.length > 2 || parts.includes('') || parts.some((part) => Buffer.byteLength(part) > maxNameBytes))
    throw invalidOption(
      `Expected \`into\` to be a table, such as "archive.events_2026_09", with names of at most ${maxNameBytes} bytes, got ${describe(name)}`,
      'into',
    )
  return parts.map((part) => quote(part)).join('.')
}
