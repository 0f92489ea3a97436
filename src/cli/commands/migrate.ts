import { createBus } from '../../bus.ts'
import type { Command } from '../command.ts'

export const migrate: Command = {
  name: 'migrate',
  summary: 'Creates or updates the schemas `bus` and `pgboss`',
  help: 'As bus.migrate(): any number of processes may run it at once, and run again it changes nothing.',
  options: {},
  async run({ flags, config, print }) {
    const database = (await config()).database()
    // Neither events nor a source have a part in it.
    const bus = createBus({ database, events: {}, source: 'bossbus-cli' })
    try {
      await bus.migrate()
    } finally {
      await bus.stop()
    }
    print(flags['json'] === true ? JSON.stringify({ migrated: true }) : 'The database is up to date.')
    return 0
  },
}
