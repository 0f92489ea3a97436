import type { DoctorReport } from '../../doctor/doctor.ts'
import { defineCommand } from '../command/command.ts'
import { counted } from '../output/cells.ts'
import type { Output } from '../output/output.ts'
import { bold, green, quiet, state } from '../output/styled.ts'
import { findingAsCalled, findingCommands } from '../views/finding-commands.ts'

export const doctor = defineCommand({
  examples: [
    ['doctor', 'is this database fit for the bus?'],
    ['doctor --no-color', 'after bossbus migrate in a deployment: exit code 1 on errors and warnings'],
    ['doctor --json | jq .findings', 'with the figures, and the SQL that mends'],
  ],
  notes: [
    `Examines server, roles, both schemas, the connection and what waits. It changes nothing. Each finding says what it means for deliveries and
what mends it: docs/guide/doctor.md. Run it as the owner of the schemas, who may see everything.`,
    `Where DATABASE_URL is not the database of the bus, it is taken for that of the service, and examined for what a pooler there means to its
driver.`,
  ],
  isLong: true,
  async run({ config, env, output }) {
    const { database, bossSchema } = await config()
    const [ofBus, ofService] = [database(), env['DATABASE_URL']]
    const { examine } = await import('../../doctor/doctor.ts')
    const examined = await output.during(
      'Examining the database',
      examine({
        ...{ database: ofBus, bossSchema },
        serviceDatabase:
          ofService === undefined || ofService === '' || ofService === ofBus ? undefined : ofService,
      }),
    )
    const report = {
      ...examined,
      findings: examined.findings.map(findingAsCalled),
    }
    output.object(report, () => writeReport(output, report))
    return report.ok ? 0 : 1
  },
})

function writeReport(output: Output, { facts, findings, made, skipped }: DoctorReport): void {
  const { serverVersionText, database, role, appliedCount, shippedCount, bossVersion } = facts
  const migrations = appliedCount === undefined ? '' : `, migration ${appliedCount} of ${shippedCount}`
  const boss = bossVersion === undefined ? '' : `, pg-boss schema ${bossVersion}`
  const way = `${facts.roundTripMs} ms away${facts.isPooled ? ' behind a pooler' : ''}`
  output.line(`PostgreSQL ${serverVersionText}, database ${database} as ${role}, ${way}${migrations}${boss}`)
  for (const finding of findings) {
    output.line()
    output.line(state(finding.severity), '  ', bold(finding.code), '  ', finding.message)
    output.line('  ', quiet(finding.remedy))
    for (const command of findingCommands(finding, output.command)) output.line('  ', command)
  }
  output.line()
  const count = (severity: string): number => findings.filter((each) => each.severity === severity).length
  const [errors, warnings, notes] = [count('error'), count('warning'), count('info')]
  output.line(
    `${counted(made.length, 'check')}: `,
    findings.length === 0
      ? green('all is well')
      : [
          ...(errors > 0 ? [counted(errors, 'error')] : []),
          ...(warnings > 0 ? [counted(warnings, 'warning')] : []),
          ...(notes > 0 ? [counted(notes, 'note')] : []),
        ].join(', '),
  )
  if (skipped.length > 0)
    output.line(
      `${skipped.length} more ${skipped.length === 1 ? 'makes' : 'make'} no sense here: ${[...new Set(skipped.map(({ reason }) => reason))].join('; ')}`,
    )
}
