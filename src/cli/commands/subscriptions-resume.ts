import { required } from '../command/arguments.ts'
import { defineCommand } from '../command/command.ts'
import { changeFlags } from '../command/shared-flags.ts'

export const subscriptionsResume = defineCommand({
  examples: [['subscriptions resume ledger', 'one that was paused, or whose circuit breaker is open']],
  args: { name: required('The subscription') },
  flags: changeFlags,
  async run({ args, flags, bus, output, actor }) {
    const { subscriptions } = await bus()
    const before = await subscriptions.get(args.name)
    const isDryRun = flags['dry-run']
    const isHeld = before.state === 'paused' || before.circuit !== undefined
    const changed = isDryRun ? isHeld : await subscriptions.resume(args.name, actor())
    const subscription = isDryRun ? before : await subscriptions.get(args.name)
    output.object({ ...(isDryRun ? { dryRun: true } : {}), changed, subscription }, () =>
      output.line(
        isDryRun
          ? `${before.name} is ${before.state}: ${changed ? 'it would be resumed' : 'nothing would be changed'}.`
          : changed
            ? `Resumed ${before.name}.`
            : `${before.name} was neither paused nor halted: nothing was changed.`,
      ),
    )
    if (changed && !isDryRun) {
      if (subscription.instanceCount === 0)
        output.note('No process runs it now: its events wait until one does.')
      output.note(`Next: ${output.command('subscriptions', 'show', before.name)}`)
    }
    return 0
  },
})
