import { escapeUnprintable } from '../foundation/text.ts'
import type { DoctorReport } from './doctor.ts'

/** A report as text for a person: the database, each finding with its mend, and how much was examined. */
export function describeReport({ facts, findings, made, skipped }: DoctorReport): readonly string[] {
  const { serverVersionText, database, role, appliedCount, shippedCount, bossVersion } = facts
  const migrations = appliedCount === undefined ? '' : `, migration ${appliedCount} of ${shippedCount}`
  const boss = bossVersion === undefined ? '' : `, pg-boss schema ${bossVersion}`
  const way = `${facts.roundTripMs} ms away${facts.isPooled ? ' behind a pooler' : ''}`
  const reasons = [...new Set(skipped.map(({ reason }) => reason))]
  return [
    `PostgreSQL ${serverVersionText}, database ${database} as ${role}, ${way}${migrations}${boss}`,
    '',
    ...findings.flatMap(({ severity, code, message, remedy }) => [
      `${severity.padEnd(7)}  ${code}`,
      `  ${message}.`,
      `  > ${remedy}`,
      '',
    ]),
    `${made.length} checks: ${countsOf(findings)}`,
    ...(skipped.length > 0 ? [`${skipped.length} more make no sense here: ${reasons.join('; ')}`] : []),
  ].map(escapeUnprintable)
}

function countsOf(findings: DoctorReport['findings']): string {
  if (findings.length === 0) return 'all is well'
  const count = (severity: string): number => findings.filter((each) => each.severity === severity).length
  const counts = [
    [count('error'), 'error'],
    [count('warning'), 'warning'],
    [count('info'), 'note'],
  ] as const
  return counts
    .filter(([number]) => number > 0)
    .map(([number, word]) => `${number} ${word}${number === 1 ? '' : 's'}`)
    .join(', ')
}
