import { defineCommand } from '../command/command.ts'
import { duration } from '../output/cells.ts'
import { state } from '../output/styled.ts'

export const subscriptionsList = defineCommand({
  examples: [['subscriptions list', 'of all services, by name']],
  async run({ bus, output }) {
    const { subscriptions } = await bus()
    output.list(
      await subscriptions.list(),
      [
        { title: 'SUBSCRIPTION', value: ({ name }) => name, isWhole: true },
        { title: 'STATE', value: (row) => state(row.state) },
        { title: 'WAITING', value: ({ waitingCount }) => waitingCount, align: 'right' },
        {
          title: 'LAG',
          value: ({ lagSeconds }) =>
            lagSeconds === 0 || !output.isTerminal ? lagSeconds : duration(lagSeconds * 1000),
          align: 'right',
        },
        { title: 'PROCESSES', value: ({ instanceCount }) => instanceCount, align: 'right' },
        { title: 'EVENTS', value: ({ events }) => events },
        { title: 'SERVICE', value: ({ service }) => service },
        { title: 'SET UNTIL', value: ({ overrides }) => overrides?.expiresAt },
        {
          title: 'WHY',
          isProse: true,
          value: ({ pause, circuit, overrides }) => pause?.reason ?? circuit?.reason ?? overrides?.reason,
        },
      ],
      'There are none yet: a process registers its subscriptions when it starts.',
    )
    return 0
  },
})
