import { defineCommand } from '../command/command.ts'
import { integer } from '../command/flags.ts'
import { red, yellow } from '../output/styled.ts'

export const tenants = defineCommand({
  examples: [['tenants', 'whose events wait, most first']],
  flags: { limit: integer('<n>', 'Rows', { min: 1, max: 10_000, default: 100 }) },
  async run({ flags, bus, output }) {
    const { queries } = await bus()
    const percent = (share: number): string => `${Math.round(share * 100)} %`
    output.list(
      await queries.tenants({ limit: flags.limit }),
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
    return 0
  },
})
