import type { sql } from 'drizzle-orm/sql'
import type { CallerConnection, StatementLogger } from './caller-connection.ts'
import { throughNodePostgres, type NodePostgresClient } from './node-postgres-connection.ts'
import { throughPostgresJs, type PostgresJsClient } from './postgres-js-connection.ts'
import { replyIn } from './statement.ts'

/**
 * A Drizzle transaction of any PostgreSQL driver, as `db.transaction` passes it to its callback. The type lists what
 * the bus uses and avoids Drizzle's own types, so that other versions and copies fit too. A plain handle has no
 * `rollback`, so it does not fit.
 */
export interface DrizzleTransaction {
  // Methods, because their parameters are bivariant: each copy of Drizzle accepts only its own `SQL`.
  execute(query: unknown): PromiseLike<unknown>
  rollback(): never
}

/**
 * The connection of a Drizzle handle. With Drizzle's own `execute`, postgres.js asks the server to describe the
 * statement before each run, and no driver keeps a plan. So if Drizzle created the handle for postgres.js or
 * node-postgres, statements are sent through the driver's own client, and reported to Drizzle's logger; other handles
 * use `execute`.
 */
export function connectionOf(tx: DrizzleTransaction): CallerConnection {
  const { session } = tx as { readonly session?: DrizzleSession | null }
  if (session === undefined || session === null) return throughDrizzle(tx)
  const kind = (session.constructor as { readonly [entityKind]?: string } | undefined)?.[entityKind]
  if (kind === 'PostgresJsSession' && typeof session.client?.unsafe === 'function')
    return throughPostgresJs(session.client as PostgresJsClient, session.logger)
  if (kind === 'NodePgSession' && typeof session.client?.query === 'function')
    return throughNodePostgres(session.client as NodePostgresClient, session.logger)
  return throughDrizzle(tx)
}

/** The property that distinguishes Drizzle's classes, in every copy of Drizzle. */
const entityKind = Symbol.for('drizzle:entityKind')

/** The parts of a Drizzle session that are used. Drizzle does not guarantee them, so each of them is checked first. */
interface DrizzleSession {
  readonly client?: { readonly unsafe?: unknown; readonly query?: unknown } | null
  readonly logger?: StatementLogger
}

function throughDrizzle(tx: DrizzleTransaction): CallerConnection {
  return {
    async send({ strings, values }) {
      const tag = await loadSql()
      const result = await tx.execute(tag(strings, ...values))
      return replyIn(Array.isArray(result) ? result : (result as { rows: unknown[] }).rows)
    },
  }
}

let drizzle: Promise<{ readonly sql: typeof sql }> | undefined

/**
 * Drizzle's `sql`, loaded on first use: a caller with a Drizzle transaction has already loaded it, and a process that
 * only delivers saves 30 MB. Cached, because importing again takes a tenth of a millisecond.
 */
async function loadSql(): Promise<typeof sql> {
  drizzle ??= import('drizzle-orm/sql')
  return (await drizzle).sql
}
