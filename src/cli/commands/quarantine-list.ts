import { defineCommand } from '../command/command.ts'
import { choice } from '../command/flags.ts'
import { pageFlags } from '../command/shared-flags.ts'
import { state } from '../output/styled.ts'
import { conditionsOf, messageFlags } from '../views/select-messages.ts'

export const quarantineList = defineCommand({
  examples: [
    ['quarantine list', 'messages that wait for a person, newest first'],
    ['quarantine list --receiver stripe --state discarded', 'of one receiver, those that were given up'],
  ],
  flags: {
    ...messageFlags,
    state: choice(['new', 'retrying', 'stored', 'discarded'], 'Those that are so; new unless given'),
    ...pageFlags,
  },
  async run({ flags, bus, output, nextPage }) {
    const { quarantine } = await bus()
    const { state: inState, limit, after } = flags
    const rows = await quarantine.list({ ...conditionsOf(flags), state: inState, limit, after })
    output.list(
      rows,
      [
        { title: 'ID', value: ({ id }) => id, isWhole: true },
        { title: 'RECEIVER', value: ({ receiver }) => receiver },
        { title: 'STATE', value: (row) => state(row.state) },
        { title: 'SINCE', value: ({ receivedAt }) => receivedAt },
        { title: 'TIMES', value: ({ receivedCount }) => receivedCount, align: 'right' },
        { title: 'MESSAGE', value: ({ messageId }) => messageId ?? '' },
        { title: 'CODE', value: ({ code }) => code },
        { title: 'REASON', value: ({ reason }) => reason },
      ],
      'There are no such messages.',
    )
    const [first] = rows
    const last = rows.at(-1)
    if (last !== undefined && rows.length === limit) nextPage(last.id)
    else if (first !== undefined) output.note(`Next: ${output.command('quarantine', 'show', first.id)}`)
    return 0
  },
})
