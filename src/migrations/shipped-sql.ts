import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'

/** A migration of the schema `bus`. */
export interface Migration {
  /** When it was made: those that a database has are the older ones. */
  readonly createdAt: number
  /** Its statements, with `--> statement-breakpoint` between them. */
  readonly text: string
}

/** The SQL that comes with the package. */
export interface ShippedSql {
  /** In the order in which they are applied. */
  readonly migrations: readonly Migration[]
  /** What each role of the bus may do: drizzle/roles.sql. */
  readonly roles: string
}

/**
 * Reads the SQL of the folder `drizzle/`. In the built package the SQL is in this module itself, put there by
 * scripts/embed-sql.ts, so that a bundle has it and needs no file.
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
    migrations: entries.map(({ when }, index) => ({ createdAt: when, text: texts[index] ?? '' })),
    roles,
  }
}

/** What a database keeps of a migration that it has: the same that Drizzle's migrator keeps. */
export function hashOf({ text }: Migration): string {
  return createHash('sha256').update(text).digest('hex')
}
