import type { PostgresJsDatabase } from 'drizzle-orm/postgres-js'

/** What a program finds where it runs: a migrated database, and the service's own Drizzle on it. */
export interface Environment {
  readonly url: string
  readonly db: PostgresJsDatabase
}
