import { several } from '../command/arguments.ts'
import { defineCommand } from '../command/command.ts'
import { changeFlags } from '../command/shared-flags.ts'
import { allMessagesFlag, changeAll, messageFlags, messageSelection } from '../views/select-messages.ts'

export const quarantineRetry = defineCommand({
  examples: [
    ['quarantine retry 0192f7c1-6d2e-7c3a-9a41-2b7f0e6d9c10', 'one message'],
    [
      'quarantine retry --receiver stripe --code BUS_INVALID_EVENT',
      'all with one reason, after a deployment',
    ],
  ],
  notes: [
    'They go through `map` of their receiver again, in a process that runs it. Ids may be those of discarded messages.',
  ],
  args: { id: several('Ids of messages: `quarantine list` has them') },
  flags: { ...messageFlags, ...allMessagesFlag, ...changeFlags },
  isLong: true,
  async run({ args, flags, bus, output, inTime, confirm, actor }) {
    const selection = messageSelection(args.id, flags)
    const { quarantine } = await inTime(bus())
    const preview = await inTime(quarantine.retry(selection, { ...actor(), dryRun: true }))
    const what = preview.count === 1 ? '1 message' : `${preview.count} messages`
    if (flags['dry-run'] || preview.count === 0) {
      output.object({ dryRun: true, ...preview }, () => output.line(`${what} would be tried again.`))
      return preview.count === 0 && args.id.length > 0 ? 1 : 0
    }
    await confirm({ what: `Try ${what} again` })
    const count = await inTime(changeAll(async (each) => quarantine.retry(each, actor()), selection))
    output.object({ count }, () =>
      output.line(`${count} are tried again as soon as a process runs their receivers.`),
    )
    output.note(`Next: ${output.command('quarantine', 'list')}`)
    return 0
  },
})
