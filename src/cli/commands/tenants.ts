import { defineCommand } from '../command/command.ts'
import { rowFlags } from '../command/shared-flags.ts'
import { red, yellow } from '../output/styled.ts'
import { noteMoreRows } from '../views/more-rows.ts'

export const tenants = defineCommand({
  examples: [['tenants', 'whose events wait, most first']],
  flags: rowFlags,
  async run({ flags, bus, output }) {
    const { queries } = await bus()
    const percent = (share: number): string => `${Math.round(share * 100)} %`
    const rows = await queries.tenants({ limit: flags.limit })
    output.list(
      rows,
      [
        { title: 'TENANT', value: ({ tenantId }) => tenantId },
        { title: 'RECENT', value: ({ recentEvents }) => recentEvents, align: 'right' },
        { title: 'SHARE', value: ({ recentShare }) => percent(recentShare), align: 'right' },
        { title: 'WAITING', value: ({ waitingEvents }) => waitingEvents, align: 'right' },
        { title: 'SCHEDULED', value: ({ scheduledEvents }) => scheduledEvents, align: 'right' },
        {
          title: 'RETRYING',
          value: ({ retryingEvents }) => (retryingEvents === 0 ? 0 : yellow(String(retryingEvents))),
          align: 'right',
        },
        {
          title: 'DEAD',
          value: ({ deadEvents }) => (deadEvents === 0 ? 0 : red(String(deadEvents))),
          align: 'right',
        },
      ],
      'No tenant has published anything.',
    )
    noteMoreRows(output, rows.length, flags.limit)
    return 0
  },
})
