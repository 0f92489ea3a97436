import { createBus } from '../../bus.ts'
import type { Command } from '../command/command.ts'

export const migrate: Command = {
  name: 'migrate',
  summary: 'Creates or updates the schemas `bus` and `pgboss` (or `bossSchema` of the configuration)',
  help: `As bus.migrate(): any number of processes may run it at once, and run again it changes nothing.

  --migrate-shared-boss   also updates an older pg-boss in that schema that something else uses too`,
  options: { 'migrate-shared-boss': { type: 'boolean' } },
  async run({ flags, config, print }) {
    const { database, bossSchema } = await config()
    // A migration needs neither events nor a source.
    const bus = createBus({ database: database(), bossSchema, events: {}, source: 'bossbus-cli' })
    try {
      await bus.migrate({ sharedBoss: flags['migrate-shared-boss'] === true ? 'migrate' : 'refuse' })
    } finally {
      await bus.stop()
    }
    print(flags['json'] === true ? JSON.stringify({ migrated: true }) : 'The database is up to date.')
    return 0
  },
}
