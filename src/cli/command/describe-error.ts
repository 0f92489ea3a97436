import { neededRole } from '../../database/needed-role.ts'
import { isError } from '../../foundation/cross-realm.ts'
import { BusError, type BusErrorCode } from '../../foundation/errors.ts'
import { asCalled, program } from '../output/program.ts'
import { UsageError } from './usage-error.ts'

/** An error for a person: what has happened, and what mends it. */
export interface DescribedError {
  readonly code: string | undefined
  readonly message: string
  readonly mend: string | undefined
}

/** By the server's or the driver's code. */
const mendsByState: Readonly<Record<string, string>> = {
  '28P01': 'Check the password in the URL of the database.',
  '28000': 'Check the role in the URL, and pg_hba.conf of the server.',
  '3D000': 'Check the name of the database at the end of the URL, or create it: createdb <name>.',
  '25006': 'Give the URL of the primary: this server is a standby, or its transactions are read-only.',
  // A transaction that writes is refused before its first statement.
  '0A000': 'Give the URL of the primary, if this server is a standby.',
  '53300': 'The server has no connection left: end some, or raise max_connections.',
  ECONNREFUSED: 'Check that the server runs, and the host and the port of the URL.',
  ENOTFOUND: 'Check the host of the URL.',
  EAI_AGAIN: 'Check the host of the URL, and the name server of this machine.',
  ETIMEDOUT: 'Check the host and the port of the URL, and the firewall between.',
}

/** By the code of the bus. Where the message says it already, there is none. */
const mends: Partial<Record<BusErrorCode, string>> = {
  BUS_DATABASE_UNAVAILABLE:
    'Check that the server runs, and its URL: DATABASE_URL, --database, or the configuration.',
  BUS_DATABASE_UNSUPPORTED: 'Update the server, or give the URL of a newer one.',
  BUS_SCHEMA_MISSING: 'Run: npx bossbus migrate',
  BUS_SCHEMA_OUTDATED: 'Run: npx bossbus migrate',
  BUS_SCHEMA_TOO_NEW: 'Update bossbus here: npm install bossbus@latest',
  BUS_SCHEMA_UNKNOWN: 'Compare the versions of bossbus that use this database: docs/errors.md says more.',
  BUS_BOSS_SCHEMA_MISMATCH: 'Set `bossSchema` in the configuration to the schema that the message names.',
  BUS_BOSS_SCHEMA_OUTDATED: 'Run: npx bossbus migrate',
  BUS_BOSS_SCHEMA_TOO_NEW: 'Update bossbus here: npm install bossbus@latest',
  BUS_ROLE_MISSING: 'Run: npx bossbus migrate',
  BUS_SUBSCRIPTION_NOT_FOUND: 'See: npx bossbus subscriptions list',
}

/** What happened when the database gave no answer within `--timeout`. */
export class TimeoutError extends Error {
  /** Whether it was asked for a change, which it may have made all the same. */
  readonly mayHaveChanged: boolean

  constructor(message: string, mayHaveChanged: boolean) {
    super(message)
    this.mayHaveChanged = mayHaveChanged
  }
}

export function describeError(error: unknown): DescribedError {
  const message = isError(error) ? error.message : String(error)
  if (error instanceof BusError) {
    const { sqlState } = error as { readonly sqlState?: string | undefined }
    const role = error.code === 'BUS_PERMISSION_DENIED' ? neededRole(message) : undefined
    const mend =
      role === undefined
        ? (mendsByState[sqlState ?? ''] ?? mends[error.code])
        : `Grant the role of the connection ${role}: see Least privilege in SECURITY.md.`
    return {
      code: error.code,
      message: asCalled(message),
      mend: mend === undefined ? undefined : asCalled(mend),
    }
  }
  if (error instanceof UsageError) return { code: undefined, message, mend: undefined }
  if (error instanceof TimeoutError)
    return {
      code: undefined,
      message,
      mend: `${error.mayHaveChanged ? `It may have done it all the same: see ${program()} audit. ` : ''}Try again, allow more with --timeout 2m, or see what holds the database up: ${program()} doctor`,
    }
  return {
    code: undefined,
    message,
    mend: 'BOSSBUS_DEBUG=1 shows where it happened.',
  }
}
