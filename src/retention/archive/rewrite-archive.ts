import { createHash } from 'node:crypto'
import type { Database, Executor } from '../../database/database.ts'
import type { ArchiveStore } from './archive-store.ts'
import { decodeLines, encodeLines } from './encoding.ts'
import { lineOf, valuesOf } from './json-values.ts'
import { readAll, type ArchivedFile, type ArchivedTable, type ArchiveManifest } from './manifest.ts'
import { readFile, storeFile, writeManifest } from './write-archive.ts'

/** A file of an archive that holds events of a subject that was erased after it was written. */
export interface PendingErasure {
  readonly archive: string
  readonly file: string
  readonly tenantId: string
  readonly subject: string
  readonly requestedAt: Date
}

interface PendingRow extends Record<string, unknown> {
  readonly archive_id: string
  readonly archive: string
  readonly manifest: string
  readonly file: string
  readonly table_name: ArchivedTable
  readonly tenant_id: string
  readonly subject: string
  readonly requested_at: Date
  readonly requested_text: string
}

const pendingSql = `select e.archive_id, a.name as archive, a.manifest, e.file, f.table_name, e.tenant_id, e.subject, e.requested_at,
    to_json(e.requested_at)::text as requested_text
  from bus.archive_erasures e
  join bus.archives a on a.id = e.archive_id
  join bus.archive_files f on f.archive_id = e.archive_id and f.name = e.file
  where e.rewritten_at is null and a.state <> 'archiving'`

/** The files that are still to be rewritten. */
export async function pendingErasures(executor: Executor): Promise<PendingErasure[]> {
  const { rows } = await executor.query<PendingRow>(`${pendingSql} order by e.requested_at limit 1000`)
  return rows.map(({ archive, file, tenant_id, subject, requested_at }) => ({
    archive,
    file,
    tenantId: tenant_id,
    subject,
    requestedAt: requested_at,
  }))
}

/**
 * Replaces the events of erased subjects in the files of archives by tombstones, and what their failed attempts said. One archive after the
 * other; an interrupted one is done again. Resolves to the names of the files.
 */
export async function rewriteErased(database: Database, store: ArchiveStore): Promise<string[]> {
  const done: string[] = []
  for (;;) {
    const { rows: first } = await database.query<{ archive_id: string }>(
      `select p.archive_id from (${pendingSql}) p order by p.requested_at limit 1`,
    )
    const id = first[0]?.archive_id
    if (id === undefined) return done
    const { rows } = await database.query<PendingRow>(`${pendingSql} and e.archive_id = $1`, [id])
    done.push(...(await rewriteArchive(database, store, rows)))
  }
}

async function rewriteArchive(
  database: Database,
  store: ArchiveStore,
  pending: readonly PendingRow[],
): Promise<string[]> {
  const [{ archive_id: id, manifest: manifestName } = { archive_id: '', manifest: '' }] = pending
  let manifest = JSON.parse((await readAll(await store.read(manifestName))).toString()) as ArchiveManifest
  // The attempts of an event are found by its id, which only the file of the events gives.
  const erasedIds = new Set<string>()
  const files = Map.groupBy(pending, ({ file }) => file)
  const written: { readonly name: string; readonly byteCount: number; readonly sha256: string }[] = []
  for (const table of ['events', 'attempts'] as const) {
    const { columns, files: known } = manifest.tables[table]
    const replaced: ArchivedFile[] = []
    const whole = createHash('sha256')
    let erasedCount = 0
    for (const file of known) {
      const wanted = files.get(file.name) ?? []
      const content = await store.read(file.name)
      const lines = async function* (): AsyncGenerator<string> {
        let rowCount = 0
        for await (const line of decodeLines(manifest.format, columns, content)) {
          rowCount += 1
          const kept =
            table === 'events' ? withoutEvent(line, wanted, erasedIds) : withoutError(line, erasedIds)
          if (table === 'events' && valuesOf(kept).get('erased_at') !== 'null') erasedCount += 1
          whole.update(`${kept}\n`)
          yield kept
        }
        // Its hash may differ, from a call that was interrupted. In place of a file with fewer rows none is stored.
        if (rowCount !== file.rowCount)
          throw new Error(
            `The file ${file.name} of the archive has ${rowCount} rows, its manifest says ${file.rowCount}`,
          )
      }
      if (wanted.length === 0) {
        for await (const line of lines()) void line
        replaced.push(file)
        continue
      }
      const stored = await storeFile(store, file.name, encodeLines(manifest.format, columns, lines()))
      const rewritten = { ...file, ...stored }
      for await (const line of readFile(store, manifest, columns, rewritten)) void line
      written.push({ name: file.name, ...stored })
      replaced.push(rewritten)
    }
    const rows = { ...manifest.tables[table], files: replaced, sha256: whole.digest('hex'), erasedCount }
    manifest = { ...manifest, tables: { ...manifest.tables, [table]: rows } }
  }
  await writeManifest(store, manifestName, manifest)
  await database.transaction(async (client) => {
    for (const { name, byteCount, sha256 } of written)
      await client.query(
        'update bus.archive_files set byte_count = $3, sha256 = $4 where archive_id = $1 and name = $2',
        [id, name, byteCount, sha256],
      )
    for (const { file, tenant_id, subject } of pending)
      await client.query(
        `update bus.archive_erasures set rewritten_at = clock_timestamp()
         where archive_id = $1 and file = $2 and tenant_id = $3 and subject = $4`,
        [id, file, tenant_id, subject],
      )
  })
  return written.map(({ name }) => name)
}

/** The tombstone of an event of one of these subjects, as `bus.erase` writes it; any other event as it is. */
function withoutEvent(line: string, wanted: readonly PendingRow[], erasedIds: Set<string>): string {
  if (wanted.length === 0) return line
  const values = valuesOf(line)
  const found = wanted.find(
    ({ tenant_id, subject }) =>
      textOf(values.get('tenant_id')) === tenant_id && textOf(values.get('subject')) === subject,
  )
  if (found === undefined) return line
  erasedIds.add(textOf(values.get('id')) ?? '')
  if (values.get('erased_at') !== 'null') return line
  values.set('payload', 'null')
  values.set('metadata', '{}')
  values.set('erased_at', found.requested_text)
  return lineOf(values)
}

/** An attempt of an erased event without what its error said, as `bus.scrub_attempts` leaves it. */
function withoutError(line: string, erasedIds: ReadonlySet<string>): string {
  if (erasedIds.size === 0) return line
  const values = valuesOf(line)
  if (!erasedIds.has(textOf(values.get('event_id')) ?? '') || values.get('succeeded') !== 'false') return line
  values.set('error_message', '"erased"')
  values.set('error_stack', 'null')
  return lineOf(values)
}

function textOf(json: string | undefined): string | undefined {
  const value: unknown = json === undefined ? undefined : JSON.parse(json)
  return typeof value === 'string' ? value : undefined
}
