import type { Bus } from '../../bus-interface.ts'
import { required } from '../command/arguments.ts'
import { defineCommand, type CommandContext } from '../command/command.ts'
import { changeFlags, confirmFlag } from '../command/shared-flags.ts'
import { counted } from '../output/cells.ts'

/** Events that are counted before. */
const maxCounted = 5000
const pageSize = 1000

export const erase = defineCommand({
  examples: [
    ["erase nordwind customers/42 --reason 'request 1207'", 'asks for the subject to be typed'],
    ['erase nordwind customers/42 --dry-run', 'how many events the log has'],
    ['erase nordwind customers/42 --confirm customers/42', 'where nobody can be asked'],
  ],
  notes: [
    `Replaces payload and metadata of the events of a subject by a tombstone, and empties what is known of failed attempts at them. When it
ends, no handler in any process starts with an erased payload. It takes some seconds, and may be repeated if it was interrupted.`,
  ],
  args: { tenant: required('The tenant'), subject: required('The exact subject of the events') },
  flags: { ...changeFlags, ...confirmFlag },
  isLong: true,
  async run({ args, flags, bus, output, inTime, confirm, actor }) {
    const { tenant: tenantId, subject } = args
    const open = await inTime(bus())
    const { count, isPartial } = await countEvents(open, inTime, tenantId, subject)
    const events = counted(count, 'event', isPartial)
    if (flags['dry-run']) {
      output.object({ dryRun: true, eventCount: count, isPartial }, () =>
        output.line(
          `The log has ${events} of this subject that ${count === 1 ? 'is' : 'are'} not erased. Archives may have more.`,
        ),
      )
      return 0
    }
    await confirm({ what: `Erase ${events} about ${subject} of ${tenantId}`, name: subject })
    output.note('Erasing, until no handler can start with an erased payload …')
    const erased = await output.during('Erasing', open.erase({ tenantId, subject, ...actor() }))
    output.object(erased, () =>
      output.line(
        `Erased ${counted(erased.eventCount, 'event')} and ${counted(erased.failureCount, 'record')} of failed attempts: erasure ${erased.id}.`,
      ),
    )
    if (erased.archiveFiles.length > 0)
      output.note(
        `${counted(erased.archiveFiles.length, 'file')} of archives ${erased.archiveFiles.length === 1 ? 'is' : 'are'} rewritten within an hour. Next: ${output.command('archive', 'rewrite')}`,
      )
    return 0
  },
})

async function countEvents(
  { events }: Bus,
  inTime: CommandContext['inTime'],
  tenantId: string,
  subject: string,
): Promise<{ readonly count: number; readonly isPartial: boolean }> {
  let count = 0
  let after: string | undefined
  for (let read = 0; read < maxCounted; read += pageSize) {
    const page = await inTime(events.find({ tenantId, subject, after, limit: pageSize }))
    count += page.filter(({ erasedAt }) => erasedAt === undefined).length
    after = page.at(-1)?.id
    if (page.length < pageSize) return { count, isPartial: false }
  }
  return { count, isPartial: true }
}
