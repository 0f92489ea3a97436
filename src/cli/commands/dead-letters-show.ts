import type { RedriveOutcome } from '../../operations/dead-letters/inspect.ts'
import { optional, required } from '../command/arguments.ts'
import { defineCommand } from '../command/command.ts'
import { duration, isoTime } from '../output/cells.ts'
import { bold, quiet, red, state } from '../output/styled.ts'
import { errorText } from '../views/event-timeline.ts'
import { findLetter } from '../views/select-letters.ts'

const outcomes: Readonly<Record<RedriveOutcome, string>> = {
  retry: 'It would be tried again, with all its attempts.',
  'release-key': 'It would be tried again, and the events behind it would follow.',
  'append-to-key': 'It would be tried again after the events of its key that wait now.',
  expire: 'It would be recorded as expired, without its handler.',
  erase: 'It would be recorded as erased, without its handler.',
  'no-queue': 'It would be skipped: its queue does not exist.',
  'not-in-log': 'It would be skipped: the event is not in the log any more.',
}

export const deadLettersShow = defineCommand({
  examples: [
    ['dead-letters show 0192f7c1-6d2e-7c3a-9a41-2b7f0e6d9c10', 'its attempts, and what a redrive would do'],
    ['dead-letters show paid-42 ledger', 'by the business id of the event, of one subscription'],
  ],
  args: {
    id: required('The id of the event, or what `bus.lookup` finds it by'),
    subscription: optional('Where it is the dead letter of several'),
  },
  async run({ args, bus, output }) {
    const open = await bus()
    const named = await findLetter(open, output, args.id, args.subscription)
    if (named === undefined) return 1
    const letter = await open.deadLetters.get(named.id, named.subscription)
    if (letter === undefined) {
      output.note(
        `${named.id} is no dead letter of ${named.subscription}, or is parked behind another one. Next: ${output.command('explain', named.id)}`,
      )
      return 1
    }
    output.object(letter, () => {
      output.line(bold(letter.subscription), '  ', state(letter.state), '  ', letter.id)
      const key = letter.blockedKey
      const facts: readonly (readonly [string, string | undefined])[] = [
        ['type', letter.type],
        ['tenant', letter.tenantId],
        ['dead since', isoTime(letter.deadAt)],
        ['attempts', String(letter.attempts)],
        ['group', letter.fingerprint],
        ['key', key === undefined ? undefined : `${key.orderingKey} (${key.state})`],
        ['behind it', key === undefined ? undefined : String(letter.behindCount)],
      ]
      for (const [name, value] of facts) if (value !== undefined) output.line(quiet(name.padEnd(16)), value)
      output.heading('Attempts')
      output.table(letter.timeline, [
        { title: 'ATTEMPT', value: ({ attempt }) => attempt, align: 'right' },
        { title: 'ENDED', value: ({ endedAt }) => isoTime(endedAt), isWhole: true },
        {
          title: 'TOOK',
          value: ({ durationMs }) => (durationMs === undefined ? '' : duration(durationMs)),
          align: 'right',
        },
        {
          title: 'ERROR',
          isProse: true,
          value: ({ succeeded, error }) =>
            succeeded ? 'succeeded' : red(error === undefined ? 'failed' : errorText(error)),
        },
      ])
      output.heading('A redrive')
      output.line(outcomes[letter.redrive])
    })
    output.note(
      `Next: ${output.command('dead-letters', 'redrive', letter.id, ['--subscription', letter.subscription])}`,
    )
    return 0
  },
})
