import { toConnectError } from '../database/database-errors.ts'
import { bossVersion as ownBossVersion } from '../delivery/jobs/boss-version.ts'
import { reasonOf } from '../foundation/error-reason.ts'
import { BusError } from '../foundation/errors.ts'
import { withAnswerLimit, withTimeout } from '../foundation/with-timeout.ts'
import { found, quoteName, type DoctorFinding } from './check/finding.ts'
import type { Check, CheckContext, Facts, Need } from './check/check.ts'

/** What came of the checks. */
export interface Checked {
  /** The gravest first. */
  readonly findings: readonly DoctorFinding[]
  /** The checks that were made, whatever they found. */
  readonly made: readonly string[]
  /** Those that make no sense here, such as one of tables that are missing. */
  readonly skipped: readonly { readonly check: string; readonly reason: string }[]
}

/** How long one check may take. A statement of it has less. */
const checkMs = 15_000

/** Checks that have not begun after this are not made. */
const totalMs = 60_000

const oldestVersion = 140_000

/**
 * Runs the checks one after the other, so that they are no load. One that fails is a finding, and stops no other.
 *
 * @throws a {@link DatabaseError} `BUS_DATABASE_UNAVAILABLE` if the database stops answering
 */
export async function runChecks(checks: readonly Check[], context: CheckContext): Promise<Checked> {
  const findings: DoctorFinding[] = []
  const made: string[] = []
  const skipped: { check: string; reason: string }[] = []
  const late: string[] = []
  const refused: { check: string; reason: string }[] = []
  const deadline = performance.now() + totalMs
  for (const { name, needs, run } of checks) {
    const reason = reasonToSkip(needs, context.facts)
    if (reason !== undefined) {
      skipped.push({ check: name, reason })
      continue
    }
    if (performance.now() > deadline) {
      late.push(name)
      continue
    }
    try {
      findings.push(...(await withTimeout(run(context), checkMs, timedOut)))
      made.push(name)
    } catch (error) {
      if (error instanceof BusError && error.code === 'BUS_PERMISSION_DENIED')
        refused.push({ check: name, reason: reasonOf(error) })
      else {
        await assertAnswers(context)
        findings.push(notChecked(name, reasonOf(error)))
      }
    }
  }
  findings.push(...findRefused(refused, context.facts), ...findLate(late))
  return { findings: sorted(findings), made, skipped }
}

/** @throws a {@link DatabaseError} `BUS_DATABASE_UNAVAILABLE`: then no other check can be made either */
async function assertAnswers({ database }: CheckContext): Promise<void> {
  await withAnswerLimit(database.query('select 1')).catch((error: unknown) => {
    throw toConnectError(error)
  })
}

function timedOut(): never {
  throw new Error(`no answer within ${checkMs / 1000} s`)
}

const lookAtLoad = 'Look at the load and the locks of the database (pg_stat_activity), then run it again.'

function notChecked(check: string, reason: string): DoctorFinding {
  return found('not-checked', `Not checked: ${check}. ${reason}`, lookAtLoad, { check, reason })
}

function findLate(checks: readonly string[]): readonly DoctorFinding[] {
  if (checks.length === 0) return []
  const message = `Not checked, because the checks before took more than ${totalMs / 1000} s: ${checks.join(', ')}`
  return [found('not-checked', message, lookAtLoad, { checks })]
}

/** What a login may see depends on its roles, and that may be intended. */
function findRefused(
  refused: readonly { readonly check: string; readonly reason: string }[],
  { role }: Facts,
): readonly DoctorFinding[] {
  if (refused.length === 0) return []
  return [
    found(
      'not-permitted',
      `The login \`${role}\` may not see what these checks need, so what they would find is not known: ${refused.map(({ check }) => check).join(', ')}`,
      `Run it as the owner of the schemas, or: grant bus_operator to ${quoteName(role)};`,
      { checks: refused },
    ),
  ]
}

/** Undefined if the check can be made. */
function reasonToSkip(need: Need, facts: Facts): string | undefined {
  const { serverVersion, isWritable, hasBus, appliedCount, shippedCount, bossVersion } = facts
  if (need === 'server') return undefined
  if (serverVersion < oldestVersion) return 'the server is too old'
  if (need === 'supported server') return undefined
  if (need === 'writes') return isWritable ? undefined : 'the server takes no writes'
  if (!hasBus) return 'the schema `bus` is missing'
  if (need === 'bus schema') return undefined
  if (appliedCount === undefined) return 'the login may not read bus.migrations'
  if (appliedCount < shippedCount) return 'the schema `bus` is older than this version of bossbus'
  if (need === 'bus') return undefined
  if (appliedCount > shippedCount && need === 'same bus')
    return 'the schema `bus` is newer than this version of bossbus'
  if (need === 'same bus') return undefined
  if (bossVersion === undefined) return 'the schema of pg-boss is missing, or the login may not read it'
  return bossVersion === ownBossVersion ? undefined : 'the schema of pg-boss is of another version'
}

const severities = ['error', 'warning', 'info'] as const

function sorted(findings: readonly DoctorFinding[]): readonly DoctorFinding[] {
  return severities.flatMap((severity) => findings.filter((finding) => finding.severity === severity))
}
