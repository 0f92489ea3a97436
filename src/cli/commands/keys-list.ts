import { optional } from '../command/arguments.ts'
import { defineCommand } from '../command/command.ts'
import { rowFlags } from '../command/shared-flags.ts'
import { state } from '../output/styled.ts'
import { errorText } from '../views/event-timeline.ts'
import { noteMoreRows } from '../views/more-rows.ts'

export const keysList = defineCommand({
  examples: [
    ['keys list', 'which keys of ordered subscriptions wait, longest first'],
    ['keys list ledger', 'of one subscription'],
  ],
  args: { subscription: optional('Only of this one') },
  flags: rowFlags,
  async run({ args, flags, bus, output }) {
    const { queries } = await bus()
    const rows = await queries.blockedKeys({ subscription: args.subscription, limit: flags.limit })
    output.list(
      rows,
      [
        { title: 'SUBSCRIPTION', value: ({ subscription }) => subscription, isWhole: true },
        { title: 'TENANT', value: ({ tenantId }) => tenantId },
        { title: 'KEY', value: ({ orderingKey }) => orderingKey, isWhole: true },
        { title: 'STATE', value: (row) => state(row.state) },
        { title: 'SINCE', value: ({ since }) => since },
        { title: 'BEHIND', value: ({ behindEvents }) => behindEvents, align: 'right' },
        { title: 'EVENT', value: ({ eventId }) => eventId, isWhole: true },
        {
          title: 'ERROR',
          isProse: true,
          value: ({ errorName, errorMessage = '' }) =>
            errorName === undefined ? '' : errorText({ name: errorName, message: errorMessage }),
        },
      ],
      'No key waits.',
    )
    noteMoreRows(output, rows.length, flags.limit, 'name a subscription')
    const first = rows.find((row) => row.state !== 'overrunning')
    if (first !== undefined)
      output.note(
        `Next: ${output.command('keys', 'release', first.subscription, ['--tenant', first.tenantId], ['--key', first.orderingKey])}`,
      )
    return 0
  },
})
