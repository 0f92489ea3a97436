import { defineCommand } from '../command/command.ts'
import { pageFlags } from '../command/shared-flags.ts'
import { isoTime } from '../output/cells.ts'
import { state, yellow } from '../output/styled.ts'

export const archiveList = defineCommand({
  examples: [['archive list', 'what was copied out of the log before it was dropped']],
  flags: pageFlags,
  async run({ flags, bus, output, nextPage }) {
    const { retention } = await bus()
    const { limit, after } = flags
    const rows = await retention.archives({ limit, after })
    output.list(
      rows,
      [
        { title: 'NAME', value: ({ name }) => name, isWhole: true },
        { title: 'STATE', value: (row) => state(row.state) },
        { title: 'FROM', value: ({ from }) => isoTime(from).slice(0, 10) },
        { title: 'TO', value: ({ to }) => isoTime(to).slice(0, 10) },
        { title: 'EVENTS', value: ({ rowCounts }) => rowCounts.events, align: 'right' },
        { title: 'FILES', value: ({ fileCount }) => fileCount, align: 'right' },
        { title: 'BYTES', value: ({ byteCount }) => byteCount, align: 'right' },
        {
          title: 'TO REWRITE',
          value: ({ pendingFileCount: count }) => (count === 0 ? 0 : yellow(String(count))),
          align: 'right',
        },
        { title: 'ARCHIVED', value: ({ archivedAt }) => archivedAt },
        { title: 'DROPPED', value: ({ droppedAt }) => droppedAt },
        { title: 'SERVICE', value: ({ service }) => service },
        { title: 'MANIFEST', value: ({ manifest }) => manifest, isWhole: true },
      ],
      'Nothing was archived.',
    )
    if (rows.some(({ pendingFileCount }) => pendingFileCount > 0))
      output.note(`Next: ${output.command('archive', 'rewrite')}`)
    const last = rows.at(-1)
    if (last !== undefined && rows.length === limit) nextPage(last.id)
    return 0
  },
})
