import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'

/** A migration of the schema `bus`. */
export interface Migration {
  /** Such as `0005_ledger`. */
  readonly name: string
  /** When it was created. A database has applied all migrations up to some time. */
  readonly createdAt: number
  /** Its statements, separated by `--> statement-breakpoint`. */
  readonly text: string
}

/** The SQL files of the package. */
export interface ShippedSql {
  /** In the order in which they are applied. */
  readonly migrations: readonly Migration[]
  /** The privileges of each role of the bus: drizzle/roles.sql. */
  readonly roles: string
}

/**
 * Reads the SQL from the folder `drizzle/`. In the built package this module contains the SQL itself, inserted by
 * scripts/embed-sql.ts, so that a bundle includes it and needs no file.
 */
export async function loadShippedSql(): Promise<ShippedSql> {
  const folder = new URL('../../drizzle/', import.meta.url)
  const read = async (name: string): Promise<string> => readFile(new URL(name, folder), 'utf8')
  const { entries } = JSON.parse(await read('meta/_journal.json')) as {
    readonly entries: readonly { readonly when: number; readonly tag: string }[]
  }
  const [roles, ...texts] = await Promise.all([
    read('roles.sql'),
    ...entries.map(async ({ tag }) => read(`${tag}.sql`)),
  ])
  return {
    migrations: entries.map(({ tag, when }, index) => ({
      ...{ name: tag, createdAt: when, text: texts[index] ?? '' },
    })),
    roles,
  }
}

/** The hash that a database stores for an applied migration: the same one that Drizzle's migrator stores. */
export function hashOf({ text }: Migration): string {
  return createHash('sha256').update(text).digest('hex')
}

/**
 * Four files were changed after databases had been migrated with them. `0018_same_functions` gives those databases the same
 * functions as all others have, so they are upgraded like them.
 */
const formerHashes: Readonly<Record<string, string>> = {
  '0007_find_and_explain': 'e3d86545d1f0e19a2694085e2aed4406741bb2b392e2b7e73c66386590f12e7a',
  '0008_dashboard_views': 'c508abfe0fa99c4fe9b8c4df91d0d6909ca30297dc9935844cba98119bd5a1f2',
  '0009_dead_letters': '503317d6b93647aa6a30ab7dbae8942cd69509fd39dc8c00207da1839b26788c',
  '0012_retention': 'c4cfb5339aa05ab4d279530ee18199b519004538e7f3fe111c62e29e8329b048',
}

/** Whether a database that stores this hash has this migration. */
export function isSameMigration(migration: Migration, hash: string | undefined): boolean {
  return hash === hashOf(migration) || (hash !== undefined && hash === formerHashes[migration.name])
}
