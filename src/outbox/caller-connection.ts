import type { sql } from 'drizzle-orm/sql'
import type { DrizzleTransaction } from './caller-transaction.ts'
import { throughNodePostgres, type NodePostgresClient } from './node-postgres-connection.ts'
import { throughPostgresJs, type PostgresJsClient } from './postgres-js-connection.ts'
import { replyIn, type Statement } from './statement.ts'

/** Sends statements over the connection of a caller's transaction. Each answers with one row of one text. */
export interface CallerConnection {
  send: (statement: Statement) => Promise<string>
  /** The same, with the transaction given an id before: in one round trip, where the driver sends without waiting. */
  sendWithTransactionId?: (statement: Statement) => Promise<string>
  /**
   * Whether the connection was seen to send prepared statements through a pooler that hands it one server process after the
   * other. postgres.js prepares its COMMIT too. Where the server process does not know that statement, it aborts the transaction;
   * postgres.js prepares COMMIT again, gets a ROLLBACK for an answer and takes it for success.
   */
  mayLoseCommits?: () => boolean
}

/** Is told of each statement before it is sent. */
export interface StatementLogger {
  readonly logQuery?: (text: string, values: unknown[]) => void
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
