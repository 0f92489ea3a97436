import { several } from '../command/arguments.ts'
import { defineCommand } from '../command/command.ts'
import { deadLetterFlags, typeFlag } from '../command/dead-letter-flags.ts'
import { integer, text, toggle } from '../command/flags.ts'
import { changeFlags, waitFlag } from '../command/shared-flags.ts'
import { UsageError } from '../command/usage-error.ts'
import { questionOf, writePreview } from '../views/dead-letter-preview.ts'
import { findLetter, requireSelection, selectLetters } from '../views/select-letters.ts'
import { reportStarted } from '../views/start-operation.ts'

export const deadLettersRedrive = defineCommand({
  examples: [
    ['dead-letters redrive paid-42', 'one event, by its id or business id'],
    ['dead-letters redrive --group 4f1c0d9a --rate 50 --wait', 'all with one error, 50 a second'],
    [
      'dead-letters redrive --subscription ledger --dry-run',
      'how many there are, and which would be skipped',
    ],
    ['dead-letters redrive paid-42 --edit', 'a copy with another payload, in $EDITOR'],
  ],
  notes: [
    `They are tried again with all their attempts, by an operation that any process that runs goes on with. The first five go alone:
unless one of them is delivered, the operation stops. \`operations\` shows, holds and cancels it.`,
    `With --edit or --payload an edited copy is delivered in the place of one dead letter, which is discarded. [redacted] stands for
values that the catalogue hides.`,
  ],
  args: { id: several('Ids of events, or what `bus.lookup` finds them by') },
  flags: {
    ...deadLetterFlags,
    ...typeFlag,
    all: toggle('All that there are, of all subscriptions unless --subscription is given'),
    rate: integer('<n>', 'Events a second, at most', { min: 1, max: 100_000 }),
    probe: integer('<n>', 'How many go first, alone; 0: none', { min: 0, max: 100, default: 5 }),
    edit: toggle('Opens the payload in $VISUAL or $EDITOR'),
    payload: text('<file>', 'A file with the payload of the copy, as JSON'),
    ...waitFlag,
    ...changeFlags,
  },
  isLong: true,
  async run(context) {
    const { args, flags, bus, output, inTime, confirm, actor } = context
    const { edit, payload, rate, probe } = flags
    requireSelection(args.id, flags)
    if (edit || payload !== undefined) {
      const [id, second] = args.id
      if (edit && payload !== undefined) throw new UsageError('Give either --edit or --payload')
      if (id === undefined || second !== undefined)
        throw new UsageError('--edit and --payload are about one event: give its id')
      const { prepareEdit, redriveEdited } = await import('../views/edited-redrive.ts')
      // Nothing is asked of the database for what cannot be edited here.
      await prepareEdit(context, payload)
      const open = await inTime(bus())
      const letter = await inTime(findLetter(open, output, id, flags.subscription))
      return letter === undefined ? 1 : redriveEdited(context, open, letter, payload)
    }
    const open = await inTime(bus())
    const selection = await inTime(selectLetters(open, output, args.id, flags))
    if (selection === undefined) return 1
    const options = { ...actor(), rate, probe }
    const preview = await inTime(open.deadLetters.redrive(selection, { ...options, dryRun: true }))
    if (flags['dry-run'] || preview.count === 0) {
      output.object(preview, () =>
        writePreview(output, preview, { isRedrive: true, isDryRun: flags['dry-run'] }),
      )
      // One that is named must be there.
      return preview.count === 0 && args.id.length > 0 ? 1 : 0
    }
    await confirm({ what: questionOf('Redrive', preview) })
    const operation = await inTime(open.deadLetters.redrive(selection, options))
    return reportStarted(context, open, operation, flags.wait)
  },
})
