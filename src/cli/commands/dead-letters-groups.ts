import { defineCommand } from '../command/command.ts'
import { conditionsOf, deadLetterFlags } from '../command/dead-letter-flags.ts'
import { rowFlags } from '../command/shared-flags.ts'
import { red } from '../output/styled.ts'
import { errorText } from '../views/event-timeline.ts'
import { noteMoreRows } from '../views/more-rows.ts'

const { group: _, ...flags } = deadLetterFlags

export const deadLettersGroups = defineCommand({
  examples: [
    ['dead-letters groups', 'what they failed with, most dead letters first'],
    ['dead-letters groups --subscription ledger --from 2h', 'of one subscription, of the last two hours'],
  ],
  flags: { ...flags, ...rowFlags },
  async run({ flags: given, bus, output }) {
    const { deadLetters } = await bus()
    const { fingerprint: __, ...conditions } = conditionsOf({ ...given, group: undefined })
    const rows = await deadLetters.groups({ ...conditions, limit: given.limit })
    output.list(
      rows,
      [
        { title: 'GROUP', value: ({ fingerprint }) => fingerprint, isWhole: true },
        { title: 'EVENTS', value: ({ count }) => red(String(count)), align: 'right' },
        { title: 'SUBSCRIPTIONS', value: ({ subscriptions }) => subscriptions, isWhole: true },
        { title: 'TENANTS', value: ({ tenantCount }) => tenantCount, align: 'right' },
        { title: 'FIRST', value: ({ firstAt }) => firstAt },
        { title: 'LAST', value: ({ lastAt }) => lastAt },
        { title: 'NEWEST', value: ({ newestId }) => newestId, isWhole: true },
        {
          title: 'ERROR',
          isProse: true,
          value: ({ errorName = '', errorCode, message = '' }) =>
            errorText({ name: errorName, code: errorCode, message }),
        },
      ],
      'There are no such dead letters.',
    )
    noteMoreRows(output, rows.length, given.limit, 'choose by --subscription, --error-name or --from')
    const group = rows.find(({ fingerprint }) => fingerprint !== undefined)?.fingerprint
    if (group !== undefined)
      output.note(`Next: ${output.command('dead-letters', 'redrive', ['--group', group], '--dry-run')}`)
    return 0
  },
})
