import { required } from '../command/arguments.ts'
import { defineCommand } from '../command/command.ts'
import { writeSubscription } from '../views/subscription-page.ts'

export const subscriptionsShow = defineCommand({
  examples: [['subscriptions show ledger', 'what it gets, whether it is held, and its options']],
  args: { name: required('The subscription') },
  async run({ args, bus, output }) {
    const { subscriptions } = await bus()
    const info = await subscriptions.get(args.name)
    output.object(info, () => writeSubscription(output, info))
    return 0
  },
})
