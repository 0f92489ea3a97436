import type { Statement } from './statement.ts'

/** Sends statements on the connection of a caller's transaction. Each statement returns one row with one text. */
export interface CallerConnection {
  send: (statement: Statement) => Promise<string>
  /** Sends a statement after one that assigns a transaction id: in one round trip, if the driver can pipeline. */
  sendWithTransactionId?: (statement: Statement) => Promise<string>
  /**
   * Whether the connection was seen to send prepared statements through a pooler that changes its server process.
   * postgres.js prepares its COMMIT too. A server process that does not know that statement aborts the transaction;
   * postgres.js prepares COMMIT again, receives ROLLBACK as the answer, and reports success.
   */
  mayLoseCommits?: () => boolean
}

/** Called with each statement before it is sent. */
export interface StatementLogger {
  readonly logQuery?: (text: string, values: unknown[]) => void
}
