import type pg from 'pg'
import type { Database } from '../../database/database.ts'
import type { DoctorFinding } from './finding.ts'

/** What is known of server, login and schemas before anything is checked. */
export interface Facts {
  /** As `server_version_num`. */
  readonly serverVersion: number
  /** Such as `18.4`. */
  readonly serverVersionText: string
  readonly database: string
  readonly role: string
  readonly isSuperuser: boolean
  /** Whether the server is a standby. */
  readonly isStandby: boolean
  /** Whether transactions may write. */
  readonly isWritable: boolean
  /** Whether the connection leads through a pooler. */
  readonly isPooled: boolean
  /** Whether the schema `bus` is there, of any version. */
  readonly hasBus: boolean
  /** Migrations that the database has, whatever they are. Undefined if the login may not see that. */
  readonly appliedCount: number | undefined
  /** Migrations that this version of the bus has. */
  readonly shippedCount: number
  /** The version of pg-boss's schema. Undefined if it is missing, or may not be read. */
  readonly bossVersion: number | undefined
  /** How long a statement takes that does nothing, at best. */
  readonly roundTripMs: number
}

/** What a check may use. Each statement has some seconds, and waits for a lock even shorter. */
export interface CheckContext {
  readonly database: Database
  readonly facts: Facts
  /** Runs a statement without parameters. Only PostgreSQL's own functions are found without their schema. */
  readonly read: <R extends pg.QueryResultRow>(statement: string) => Promise<readonly R[]>
  readonly now: () => Date
  /** From this age on a transaction is a finding. */
  readonly transactionLimitSeconds: number
}

/**
 * What must be there for a check. `bus schema`: the schema `bus`, of any version. `bus`: of this version or a newer one. `same bus`: of exactly this
 * version. `both schemas`: that, and the pg-boss of this version.
 */
export type Need =
  'server' | 'supported server' | 'writes' | 'bus schema' | 'bus' | 'same bus' | 'both schemas'

/** One question. It answers what is not as it should be, and throws if it cannot be answered. */
export interface Check {
  readonly name: string
  readonly needs: Need
  readonly run: (context: CheckContext) => Promise<readonly DoctorFinding[]>
}
