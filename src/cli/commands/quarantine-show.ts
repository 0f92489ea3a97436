import { required } from '../command/arguments.ts'
import { defineCommand } from '../command/command.ts'
import { integer } from '../command/flags.ts'
import { isoTime } from '../output/cells.ts'
import { bold, quiet, state } from '../output/styled.ts'

export const quarantineShow = defineCommand({
  examples: [
    ['quarantine show 0192f7c1-6d2e-7c3a-9a41-2b7f0e6d9c10', 'why it is here, its headers and its body'],
  ],
  args: { id: required('The id of the message in the quarantine: `quarantine list` has it') },
  flags: {
    bytes: integer('<n>', 'Bytes of the body', { min: 0, max: 16_777_216, default: 4096 }),
  },
  async run({ args, flags, bus, output }) {
    const { quarantine } = await bus()
    const found = await quarantine.get(args.id)
    if (found === undefined) {
      output.note(`There is no message ${args.id} in the quarantine.`)
      return 1
    }
    const { body, ...message } = found
    const shown = Buffer.from(body.subarray(0, flags.bytes))
    output.object({ ...message, bodyBase64: shown.toString('base64') }, () => {
      output.line(bold(message.receiver), '  ', state(message.state), '  ', message.id)
      const facts: readonly (readonly [string, string | undefined])[] = [
        ['reason', `${message.code}: ${message.reason}`],
        ['from', message.from],
        ['message', message.messageId ?? 'without an id'],
        ['key', message.key],
        ['type', message.contentType],
        [
          'received',
          `${isoTime(message.receivedAt)}, ${message.receivedCount} times, last ${isoTime(message.lastReceivedAt)}`,
        ],
        [
          'decided by',
          message.decidedBy === undefined
            ? undefined
            : `${message.decidedBy}: ${message.decidedReason ?? 'no reason given'}`,
        ],
        ['events', message.eventIds.length === 0 ? undefined : message.eventIds.join(', ')],
      ]
      for (const [name, value] of facts) if (value !== undefined) output.line(quiet(name.padEnd(16)), value)
      output.heading('Headers')
      output.table(Object.entries(message.headers), [
        { title: 'NAME', value: ([name]) => name },
        { title: 'VALUE', value: ([, value]) => value },
      ])
      output.heading(`Body: ${message.bodyBytes} bytes`)
      output.line(shown.toString('utf8'))
    })
    if (shown.length < message.bodyBytes)
      output.note(`The first ${shown.length} of ${message.bodyBytes} bytes are shown: --bytes <n>`)
    if (message.state === 'new' || message.state === 'discarded')
      output.note(`Next: ${output.command('quarantine', 'retry', message.id)}`)
    return 0
  },
})
