import { resolveBossSchema } from '../database/boss-schema.ts'
import { createDatabase, type DatabaseOption } from '../database/database.ts'
import { limits } from '../foundation/limits.ts'
import { silentLogger } from '../foundation/logger.ts'
import { integerOption } from '../foundation/options.ts'
import type { Check, Facts } from './check/check.ts'
import { createRead, limitStatements } from './check/limited-database.ts'
import { encryptionCheck } from './connection/encryption.ts'
import { listenCheck } from './connection/listen.ts'
import { createPreparedStatementsCheck } from './connection/prepared-statements.ts'
import { roundTripCheck } from './connection/round-trip.ts'
import { deadLettersCheck } from './data/backlog.ts'
import { deadRowsCheck } from './data/dead-rows.ts'
import { healthChecks } from './data/health.ts'
import { erasuresCheck, operationsCheck, retentionCheck } from './data/long-work.ts'
import { declarationsCheck, registryCheck, relaysCheck } from './data/processes.ts'
import { queuesCheck } from './data/queues.ts'
import { sequencesCheck } from './data/sequences.ts'
import { readFacts } from './facts.ts'
import { loginCheck } from './roles/login.ts'
import { boundRolesCheck, hiddenRowsCheck } from './roles/row-security.ts'
import { runChecks, type Checked } from './run-checks.ts'
import { bossBloatCheck, bossBuildsCheck, bossDriftCheck } from './schema/boss.ts'
import { busDriftCheck } from './schema/drift.ts'
import { invalidIndexesCheck } from './schema/indexes.ts'
import { privilegesCheck } from './schema/privileges.ts'
import { rowSecurityCheck } from './schema/row-security.ts'
import { bossVersionCheck, busVersionCheck } from './schema/versions.ts'
import { buffersCheck, connectionsCheck, locksCheck } from './server/capacity.ts'
import { encodingCheck } from './server/encoding.ts'
import { neededSettingsCheck } from './server/needed-settings.ts'
import { settingsCheck } from './server/settings.ts'
import { versionCheck } from './server/version.ts'
import { wraparoundCheck } from './server/wraparound.ts'
import { synchronousStandbyCheck, writableCheck } from './server/writes.ts'

/** What is examined. */
export interface DoctorOptions {
  /** The database of the bus, as in `createBus`. */
  readonly database: DatabaseOption
  /** As in `createBus`. */
  readonly bossSchema?: string | undefined
  /** The same database as the services reach it in their own transactions, if that is another URL, such as that of a pooler. */
  readonly serviceDatabase?: DatabaseOption | undefined
  /** From which age on a transaction is a finding, in seconds, 1 to 86,400. @defaultValue `300` */
  readonly transactionLimitSeconds?: number | undefined
  /** @defaultValue the clock of this process */
  readonly now?: (() => Date) | undefined
}

/** What the doctor knows of a database, and what is not as it should be. */
export interface DoctorReport extends Checked {
  readonly facts: Facts
  /** Whether there is no finding of the severity `error` or `warning`. */
  readonly ok: boolean
}

/**
 * Examines a database: its server, the roles, both schemas, the connection and what waits in it. It changes nothing, and each of its statements
 * ends within some seconds. Afterwards its connections are closed.
 *
 * @throws a {@link DatabaseError} `BUS_DATABASE_UNAVAILABLE` if the database cannot be reached
 * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`
 */
export async function examine(options: DoctorOptions): Promise<DoctorReport> {
  const { serviceDatabase, now = () => new Date() } = options
  const transactionLimitSeconds = integerOption(
    'transactionLimitSeconds',
    options.transactionLimitSeconds,
    limits['health.transactionLimitSeconds'],
  )
  const database = createDatabase(options.database, silentLogger, resolveBossSchema(options.bossSchema))
  const service = serviceDatabase === undefined ? database : createDatabase(serviceDatabase, silentLogger)
  try {
    const limited = limitStatements(database)
    const facts = await readFacts(limited)
    const context = { database: limited, facts, read: createRead(database), now, transactionLimitSeconds }
    const checked = await runChecks(checksOf(service), context)
    const ok = checked.findings.every(({ severity }) => severity === 'info')
    return { ok, facts, ...checked }
  } finally {
    database.destroy()
    service.destroy()
  }
}

function checksOf(service: Parameters<typeof createPreparedStatementsCheck>[0]): readonly Check[] {
  return [
    versionCheck,
    writableCheck,
    neededSettingsCheck,
    settingsCheck,
    encodingCheck,
    synchronousStandbyCheck,
    wraparoundCheck,
    connectionsCheck,
    roundTripCheck,
    encryptionCheck,
    listenCheck,
    createPreparedStatementsCheck(service),
    loginCheck,
    boundRolesCheck,
    hiddenRowsCheck,
    busVersionCheck,
    bossVersionCheck,
    busDriftCheck,
    rowSecurityCheck,
    privilegesCheck,
    bossDriftCheck,
    bossBuildsCheck,
    invalidIndexesCheck,
    bossBloatCheck,
    locksCheck,
    buffersCheck,
    ...healthChecks,
    registryCheck,
    relaysCheck,
    queuesCheck,
    declarationsCheck,
    sequencesCheck,
    deadRowsCheck,
    deadLettersCheck,
    operationsCheck,
    erasuresCheck,
    retentionCheck,
  ]
}
