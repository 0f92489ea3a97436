import { required } from '../command/arguments.ts'
import { defineCommand } from '../command/command.ts'
import { commandLine } from '../command/command-line.ts'
import { text, toggle } from '../command/flags.ts'
import { changeFlags } from '../command/shared-flags.ts'
import { UsageError } from '../command/usage-error.ts'

/** Keys that are looked through for the one that is named. */
const maxKeys = 1000

export const keysRelease = defineCommand({
  examples: [
    [
      'keys release ledger --tenant nordwind --key account-7',
      'tries the failed event again, then the others',
    ],
    ['keys release ledger --tenant nordwind --key account-7 --skip', 'goes on behind the failed event'],
  ],
  args: { subscription: required('The subscription whose key it is') },
  flags: {
    tenant: text('<id>', 'The tenant of the key'),
    key: text('<key>', 'The ordering key'),
    skip: toggle('Skips the failed event: it stays a dead letter'),
    ...changeFlags,
  },
  async run({ args, flags, bus, output, confirm, actor }) {
    const { subscription } = args
    const { tenant: tenantId, key: orderingKey, skip: skipFailed } = flags
    if (tenantId === undefined || orderingKey === undefined)
      throw new UsageError('Say which key: --tenant <id> --key <key>. See: bossbus keys list')
    const { blockedKeys, subscriptions } = await bus()
    // Says so if there is no such subscription.
    await subscriptions.get(subscription)
    const waiting = (await blockedKeys.list({ subscription, limit: maxKeys })).find(
      (each) => each.tenantId === tenantId && each.orderingKey === orderingKey,
    )
    const behind = waiting?.waitingCount
    const isDryRun = flags['dry-run']
    if (isDryRun) {
      const may = waiting !== undefined && waiting.state !== 'overrunning'
      output.object({ dryRun: true, released: may, key: waiting }, () =>
        output.line(
          waiting === undefined
            ? `The key is not among the first ${maxKeys} that wait.`
            : may
              ? `The key is ${waiting.state}: event ${waiting.id} would be ${skipFailed ? 'skipped' : 'tried again'}, then ${behind} behind it.`
              : 'The key waits for a handler that runs, and not for a person.',
        ),
      )
      return may ? 0 : 1
    }
    if (waiting !== undefined)
      await confirm({
        what: `${skipFailed ? 'Skip' : 'Try'} event ${waiting.id}${skipFailed ? '' : ' again'}, then deliver ${behind} behind it`,
      })
    const released = await blockedKeys.release({
      ...{ subscription, tenantId, orderingKey, skipFailed, ...actor() },
    })
    output.object({ released }, () =>
      output.line(
        released
          ? `Released: ${skipFailed ? 'the events behind the failed one are' : 'the failed event is tried again, and the others are'} delivered in their order.`
          : 'Nothing was changed: the key waits for no person.',
      ),
    )
    if (waiting !== undefined && released)
      output.note(`Next: ${commandLine('explain', waiting.id, subscription)}`)
    return released ? 0 : 1
  },
})
