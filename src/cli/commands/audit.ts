import { defineCommand } from '../command/command.ts'
import { text } from '../command/flags.ts'
import { changeFlags, pageFlags } from '../command/shared-flags.ts'
import { jsonText } from '../output/json-text.ts'
import { quiet } from '../output/styled.ts'

export const audit = defineCommand({
  examples: [
    ['audit', 'every change by a person or a program, latest first'],
    ['audit --by ada --action subscriptions.pause', 'who paused what'],
  ],
  flags: {
    by: { ...changeFlags.by, help: 'By this person or program' },
    action: text('<name>', 'Of this kind, such as deadLetters.redrive'),
    subscription: text('<name>', 'About this subscription'),
    event: text('<id>', 'About this event'),
    operation: text('<id>', 'That began this operation'),
    ...pageFlags,
  },
  async run({ flags, bus, output, nextPage }) {
    const { audit: records } = await bus()
    const { by, action, subscription, event: eventId, operation: operationId, limit, after } = flags
    const rows = await records.list({
      ...{ by, action, subscription, eventId, operationId, limit, after },
    })
    output.list(
      rows,
      [
        { title: 'AT', value: ({ at }) => at },
        { title: 'BY', value: (row) => row.by },
        { title: 'ACTION', value: (row) => row.action, isWhole: true },
        { title: 'SUBSCRIPTION', value: (row) => row.subscription, isWhole: true },
        { title: 'TENANT', value: ({ tenantId }) => tenantId },
        { title: 'EVENT', value: (row) => row.eventId, isWhole: true },
        { title: 'OPERATION', value: (row) => row.operationId, isWhole: true },
        {
          title: 'OUTCOME',
          isProse: true,
          value: ({ outcome, finishedAt }) =>
            finishedAt === undefined
              ? quiet('under way')
              : outcome === undefined || Object.keys(outcome).length === 0
                ? ''
                : jsonText(outcome),
        },
        { title: 'REASON', value: ({ reason }) => reason, isProse: true },
      ],
      'Nobody has changed anything.',
    )
    const last = rows.at(-1)
    if (last !== undefined && rows.length === limit) nextPage(last.id)
    return 0
  },
})
