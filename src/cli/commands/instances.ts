import { defineCommand } from '../command/command.ts'
import { integer } from '../command/flags.ts'
import { state } from '../output/styled.ts'

export const instances = defineCommand({
  examples: [['instances', 'who runs, since when, and with which version']],
  flags: { limit: integer('<n>', 'Rows', { min: 1, max: 10_000, default: 1000 }) },
  async run({ flags, bus, output }) {
    const { queries } = await bus()
    output.list(
      await queries.instances({ limit: flags.limit }),
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
    return 0
  },
})
