import type { Statement } from './statement.ts'

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
