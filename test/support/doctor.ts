import { expect } from 'vitest'
import type { DoctorFinding } from '../../src/doctor/check/finding.ts'
import { examine, type DoctorOptions, type DoctorReport } from '../../src/doctor/doctor.ts'
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
