import type { RangeOutcome, RetentionReport } from '../../retention/round.ts'
import { defineCommand } from '../command/command.ts'
import { changeFlags } from '../command/shared-flags.ts'
import { counted } from '../output/cells.ts'
import type { Output } from '../output/output.ts'
import { quiet, yellow } from '../output/styled.ts'

const outcomes: Readonly<Record<RangeOutcome['outcome'], string>> = {
  due: 'goes',
  held: 'held',
  dropped: 'dropped',
  busy: 'busy: in use all the time, tried again next time',
  elsewhere: 'elsewhere: it is archived first, which takes `retention.archive` in the configuration',
  changed: 'changed: rows came while it was archived, which is done again next time',
}

export const prune = defineCommand({
  examples: [
    ['prune --dry-run', 'what would go, and what holds it back'],
    ['prune', 'does now what retention does once an hour'],
  ],
  notes: [
    'What is kept how long is `retention` of the services, and that of the configuration: of several the longest time counts.',
  ],
  flags: changeFlags,
  isLong: true,
  async run({ flags, bus, output, inTime, confirm, actor }) {
    const open = await inTime(bus())
    const plan = await inTime(open.prune({ ...actor(), dryRun: true }))
    if (flags['dry-run']) {
      output.object(plan, () => writeReport(output, plan, true))
      return 0
    }
    const due = plan.ranges.filter(({ outcome }) => outcome === 'due').length
    const rows = rowsOf(plan)
    if (due + rows > 0)
      await confirm({
        what: `Drop ${counted(due, 'partition range')} of the log, and delete ${counted(rows, 'row')}`,
      })
    const report = await output.during('Pruning', open.prune(actor()))
    output.object(report, () => writeReport(output, report, false))
    return report.ranges.every(({ outcome }) => outcome === 'dropped' || outcome === 'held') ? 0 : 1
  },
})

function rowsOf({ deleted }: RetentionReport): number {
  return Object.values(deleted).reduce((sum, count) => sum + count, 0)
}

function writeReport(output: Output, report: RetentionReport, isDryRun: boolean): void {
  const { ranges, deleted, rewrittenFiles } = report
  const rows = Object.entries(deleted).filter(([, count]) => count > 0)
  if (ranges.length === 0 && rows.length === 0 && rewrittenFiles.length === 0) {
    output.line(isDryRun ? 'Nothing would go.' : 'There was nothing to do.')
    return
  }
  output.table(ranges, [
    { title: 'RANGE', value: ({ range }) => range.name },
    {
      title: 'WHAT',
      isProse: true,
      value: ({ outcome }) =>
        outcome === 'dropped' || outcome === 'due' ? outcomes[outcome] : yellow(outcomes[outcome]),
    },
    { title: 'EVENTS', value: ({ range }) => range.estimatedEventCount, align: 'right' },
    { title: 'BYTES', value: ({ range }) => range.bytes, align: 'right' },
    { title: 'TABLES', value: ({ range }) => range.tables, isProse: true },
    {
      title: 'HELD BY',
      isProse: true,
      value: ({ holds }) =>
        holds.map(
          ({ kind, subscription, count, detail }) =>
            `${count > 10_000 ? 'over 10,000' : count} ${kind}${subscription === undefined ? '' : ` for ${subscription}`}${detail === undefined ? '' : ` (${detail})`}`,
        ),
    },
  ])
  if (rows.length > 0) {
    output.heading(isDryRun ? 'Rows that would be deleted' : 'Deleted rows')
    output.table(rows, [
      { title: 'WHAT', value: ([name]) => name, isProse: true },
      {
        title: 'ROWS',
        value: ([, count]) => (isDryRun && count > 10_000 ? 'over 10,000' : count),
        align: 'right',
      },
    ])
  }
  if (rewrittenFiles.length === 0) return
  output.heading('Files rewritten for erased subjects')
  for (const file of rewrittenFiles) output.line(quiet(file))
}
