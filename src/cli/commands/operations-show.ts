import { required } from '../command/arguments.ts'
import { defineCommand } from '../command/command.ts'
import { writeOperation } from '../views/operation-page.ts'

export const operationsShow = defineCommand({
  examples: [['operations show 0192f7c1-6d2e-7c3a-9a41-2b7f0e6d9c10', 'how far it is, and why it stopped']],
  args: { id: required('The id of the operation') },
  async run({ args, bus, output }) {
    const { operations } = await bus()
    const operation = await operations.get(args.id)
    output.object(operation, () => writeOperation(output, operation))
    const { id, state } = operation
    const steps = { running: ['hold'], paused: ['resume', 'cancel'], stopped: ['resume', 'cancel'] }
    const next = state === 'done' || state === 'cancelled' ? [] : steps[state]
    if (next.length > 0)
      output.note(`Next: ${next.map((step) => output.command('operations', step, id)).join(', or ')}`)
    // It waits for a person.
    return state === 'stopped' ? 1 : 0
  },
})
