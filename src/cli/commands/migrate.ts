import { declaredOf } from '../../bus-settings.ts'
import type { MigrationPlan } from '../../migration-plan.ts'
import { defineCommand } from '../command/command.ts'
import { toggle } from '../command/flags.ts'
import { changeFlags } from '../command/shared-flags.ts'
import { UsageError } from '../command/usage-error.ts'
import { counted } from '../output/cells.ts'
import type { Output } from '../output/output.ts'
import { yellow } from '../output/styled.ts'

export const migrate = defineCommand({
  examples: [
    ['migrate', 'at deployment, from any number of processes'],
    ['migrate --dry-run', 'what it would do'],
    ['migrate --sql > migrate.sql', 'the statements, for an administrator'],
  ],
  notes: [
    `Creates or updates the schemas \`bus\` and \`pgboss\` (or \`bossSchema\` of the configuration), the roles of the bus, and the queues of the
subscriptions of a bus that the configuration exports, as bus.migrate() of it: any number of processes may run it at once, and run again
it changes nothing.`,
    `The script of --sql has no statements for queues: pg-boss creates them by calls of its own. After somebody else has run it, run \`migrate\`
all the same: it checks what was done, and creates the queues.`,
  ],
  flags: {
    sql: toggle(
      'Only prints the statements that it would run, but for queues, and the grants: a script for psql',
    ),
    'dry-run': changeFlags['dry-run'],
    'migrate-shared-boss': toggle(
      'Also updates an older pg-boss in that schema that something else uses too',
    ),
  },
  isLong: true,
  async run({ flags, bus, database, config, output, inTime }) {
    const { sql: isSql, 'dry-run': isDryRun, 'migrate-shared-boss': isShared } = flags
    if (isSql && isDryRun) throw new UsageError('Give either --sql or --dry-run')
    const { exportedBus } = await config()
    const connected = await bus({ checksSchema: false })
    const declared = exportedBus === undefined ? [] : declaredOf(exportedBus)
    if (isSql || isDryRun) {
      const { planMigration } = await import('../../migration-plan.ts')
      const names = declared.map((each) => (each as { readonly name: string }).name)
      const plan = await inTime(planMigration(await database(), names, isShared))
      if (isSql && !output.isJson) {
        output.raw(plan.sql)
        if (plan.queues.length > 0)
          output.note(
            `The script does not create the queues of ${plan.queues.join(', ')}: run ${output.command('migrate')} after it.`,
          )
      } else output.object(plan, () => writePlan(output, plan))
      return 0
    }
    // The bus of a copy of the package that does not tell its options has them already.
    if (connected !== exportedBus)
      for (const each of declared) connected.subscribe(each as Parameters<typeof connected.subscribe>[0])
    await output.during('Migrating', connected.migrate({ sharedBoss: isShared ? 'migrate' : 'refuse' }))
    output.object({ migrated: true }, () => output.line('The database is up to date.'))
    return 0
  },
})

function writePlan(output: Output, { bus, boss, queues, roles }: MigrationPlan): void {
  const { migrations, appliedCount } = bus
  output.line(
    migrations.length === 0
      ? `The schema bus is up to date: it has ${counted(appliedCount, 'migration')}.`
      : `The schema bus has ${counted(appliedCount, 'migration')}, and would get:`,
  )
  for (const name of migrations) output.line(`  ${name}`)
  output.line(
    boss.version === boss.nextVersion
      ? `pg-boss in the schema ${boss.schema} is up to date: version ${boss.version} of its schema.`
      : boss.version === undefined
        ? `pg-boss would be installed in the schema ${boss.schema}, in version ${boss.nextVersion} of its schema.`
        : `pg-boss in the schema ${boss.schema} would be updated from version ${boss.version} of its schema to ${boss.nextVersion}.`,
  )
  if (queues.length > 0) output.line(`Queues would be created for ${queues.join(', ')}.`)
  if (roles.missing.length > 0)
    output.line(
      roles.mayCreate
        ? `Roles would be created: ${roles.missing.join(', ')}.`
        : yellow(
            `An administrator must create roles, which this role may not: ${roles.missing.join(', ')}. See --sql.`,
          ),
    )
  output.line('Privileges that the roles lack would be granted.')
}
