import { required } from '../command/arguments.ts'
import { defineCommand } from '../command/command.ts'
import { text, toggle } from '../command/flags.ts'
import { changeFlags } from '../command/shared-flags.ts'
import { UsageError } from '../command/usage-error.ts'

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
  isLong: true,
  async run({ args, flags, bus, output, inTime, confirm, actor }) {
    const { subscription } = args
    const { tenant: tenantId, key: orderingKey, skip: skipFailed } = flags
    if (tenantId === undefined || orderingKey === undefined)
      throw new UsageError(`Say which key: --tenant <id> --key <key>. See: ${output.command('keys', 'list')}`)
    const { blockedKeys, subscriptions } = await inTime(bus())
    // Says so if there is no such subscription.
    await inTime(subscriptions.get(subscription))
    const [waiting] = await inTime(blockedKeys.list({ subscription, tenantId, orderingKey, limit: 1 }))
    const behind = waiting?.waitingCount
    const may = waiting !== undefined && waiting.state !== 'overrunning'
    if (flags['dry-run']) {
      output.object({ dryRun: true, released: may, key: waiting }, () =>
        output.line(
          waiting === undefined
            ? 'The key does not wait: nothing would be changed.'
            : may
              ? `The key is ${waiting.state}: event ${waiting.id} would be ${skipFailed ? 'skipped' : 'tried again'}, then ${behind} behind it.`
              : 'The key waits for a handler that runs, and not for a person.',
        ),
      )
      return may ? 0 : 1
    }
    if (may)
      await confirm({
        what: `${skipFailed ? 'Skip' : 'Try'} event ${waiting.id}${skipFailed ? '' : ' again'}, then deliver ${behind} behind it`,
      })
    // Nothing is released that nobody was asked about.
    const released =
      may &&
      (await inTime(
        blockedKeys.release({ ...{ subscription, tenantId, orderingKey, skipFailed, ...actor() } }),
      ))
    output.object({ released }, () =>
      output.line(
        released
          ? `Released: ${skipFailed ? 'the events behind the failed one are' : 'the failed event is tried again, and the others are'} delivered in their order.`
          : 'Nothing was changed: the key waits for no person.',
      ),
    )
    if (may && released) output.note(`Next: ${output.command('explain', waiting.id, subscription)}`)
    return released ? 0 : 1
  },
})
