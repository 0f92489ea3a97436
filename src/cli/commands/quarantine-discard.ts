import { several } from '../command/arguments.ts'
import { defineCommand } from '../command/command.ts'
import { changeFlags } from '../command/shared-flags.ts'
import { UsageError } from '../command/usage-error.ts'
import { allMessagesFlag, changeAll, messageFlags, messageSelection } from '../views/select-messages.ts'

export const quarantineDiscard = defineCommand({
  examples: [
    ["quarantine discard 0192f7c1-6d2e-7c3a-9a41-2b7f0e6d9c10 --reason 'a test'", 'one message'],
    ["quarantine discard --receiver stripe --all --reason 'sent by mistake'", 'all of one receiver'],
  ],
  notes: ['They never become events, unless `quarantine retry` names them.'],
  args: { id: several('Ids of messages: `quarantine list` has them') },
  flags: { ...messageFlags, ...allMessagesFlag, ...changeFlags },
  isLong: true,
  async run({ args, flags, bus, output, inTime, confirm, actor }) {
    const selection = messageSelection(args.id, flags)
    const { by, reason } = actor()
    if (reason === undefined) throw new UsageError('Say why with --reason <text>: the audit tells it')
    const { quarantine } = await inTime(bus())
    const preview = await inTime(quarantine.discard(selection, { by, reason, dryRun: true }))
    const what = preview.count === 1 ? '1 message' : `${preview.count} messages`
    if (flags['dry-run'] || preview.count === 0) {
      output.object({ dryRun: true, ...preview }, () => output.line(`${what} would be discarded.`))
      return preview.count === 0 && args.id.length > 0 ? 1 : 0
    }
    await confirm({ what: `Discard ${what}` })
    const count = await inTime(changeAll(async (each) => quarantine.discard(each, { by, reason }), selection))
    output.object({ count }, () => output.line(`${count} discarded.`))
    return 0
  },
})
