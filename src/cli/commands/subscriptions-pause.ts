import { required } from '../command/arguments.ts'
import { defineCommand } from '../command/command.ts'
import { changeFlags } from '../command/shared-flags.ts'

export const subscriptionsPause = defineCommand({
  examples: [["subscriptions pause ledger --reason 'a deployment'", 'in every process; its events wait']],
  notes: [
    'Running handlers finish. It stays paused until it is resumed, also across restarts. `subscriptions set --paused --until` ends by itself.',
  ],
  args: { name: required('The subscription') },
  flags: changeFlags,
  async run({ args, flags, bus, output, actor }) {
    const { subscriptions } = await bus()
    const before = await subscriptions.get(args.name)
    const isDryRun = flags['dry-run']
    const changed = isDryRun
      ? before.pause === undefined || before.overrides?.paused === true
      : await subscriptions.pause(args.name, actor())
    const subscription = isDryRun ? before : await subscriptions.get(args.name)
    output.object({ ...(isDryRun ? { dryRun: true } : {}), changed, subscription }, () =>
      output.line(
        isDryRun
          ? `${before.name} is ${before.state}: ${changed ? 'it would be paused' : 'nothing would be changed'}.`
          : changed
            ? `Paused ${before.name}: its events wait.`
            : `${before.name} was paused already: nothing was changed.`,
      ),
    )
    if (!isDryRun) output.note(`Next: ${output.command('subscriptions', 'resume', before.name)}`)
    return 0
  },
})
