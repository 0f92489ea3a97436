import { assertUsableBoss } from '../../delivery/jobs/boss-version.ts'
import { BusError, type BusErrorCode } from '../../foundation/errors.ts'
import { checkMigrations } from '../../migrations/migrate.ts'
import { found, type DoctorCode, type DoctorFinding } from '../check/finding.ts'
import type { Check } from '../check/check.ts'

/** The findings that the errors of a start stand for, each with its mend. */
const ofBus: Partial<Readonly<Record<BusErrorCode, readonly [DoctorCode, string]>>> = {
  BUS_SCHEMA_MISSING: ['schema-missing', 'npx bossbus migrate'],
  BUS_SCHEMA_OUTDATED: ['schema-outdated', 'npx bossbus migrate'],
  BUS_SCHEMA_TOO_NEW: [
    'schema-too-new',
    'Deploy the version of bossbus that has migrated the database, or a newer one: npm install bossbus@latest',
  ],
  BUS_SCHEMA_UNKNOWN: [
    'schema-unknown',
    'Use an empty database, or the version of bossbus that has migrated this one.',
  ],
  BUS_BOSS_SCHEMA_MISMATCH: [
    'boss-schema-mismatch',
    'Set `bossSchema` as the message says, in bossbus.config.ts and in each createBus.',
  ],
}

const ofBoss: typeof ofBus = {
  BUS_SCHEMA_MISSING: ['boss-schema-missing', 'npx bossbus migrate'],
  BUS_BOSS_SCHEMA_OUTDATED: ['boss-schema-outdated', 'npx bossbus migrate'],
  BUS_BOSS_SCHEMA_TOO_OLD: [
    'boss-schema-unsupported',
    `Give the bus a pg-boss of its own: bossSchema: 'bus_jobs', then npx bossbus migrate`,
  ],
  BUS_BOSS_SCHEMA_TOO_NEW: ['boss-schema-unsupported', 'npm install bossbus@latest'],
  BUS_BOSS_SCHEMA_UNSUPPORTED: [
    'boss-schema-unsupported',
    'Undo the changes to the tables of pg-boss, or install the version of pg-boss that bossbus depends on.',
  ],
}

/** Runs what a start verifies, and makes a finding of what it would throw. */
async function findRefusal(
  verify: () => Promise<unknown>,
  known: typeof ofBus,
): Promise<readonly DoctorFinding[]> {
  try {
    await verify()
    return []
  } catch (error) {
    const [code, remedy] = (error instanceof BusError ? known[error.code] : undefined) ?? []
    if (!(error instanceof BusError) || code === undefined || remedy === undefined) throw error
    return [found(code, `No service starts: ${lowerFirst(error.message)}`, remedy, { error: error.code })]
  }
}

function lowerFirst(text: string): string {
  return text.startsWith('The ') ? `t${text.slice(1)}` : text
}

/** Whether the schema `bus` is the one that this version of bossbus works with. */
export const busVersionCheck: Check = {
  name: 'migrations of the schema `bus`',
  needs: 'supported server',
  run: async ({ database }) => findRefusal(async () => checkMigrations(database), ofBus),
}

/** Whether pg-boss is the one that this version of bossbus works with. Without the schema `bus` it need not be there. */
export const bossVersionCheck: Check = {
  name: 'version of pg-boss',
  needs: 'bus',
  run: async ({ database }) => findRefusal(async () => assertUsableBoss(database), ofBoss),
}
