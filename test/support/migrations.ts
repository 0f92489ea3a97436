import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { readMigrationFiles } from 'drizzle-orm/migrator'
import { drizzle } from 'drizzle-orm/node-postgres'
import { migrate } from 'drizzle-orm/node-postgres/migrator'
import pg from 'pg'
import { onTestFinished } from 'vitest'

const migrationsFolder = fileURLToPath(new URL('../../drizzle', import.meta.url))

/** How many migrations this version of the bus ships. */
export function shippedMigrationCount(): number {
  return readMigrationFiles({ migrationsFolder }).length
}

/** Brings an empty database to where the first so many migrations lead. */
export async function migrateTo(url: string, migrationCount: number): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'bossbus-older-'))
  onTestFinished(async () => rm(folder, { recursive: true, force: true }))
  await cp(migrationsFolder, folder, { recursive: true })
  const journalFile = join(folder, 'meta/_journal.json')
  const journal = JSON.parse(await readFile(journalFile, 'utf8')) as { entries: unknown[] }
  await writeFile(
    journalFile,
    JSON.stringify({ ...journal, entries: journal.entries.slice(0, migrationCount) }),
  )
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  await migrate(drizzle(client), {
    migrationsFolder: folder,
    migrationsSchema: 'bus',
    migrationsTable: 'migrations',
  })
  await client.end()
}
