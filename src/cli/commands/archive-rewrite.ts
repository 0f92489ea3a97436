import { defineCommand } from '../command/command.ts'
import { changeFlags } from '../command/shared-flags.ts'
import { counted } from '../output/cells.ts'

export const archiveRewrite = defineCommand({
  examples: [
    ['archive rewrite --dry-run', 'which files hold events of subjects that were erased afterwards'],
    ['archive rewrite', 'does now what retention does once an hour'],
  ],
  notes: ['Takes `retention.archive` in the configuration. Who erased the subjects is in `bus.erasures`.'],
  flags: { 'dry-run': changeFlags['dry-run'] },
  isLong: true,
  async run({ flags, bus, output, inTime }) {
    const { retention } = await inTime(bus())
    const pending = await inTime(retention.pendingErasures())
    if (flags['dry-run']) {
      output.list(
        pending,
        [
          { title: 'FILE', value: ({ file }) => file, isWhole: true },
          { title: 'TENANT', value: ({ tenantId }) => tenantId },
          { title: 'SUBJECT', value: ({ subject }) => subject },
          { title: 'ERASED', value: ({ requestedAt }) => requestedAt },
        ],
        'No archive holds events of erased subjects.',
      )
      return 0
    }
    const rewrittenFiles =
      pending.length === 0 ? [] : await output.during('Rewriting archives', retention.rewriteArchives())
    output.object({ rewrittenFiles }, () => {
      output.line(
        pending.length === 0
          ? 'No archive holds events of erased subjects.'
          : `Rewrote ${counted(rewrittenFiles.length, 'file')}.`,
      )
      for (const file of rewrittenFiles) output.line(file)
    })
    return 0
  },
})
