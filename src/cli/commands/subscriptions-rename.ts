import { ConfigurationError } from '../../foundation/errors.ts'
import { required } from '../command/arguments.ts'
import { defineCommand } from '../command/command.ts'
import { counted } from '../output/cells.ts'
import { changeFlags } from '../command/shared-flags.ts'

export const subscriptionsRename = defineCommand({
  examples: [['subscriptions rename ledger accounts', 'then start the code with the new name']],
  notes: [
    'No process may serve it meanwhile. Its receipts, what waits, its dead letters, pauses and blocked keys stay with it.',
  ],
  args: { name: required('The subscription'), 'new-name': required('Its new name') },
  flags: changeFlags,
  async run({ args, flags, bus, output, actor }) {
    const { subscriptions } = await bus()
    const { name, 'new-name': newName } = args
    const before = await subscriptions.get(name)
    const isTaken = (await subscriptions.list()).some((each) => each.name === newName)
    if (flags['dry-run']) {
      const may = !isTaken && before.instanceCount === 0
      output.object({ dryRun: true, changed: may, subscription: before }, () =>
        output.line(
          isTaken
            ? `There is a subscription ${newName} already: nothing would be changed.`
            : before.instanceCount > 0
              ? `${name} is served by ${counted(before.instanceCount, 'process')}, which must be stopped first: nothing would be changed.`
              : `${name} would be renamed to ${newName}, with what waits for it.`,
        ),
      )
      return may ? 0 : 1
    }
    if (isTaken)
      throw new ConfigurationError(
        'BUS_SUBSCRIPTION_TAKEN',
        `There is a subscription ${newName} already: give another <new-name>, such as ${newName}-2. See: ${output.command('subscriptions', 'list')}`,
      )
    await subscriptions.rename(name, newName, actor())
    const subscription = await subscriptions.get(newName)
    output.object({ changed: true, subscription }, () => output.line(`Renamed ${name} to ${newName}.`))
    output.note(
      `Next: start the code with the new name. ${output.command('subscriptions', 'show', newName)} tells whether a process runs it.`,
    )
    return 0
  },
})
