import { BusError, ConfigurationError } from '../../foundation/errors.ts'
import type { RemoveOptions, Subscriptions } from '../../operations/subscriptions.ts'
import { required } from '../command/arguments.ts'
import { defineCommand } from '../command/command.ts'
import { text, toggle } from '../command/flags.ts'
import { changeFlags, confirmFlag, waitFlag } from '../command/shared-flags.ts'
import { UsageError } from '../command/usage-error.ts'
import { counted } from '../output/cells.ts'
import { reportStarted } from '../views/start-operation.ts'

export const subscriptionsRemove = defineCommand({
  examples: [
    ['subscriptions remove ledger', 'one for which nothing waits, and that no process serves'],
    ['subscriptions remove ledger --move-to accounts', 'hands what waits to another one'],
    [
      'subscriptions remove ledger --discard --confirm ledger',
      'deletes what waits; the log keeps the events',
    ],
  ],
  args: { name: required('The subscription') },
  flags: {
    discard: toggle('Deletes what waits and the dead letters'),
    'move-to': text('<name>', 'Hands what waits and the dead letters to this subscription'),
    ...waitFlag,
    ...changeFlags,
    ...confirmFlag,
  },
  isLong: true,
  async run(context) {
    const { args, flags, bus, output, inTime, confirm, actor } = context
    const { discard, 'move-to': moveTo } = flags
    if (discard && moveTo !== undefined) throw new UsageError('Give either --discard or --move-to')
    const open = await inTime(bus())
    const { subscriptions, queries } = open
    const info = await inTime(subscriptions.get(args.name))
    if (moveTo !== undefined) await inTime(subscriptions.get(moveTo))
    const [depth] = await inTime(queries.depth({ subscription: info.name }))
    const deadCount = depth?.deadEvents ?? 0
    const waiting = counted(info.waitingCount, 'waiting event', info.isWaitingCountPartial)
    const what = `${waiting} and ${counted(deadCount, 'dead letter')}`
    const isEmpty = info.waitingCount + deadCount === 0
    const becomes = discard ? 'are deleted' : moveTo === undefined ? 'prevent it' : `are handed to ${moveTo}`
    if (flags['dry-run']) {
      const problem =
        info.instanceCount === 0 && moveTo !== undefined
          ? await inTime(problemOf(subscriptions, info.name, { ...actor(), waiting: { moveTo } }))
          : undefined
      const may =
        info.instanceCount === 0 && problem === undefined && (isEmpty || discard || moveTo !== undefined)
      output.object({ dryRun: true, changed: may, subscription: info, deadCount, problem }, () => {
        output.line(`${info.name} has ${what}${isEmpty ? '' : `, which ${becomes}`}.`)
        if (info.instanceCount > 0)
          output.line(
            `It is served by ${counted(info.instanceCount, 'process')}, which must be stopped first.`,
          )
        if (problem !== undefined) output.line(`${problem}.`)
        output.line(may ? 'It would be removed.' : 'Nothing would be changed.')
      })
      if (!may && !isEmpty && !discard && moveTo === undefined)
        output.note('Say what becomes of them: --discard or --move-to <name>.')
      return may ? 0 : 1
    }
    if (!isEmpty && !discard && moveTo === undefined)
      throw new ConfigurationError(
        'BUS_SUBSCRIPTION_NOT_EMPTY',
        `${info.name} has ${what}. Say what becomes of them: --discard deletes them, --move-to hands them to another subscription, such as --move-to accounts`,
      )
    await confirm({
      what: `Remove ${info.name}, with ${what}${isEmpty ? '' : `, which ${becomes}`}`,
      name: info.name,
    })
    const operation = await inTime(
      subscriptions.remove(info.name, {
        ...actor(),
        waiting: moveTo === undefined ? (discard ? 'discard' : 'refuse') : { moveTo },
      }),
    )
    return reportStarted(context, open, operation, flags.wait)
  },
})

/** Why the other subscription may not get the events. */
async function problemOf(
  subscriptions: Subscriptions,
  name: string,
  options: RemoveOptions,
): Promise<string | undefined> {
  try {
    await subscriptions.remove(name, { ...options, dryRun: true })
    return undefined
  } catch (error) {
    if (error instanceof BusError && error.code === 'BUS_SUBSCRIPTION_NOT_COVERING') return error.message
    throw error
  }
}
