import { defineCommand } from '../command/command.ts'
import { integer } from '../command/flags.ts'
import { maxRows } from '../command/shared-flags.ts'
import { state } from '../output/styled.ts'
import { noteMoreRows } from '../views/more-rows.ts'

export const instances = defineCommand({
  examples: [['instances', 'who runs, since when, and with which version']],
  flags: { limit: integer('<n>', 'Rows', { min: 1, max: maxRows, default: maxRows }) },
  async run({ flags, bus, output }) {
    const { queries } = await bus()
    const rows = await queries.instances({ limit: flags.limit })
    output.list(
      rows,
      [
        { title: 'SERVICE', value: ({ service }) => service },
        { title: 'HOST', value: ({ host }) => host },
        { title: 'PID', value: ({ pid }) => String(pid), align: 'right' },
        { title: 'STATE', value: ({ isLive }) => (isLive ? state('active') : state('lost')) },
        { title: 'RELAY', value: ({ relay }) => relay },
        { title: 'IN FLIGHT', value: ({ inFlightEvents }) => inFlightEvents, align: 'right' },
        { title: 'SUBSCRIPTIONS', value: ({ subscriptionCount }) => subscriptionCount, align: 'right' },
        { title: 'STARTED', value: ({ startedAt }) => startedAt },
        { title: 'SEEN', value: ({ seenAt }) => seenAt },
        { title: 'VERSION', value: ({ version }) => version },
        { title: 'ID', value: ({ instanceId }) => instanceId, isWhole: true },
      ],
      'No process of the bus runs.',
    )
    noteMoreRows(output, rows.length, flags.limit)
    return 0
  },
})
