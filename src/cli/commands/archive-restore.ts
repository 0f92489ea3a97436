import { resolve } from 'node:path'
import { Readable } from 'node:stream'
import type { ArchiveStore } from '../../retention/archive/archive-store.ts'
import type { ArchivedFile } from '../../retention/archive/manifest.ts'
import { required } from '../command/arguments.ts'
import { defineCommand } from '../command/command.ts'
import { choice, text } from '../command/flags.ts'
import { changeFlags } from '../command/shared-flags.ts'
import { UsageError } from '../command/usage-error.ts'
import { counted } from '../output/cells.ts'
import type { Progress } from '../output/progress.ts'

export const archiveRestore = defineCommand({
  examples: [
    ['archive restore 2026_09 --into archive.events_2026_09', 'from the archive of the configuration'],
    ['archive restore 2026_09 --folder /mnt/archive --into archive.events_2026_09', 'from a folder'],
  ],
  notes: [
    `Creates the table, whose schema must exist, and fills it in one transaction with the rows exactly as they were. Nothing is delivered: the
table is not the log. The audit records who restored what into which table. Drop it when you are done.`,
  ],
  args: { archive: required('The name of the archive, or of its manifest') },
  flags: {
    into: text('<table>', 'The table to be created'),
    table: choice(['events', 'receipts', 'receipt_batches', 'attempts'], 'Which of its tables', 'events'),
    folder: text('<path>', 'Where the archive is: `retention.archive` of the configuration'),
    ...changeFlags,
  },
  isLong: true,
  async run({ args, flags, config, bus, database, output, inTime, actor, cwd }) {
    const { into, table, folder } = flags
    if (into === undefined)
      throw new UsageError('Say where to with --into <table>, such as archive.events_2026_09')
    const [given, { archiveToFolder }, { readManifest, restoreArchive }, { finishAuditRecord, writeAudit }] =
      await Promise.all([
        config(),
        import('../../retention/archive/archive-store.ts'),
        import('../../retention/archive/restore-archive.ts'),
        import('../../audit/audit.ts'),
      ])
    const archive =
      folder === undefined ? given.busOptions().retention?.archive : archiveToFolder(resolve(cwd, folder))
    if (archive === undefined)
      throw new UsageError(
        'Say where the archive is: --folder <path>, or `retention.archive` in the configuration',
      )
    const manifest = args.archive.includes('/') ? args.archive : `${args.archive}/manifest.json`
    const { tables, from, to } = await inTime(readManifest(archive, manifest, table))
    const { rowCount, files } = tables[table]
    if (flags['dry-run']) {
      output.object(
        { dryRun: true, manifest, table, into, from, to, rowCount, fileCount: files.length },
        () =>
          output.line(
            `${counted(rowCount, 'row')} of ${counted(files.length, 'file')} would be put into ${into}.`,
          ),
      )
      return 0
    }
    // Checks the schema, of which the table is a copy.
    await inTime(bus())
    const open = await database()
    const record = { action: 'restoreArchive', selection: { manifest, table }, change: { into } }
    const auditId = await inTime(writeAudit(open, { ...actor(), ...record }))
    const progress = output.progress('Restoring, in bytes')
    let restored = 0
    try {
      const client = await inTime(open.openSession())
      output.note(`Restoring ${counted(rowCount, 'row')} from ${counted(files.length, 'file')} …`)
      const read = telling(archive, progress, bytesOf(files))
      restored = await restoreArchive({ client, archive: read, manifest, table, into })
      await client.end()
    } catch (error) {
      // It is one transaction: no row is there, and the session ends with this process.
      await inTime(finishAuditRecord(open, auditId, { rowCount: 0 })).catch(() => {})
      throw error
    } finally {
      progress.end()
    }
    await inTime(finishAuditRecord(open, auditId, { rowCount: restored }))
    output.object({ manifest, table, into, rowCount: restored }, () =>
      output.line(`Restored ${counted(restored, 'row')} into ${into}.`),
    )
    return 0
  },
})

function bytesOf(files: readonly ArchivedFile[]): number {
  return files.reduce((sum, { byteCount }) => sum + byteCount, 0)
}

/** The same files, of which is told how much was read. */
function telling(store: ArchiveStore, progress: Progress, total: number): Pick<ArchiveStore, 'read'> {
  let done = 0
  return {
    async read(name) {
      const content = await store.read(name)
      return Readable.from(
        (async function* () {
          for await (const chunk of content) {
            const bytes = chunk as Buffer
            done += bytes.length
            progress.at(done, total)
            yield bytes
          }
        })(),
        { objectMode: false },
      )
    },
  }
}
