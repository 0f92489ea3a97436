import { createHash, type Hash } from 'node:crypto'
import { Readable, Transform } from 'node:stream'
import type { Database, Executor } from '../../database/database.ts'
import { isDeepStrictEqual } from 'node:util'
import type { ArchiveStore } from './archive-store.ts'
import { decodeLines, encodeLines, extensions } from './encoding.ts'
import {
  archivedTables,
  readAll,
  type ArchivedFile,
  type ArchivedRows,
  type ArchivedTable,
  type ArchiveManifest,
} from './manifest.ts'
import { readRange, type ArchivedRow } from './rows.ts'

/** A file has about so many rows, and about so many bytes before it is compressed. */
const fileRows = 100_000
const fileBytes = 128 * 1024 * 1024

/** A range of the log that is to be archived. */
export interface ArchivedRange {
  /** The folder of its files, such as `2026_09`. */
  readonly name: string
  readonly lower: string
  readonly upper: string
}

/** A file, and the subjects that it is about. */
interface WrittenFile {
  readonly table: ArchivedTable
  readonly file: ArchivedFile
  readonly subjectHashes: readonly string[]
}

/**
 * Copies a range of the log and the ledger into files, reads them back and compares them, and records it as archived. Interrupted anywhere,
 * the next call begins again and replaces the files.
 */
export async function archiveRange(
  database: Database,
  store: ArchiveStore,
  range: ArchivedRange,
  service: string,
): Promise<void> {
  const { lower, upper } = range
  const { rows } = await database.query<{ id: string; state: string; name: string }>(
    `insert into bus.archives as known (lower_bound, upper_bound, name, service) values ($1, $2, $3, $4)
     on conflict (lower_bound, upper_bound) where state <> 'dropped' do update set service = excluded.service
     returning id, state, name`,
    [lower, upper, await nameFor(database, range), service],
  )
  const [row] = rows
  if (row === undefined || row.state !== 'archiving') return
  const { name } = row
  await database.faultPoint?.('retention.archive-begun')
  const written: WrittenFile[] = []
  const tables: [ArchivedTable, ArchivedRows][] = []
  for (const table of archivedTables) {
    const archived = await writeTable(database, store, { name, lower, upper }, table)
    written.push(...archived.written)
    tables.push([table, archived.rows])
  }
  const manifest = await describeArchive(database, store, { name, lower, upper }, tables)
  for (const table of archivedTables) await verifyTable(store, manifest, table)
  const manifestName = `${name}/manifest.json`
  await writeManifest(store, manifestName, manifest)
  await database.faultPoint?.('retention.archive-verified')
  await database.transaction(async (client) => {
    await client.query('delete from bus.archive_files where archive_id = $1', [row.id])
    for (const { table, file, subjectHashes } of written)
      await client.query(
        `insert into bus.archive_files (archive_id, name, table_name, row_count, byte_count, sha256, subject_hashes)
         values ($1, $2, $3, $4, $5, $6, $7)`,
        [row.id, file.name, table, file.rowCount, file.byteCount, file.sha256, subjectHashes],
      )
    await client.query(
      `update bus.archives set state = 'archived', manifest = $2, tables = $3, archived_at = clock_timestamp() where id = $1`,
      [
        row.id,
        manifestName,
        JSON.stringify(
          Object.fromEntries(tables.map(([table, { rowCount, rowHash }]) => [table, { rowCount, rowHash }])),
        ),
      ],
    )
  })
  await database.faultPoint?.('retention.archived')
}

/** The folder of an archive: another one if the range was dropped before, and old events have been copied in since. */
async function nameFor(executor: Executor, { name, lower, upper }: ArchivedRange): Promise<string> {
  const { rows } = await executor.query<{ count: number }>(
    `select count(*)::int as count from bus.archives where lower_bound = $1 and upper_bound = $2 and state = 'dropped'`,
    [lower, upper],
  )
  const count = rows[0]?.count ?? 0
  return count === 0 ? name : `${name}_${count + 1}`
}

/** Stores the description of an archive, and reads it back. */
export async function writeManifest(
  store: ArchiveStore,
  name: string,
  manifest: ArchiveManifest,
): Promise<void> {
  await store.write(name, Readable.from([Buffer.from(`${JSON.stringify(manifest, undefined, 2)}\n`)]))
  const stored: unknown = JSON.parse((await readAll(await store.read(name))).toString())
  if (!isDeepStrictEqual(stored, JSON.parse(JSON.stringify(manifest))))
    throw new Error(`The archive ${name} was read back, and is not what was written`)
}

async function describeArchive(
  executor: Executor,
  { format = 'ndjson' }: ArchiveStore,
  { name, lower, upper }: ArchivedRange,
  tables: readonly (readonly [ArchivedTable, ArchivedRows])[],
): Promise<ArchiveManifest> {
  const { rows } = await executor.query<{ migrations: number; at: Date; from: number; to: number }>(
    `select (select count(*)::int from bus.migrations) as migrations, clock_timestamp() as at,
       bus.uuid_ms($1)::float8 as from, bus.uuid_ms($2)::float8 as to`,
    [lower, upper],
  )
  return {
    format,
    version: 1,
    schemaVersion: rows[0]?.migrations ?? 0,
    name,
    fromId: lower,
    toId: upper,
    from: new Date(rows[0]?.from ?? 0).toISOString(),
    to: new Date(rows[0]?.to ?? 0).toISOString(),
    archivedAt: (rows[0]?.at ?? new Date()).toISOString(),
    tables: Object.fromEntries(tables) as Record<ArchivedTable, ArchivedRows>,
  }
}

/** What is known of the rows that went by. */
interface Tally {
  rowCount: number
  rowHash: bigint
  erasedCount: number
  minId: string | null
  maxId: string | null
}

const emptyTally = (): Tally => ({ rowCount: 0, rowHash: 0n, erasedCount: 0, minId: null, maxId: null })

function countRow(tally: Tally, { id, hash, isErased }: ArchivedRow): void {
  tally.rowCount += 1
  tally.rowHash += BigInt(hash)
  if (isErased) tally.erasedCount += 1
  if (tally.minId === null || id < tally.minId) tally.minId = id
  if (tally.maxId === null || id > tally.maxId) tally.maxId = id
}

async function writeTable(
  database: Database,
  store: ArchiveStore,
  { name, lower, upper }: ArchivedRange,
  table: ArchivedTable,
): Promise<{ readonly rows: ArchivedRows; readonly written: readonly WrittenFile[] }> {
  const columns = await columnsOf(database, table)
  const format = store.format ?? 'ndjson'
  const pages = readRange(database, table, lower, upper)
  const whole = createHash('sha256')
  const total = emptyTally()
  const written: WrittenFile[] = []
  let page = await pages.next()
  while (page.done !== true) {
    const tally = emptyTally()
    const subjects = new Set<string>()
    const lines = async function* (): AsyncGenerator<string> {
      let bytes = 0
      while (page.done !== true && tally.rowCount < fileRows && bytes < fileBytes) {
        for (const row of page.value) {
          countRow(tally, row)
          countRow(total, row)
          for (const hash of row.subjectHashes) subjects.add(hash)
          bytes += row.line.length
          whole.update(`${row.line}\n`)
          yield row.line
        }
        page = await pages.next()
      }
    }
    const fileName = `${name}/${table}/part-${String(written.length).padStart(5, '0')}.${extensions[format]}`
    const stored = await storeFile(store, fileName, encodeLines(format, columns, lines()))
    written.push({
      table,
      file: {
        name: fileName,
        rowCount: tally.rowCount,
        ...stored,
        minId: tally.minId ?? '',
        maxId: tally.maxId ?? '',
      },
      subjectHashes: [...subjects],
    })
    await database.faultPoint?.('retention.file-written')
  }
  const { rowHash, ...rest } = total
  return {
    written,
    rows: {
      columns,
      ...rest,
      rowHash: String(rowHash),
      sha256: whole.digest('hex'),
      files: written.map(({ file }) => file),
    },
  }
}

/** Stores a file, and says what was given to the store. */
export async function storeFile(
  store: ArchiveStore,
  name: string,
  content: Readable,
): Promise<{ readonly byteCount: number; readonly sha256: string }> {
  const hash = createHash('sha256')
  let byteCount = 0
  const counted = tapped(content, hash, (bytes) => {
    byteCount += bytes
  })
  await store.write(name, counted)
  if (!counted.readableEnded)
    throw new Error(
      `The archive has not read all of ${name}: its \`write\` must resolve when the file is stored`,
    )
  return { byteCount, sha256: hash.digest('hex') }
}

function tapped(content: Readable, hash: Hash, onBytes: (count: number) => void): Readable {
  const tap = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      hash.update(chunk)
      onBytes(chunk.length)
      done(null, chunk)
    },
  })
  content.on('error', (error) => tap.destroy(error))
  return content.pipe(tap)
}

/** Reads the files of a table back. @throws if one of them is not what was written */
async function verifyTable(
  store: ArchiveStore,
  manifest: ArchiveManifest,
  table: ArchivedTable,
): Promise<void> {
  const { columns, files, sha256 } = manifest.tables[table]
  const whole = createHash('sha256')
  for (const file of files)
    for await (const line of readFile(store, manifest, columns, file)) whole.update(`${line}\n`)
  if (whole.digest('hex') !== sha256)
    throw new Error(`The archive ${manifest.name}/${table} was read back, and is not what was written`)
}

/** The lines of a file of an archive. @throws if it is not what the manifest says */
export async function* readFile(
  store: Pick<ArchiveStore, 'read'>,
  { format }: Pick<ArchiveManifest, 'format'>,
  columns: readonly string[],
  file: Pick<ArchivedFile, 'name' | 'rowCount' | 'sha256'>,
): AsyncGenerator<string> {
  const hash = createHash('sha256')
  let rowCount = 0
  const content = tapped(await store.read(file.name), hash, () => {})
  for await (const line of decodeLines(format, columns, content)) {
    rowCount += 1
    yield line
  }
  if (rowCount !== file.rowCount || hash.digest('hex') !== file.sha256)
    throw new Error(`The file ${file.name} of the archive is not what its manifest says`)
}

async function columnsOf(executor: Executor, table: ArchivedTable): Promise<string[]> {
  const { rows } = await executor.query<{ name: string }>(
    `select attname::text as name from pg_attribute where attrelid = to_regclass('bus.' || $1) and attnum > 0 and not attisdropped order by attnum`,
    [table],
  )
  return rows.map(({ name }) => name)
}
