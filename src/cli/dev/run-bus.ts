/**
 * Starts the bus that a configuration exports, for `bossbus dev`: a process of its own, which is restarted when a file changes.
 *
 * @module
 */
import { stopOnSignals } from '../../stop-on-signals.ts'
import { loadConfig } from '../command/config.ts'

const [, , file = ''] = process.argv
const { exportedBus } = await loadConfig({
  ...{ configFlag: file, databaseFlag: undefined, databaseFileFlag: undefined },
  ...{ env: {}, cwd: process.cwd() },
})
if (exportedBus === undefined) {
  process.stderr.write(
    `${file} exports no bus: export one, or name the file to run: bossbus dev src/main.ts\n`,
  )
  process.exitCode = 2
} else {
  stopOnSignals(exportedBus, { graceMs: 1000, onStopped: () => process.exit(0) })
  await exportedBus.migrate()
  await exportedBus.start()
}
