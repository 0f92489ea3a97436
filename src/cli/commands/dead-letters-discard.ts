import { several } from '../command/arguments.ts'
import { defineCommand } from '../command/command.ts'
import { deadLetterFlags, typeFlag } from '../command/dead-letter-flags.ts'
import { toggle } from '../command/flags.ts'
import { changeFlags, confirmFlag, waitFlag } from '../command/shared-flags.ts'
import { UsageError } from '../command/usage-error.ts'
import { questionOf, writePreview } from '../views/dead-letter-preview.ts'
import { requireSelection, selectLetters } from '../views/select-letters.ts'
import { reportStarted } from '../views/start-operation.ts'

export const deadLettersDiscard = defineCommand({
  examples: [
    ["dead-letters discard paid-42 --reason 'paid by hand'", 'one event, by its id or business id'],
    ["dead-letters discard --group 4f1c0d9a --reason 'a test' --confirm ledger", 'all with one error'],
  ],
  notes: [
    `Their events are never delivered to the subscription, in no replay either. A key that one of them holds is released. Asks for the name of
the subscription, or for the word discard where there is not just one.`,
  ],
  args: { id: several('Ids of events, or what `bus.lookup` finds them by') },
  flags: {
    ...deadLetterFlags,
    ...typeFlag,
    all: toggle('All that there are, of all subscriptions unless --subscription is given'),
    ...waitFlag,
    ...changeFlags,
    ...confirmFlag,
  },
  isLong: true,
  async run(context) {
    const { args, flags, bus, output, inTime, confirm, actor } = context
    requireSelection(args.id, flags)
    const { by, reason } = actor()
    if (reason === undefined) throw new UsageError('Say why with --reason <text>: `events show` tells it')
    const open = await inTime(bus())
    const selection = await inTime(selectLetters(open, output, args.id, flags))
    if (selection === undefined) return 1
    const preview = await inTime(open.deadLetters.discard(selection, { by, reason, dryRun: true }))
    if (flags['dry-run'] || preview.count === 0) {
      output.object(preview, () =>
        writePreview(output, preview, { isRedrive: false, isDryRun: flags['dry-run'] }),
      )
      return preview.count === 0 && args.id.length > 0 ? 1 : 0
    }
    const [only, other] = preview.subscriptions
    await confirm({
      what: questionOf('Discard', preview),
      name: other === undefined ? (only?.subscription ?? 'discard') : 'discard',
    })
    const operation = await inTime(open.deadLetters.discard(selection, { by, reason }))
    return reportStarted(context, open, operation, flags.wait)
  },
})
