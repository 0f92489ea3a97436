import { conditionsOf, deadLetterFlags, typeFlag } from '../command/dead-letter-flags.ts'
import { defineCommand } from '../command/command.ts'
import { text } from '../command/flags.ts'
import { pageFlags } from '../command/shared-flags.ts'
import { UsageError } from '../command/usage-error.ts'
import { state } from '../output/styled.ts'
import { resolveGroup } from '../views/resolve-group.ts'
import { errorText } from '../views/event-timeline.ts'

export const deadLettersList = defineCommand({
  examples: [
    ['dead-letters list --subscription ledger', 'oldest first'],
    ['dead-letters list --group 4f1c0d9a --json | jq -r .id', 'the events of one error'],
  ],
  notes: ['Payloads are not shown: `events show` does.'],
  flags: {
    ...deadLetterFlags,
    ...typeFlag,
    replay: text('<id>', 'Those that failed in this replay, by its operation, in place of the others'),
    ...pageFlags,
  },
  async run({ flags, bus, output, nextPage }) {
    const open = await bus()
    const { deadLetters } = open
    const { type, limit, after, replay: replayId } = flags
    // Those of replays are in no group that could be looked up.
    if (replayId !== undefined && flags.group !== undefined && !/^[0-9a-f]{16}$/.test(flags.group))
      throw new UsageError('Expected all 16 characters of a group together with --replay')
    const group =
      replayId === undefined
        ? await resolveGroup(open, flags.group, output.command('dead-letters', 'groups'))
        : flags.group
    const rows = await deadLetters.list({
      ...conditionsOf({ ...flags, group }),
      ...{ type: type.length === 0 ? undefined : type, replayId, limit, after },
    })
    output.list(
      rows,
      [
        { title: 'ID', value: ({ id }) => id, isWhole: true },
        { title: 'SUBSCRIPTION', value: ({ subscription }) => subscription, isWhole: true },
        { title: 'TYPE', value: (row) => row.type, isWhole: true },
        { title: 'TENANT', value: ({ tenantId }) => tenantId },
        { title: 'STATE', value: (row) => state(row.state) },
        { title: 'ATTEMPTS', value: ({ attempts }) => attempts, align: 'right' },
        { title: 'DEAD', value: ({ deadAt }) => deadAt },
        { title: 'GROUP', value: ({ fingerprint }) => fingerprint, isWhole: true },
        {
          title: 'ERROR',
          isProse: true,
          value: ({ failures }) => {
            const last = failures.at(-1)
            return last === undefined ? '' : errorText(last)
          },
        },
      ],
      type.length === 0
        ? 'There are no such dead letters.'
        : `There are no such dead letters among the first 10,000${after === undefined ? '' : ' from there on'}.`,
    )
    const last = rows.at(-1)
    // With a type, a page may be short because few of the dead letters that were read have it.
    if (last !== undefined && (rows.length === limit || type.length > 0)) nextPage(last.cursor)
    return 0
  },
})
