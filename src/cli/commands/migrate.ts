import { defineCommand } from '../command/command.ts'
import { toggle } from '../command/flags.ts'

export const migrate = defineCommand({
  examples: [['migrate', 'at deployment, from any number of processes']],
  notes: [
    'Creates or updates the schemas `bus` and `pgboss` (or `bossSchema` of the configuration), as bus.migrate(): any number of processes\nmay run it at once, and run again it changes nothing.',
  ],
  flags: {
    'migrate-shared-boss': toggle(
      'Also updates an older pg-boss in that schema that something else uses too',
    ),
  },
  isLong: true,
  async run({ flags, bus, output }) {
    const connected = await bus({ checksSchema: false })
    await connected.migrate({ sharedBoss: flags['migrate-shared-boss'] ? 'migrate' : 'refuse' })
    output.object({ migrated: true }, () => output.line('The database is up to date.'))
    return 0
  },
})
