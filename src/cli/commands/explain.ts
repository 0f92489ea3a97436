import { optional, required } from '../command/arguments.ts'
import { defineCommand } from '../command/command.ts'
import { bold, quiet, state } from '../output/styled.ts'
import { findEventId } from '../views/find-event-id.ts'

export const explain = defineCommand({
  examples: [
    ['explain 0192f7c1-6d2e-7c3a-9a41-2b7f0e6d9c10', 'for every subscription'],
    ['explain paid-42 ledger', 'for one, by its business id'],
  ],
  args: {
    id: required('The id of an event, or what `bus.lookup` finds it by'),
    subscription: optional('Only for this one'),
  },
  async run({ args, bus, output }) {
    const open = await bus()
    const id = await findEventId(open, args.id, output)
    if (id === undefined) return 1
    const explanation = await open.explain(id, args.subscription)
    output.object(explanation, () => {
      output.line(explanation.sentence)
      if (explanation.subscriptions.length === 0) return
      if (output.isTerminal) {
        // In full: it is the answer.
        for (const { subscription, state: name, sentence, also } of explanation.subscriptions) {
          output.line()
          output.line(bold(subscription), '  ', name === undefined ? quiet('not routed') : state(name))
          output.line('  ', sentence)
          if (also.length > 0)
            output.line('  ', quiet(`Besides: ${also.map(({ reason }) => reason).join(', ')}.`))
        }
        return
      }
      output.line()
      output.table(explanation.subscriptions, [
        { title: 'SUBSCRIPTION', value: ({ subscription }) => subscription, isWhole: true },
        {
          title: 'STATE',
          value: (each) => (each.state === undefined ? quiet('not routed') : state(each.state)),
        },
        { title: 'WHY', value: ({ sentence }) => sentence, isProse: true },
        { title: 'BESIDES', value: ({ also }) => also.map(({ reason }) => reason), isProse: true },
      ])
    })
    return explanation.isInLog ? 0 : 1
  },
})
