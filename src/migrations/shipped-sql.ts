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
