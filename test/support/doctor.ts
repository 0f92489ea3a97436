import { expect } from 'vitest'
import { createDatabase } from '../../src/database/database.ts'
import type { Check, CheckContext } from '../../src/doctor/check/check.ts'
import type { DoctorFinding } from '../../src/doctor/check/finding.ts'
import { createRead, limitStatements } from '../../src/doctor/check/limited-database.ts'
import { examine, type DoctorOptions, type DoctorReport } from '../../src/doctor/doctor.ts'
import { readFacts } from '../../src/doctor/facts.ts'
import { runChecks } from '../../src/doctor/run-checks.ts'
import type { BusLogger } from '../../src/foundation/logger.ts'

export const silentLogger: BusLogger = { debug() {}, info() {}, warn() {}, error() {} }

/** What the server of the tests and its superuser give, whatever is planted. */
const ofTests = ['fsync-off', 'full-page-writes-off', 'login-unrestricted', 'server-end-of-life']

export function codesIn({ findings }: Pick<DoctorReport, 'findings'>): readonly string[] {
  return findings.map(({ code }) => code).filter((code) => !ofTests.includes(code))
}

/** The findings, but for those of every test. */
export async function codesOf(
  url: string,
  options: Omit<DoctorOptions, 'database'> = {},
): Promise<readonly string[]> {
  return codesIn(await examine({ database: url, ...options }))
}

/** Examines a database, and answers the finding of this code. */
export async function findingOf(
  url: string,
  code: DoctorFinding['code'],
  options: Omit<DoctorOptions, 'database'> = {},
): Promise<DoctorFinding> {
  const { findings } = await examine({ database: url, ...options })
  const finding = findings.find((each) => each.code === code)
  if (finding === undefined)
    throw new Error(
      `Expected ${code}, found ${JSON.stringify(findings.map((each) => [each.code, each.message]))}`,
    )
  expect(finding.message).toMatch(/^\S.*[^.]$/s)
  expect(finding.remedy).toMatch(/\S.{5,}/)
  return finding
}

/** What these checks alone find. */
export async function findingsOfChecks(
  url: string,
  checks: readonly Check[],
): Promise<readonly DoctorFinding[]> {
  const database = createDatabase(url, silentLogger)
  try {
    const limited = limitStatements(database)
    const context: CheckContext = {
      ...{ database: limited, facts: await readFacts(limited), read: createRead(database) },
      ...{ now: () => new Date(), transactionLimitSeconds: 300 },
    }
    return (await runChecks(checks, context)).findings
  } finally {
    database.destroy()
  }
}

/** Plants a fault, and answers the finding that was not there before. */
export async function plant(
  url: string,
  code: DoctorFinding['code'],
  fault: () => Promise<unknown>,
  options: Omit<DoctorOptions, 'database'> = {},
): Promise<DoctorFinding> {
  expect(await codesOf(url, options)).not.toContain(code)
  await fault()
  return findingOf(url, code, options)
}
