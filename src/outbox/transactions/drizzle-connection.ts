import type { sql } from 'drizzle-orm/sql'
import type { CallerConnection, StatementLogger } from './caller-connection.ts'
import { throughNodePostgres, type NodePostgresClient } from './node-postgres-connection.ts'
import { throughPostgresJs, type PostgresJsClient } from './postgres-js-connection.ts'
import { replyIn } from './statement.ts'

/**
 * A Drizzle transaction of any PostgreSQL driver: what `db.transaction` hands to its callback. It says what it takes of it and
 * nothing of Drizzle's own types, which another version, or another copy, has too. A plain handle has no `rollback`, so it is none.
 */
export interface DrizzleTransaction {
  // Methods, because their parameters are compared in both directions: each copy of Drizzle takes its own `SQL` only.
  execute(query: unknown): PromiseLike<unknown>
  rollback(): never
}

/**
 * The connection of a Drizzle handle. Drizzle's own `execute` has postgres.js ask the server what it makes of the statement before it
 * runs it, each time, and lets no driver keep a plan. So where the handle is what Drizzle makes of postgres.js or node-postgres,
 * statements go to the driver's own client, and Drizzle's logger is told of them; anything else gets them through `execute`.
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

/** By which Drizzle's classes tell each other apart, whichever copy of Drizzle they come from. */
const entityKind = Symbol.for('drizzle:entityKind')

/** What of a Drizzle session is used. None of it is promised, so all of it is looked for first. */
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
 * Drizzle's `sql`, loaded with the first call: whoever hands in a Drizzle transaction has loaded it, and a process that
 * only delivers does without its 30 MB. Kept, because importing again costs a tenth of a millisecond each time.
 */
async function loadSql(): Promise<typeof sql> {
  drizzle ??= import('drizzle-orm/sql')
  return (await drizzle).sql
}
