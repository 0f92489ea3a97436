import type { ReplayPreview, ReplaySelection } from '../../operations/replay/replay.ts'
import { several } from '../command/arguments.ts'
import { defineCommand } from '../command/command.ts'
import { eventTypes, integer, text, texts, time, toggle } from '../command/flags.ts'
import { changeFlags, waitFlag } from '../command/shared-flags.ts'
import { UsageError } from '../command/usage-error.ts'
import { counted } from '../output/cells.ts'
import type { Output } from '../output/output.ts'
import { noteNearTypes } from '../views/near-types.ts'
import { findEventId } from '../views/find-event-id.ts'
import { reportStarted } from '../views/start-operation.ts'

export const replay = defineCommand({
  examples: [
    ["replay --subscription ledger --type 'payment.*' --from 2026-11-01 --dry-run", 'what it would deliver'],
    ['replay --subscription ledger --tenant nordwind --from 2h --rate 100 --wait', '100 events a second'],
    ['replay paid-42 --subscription mail', 'one event, by its id or business id'],
  ],
  notes: [
    `Delivers events of the log to the named subscriptions once more; live events come first. Left out are events that were erased or
cancelled, that a subscription still waits for, or that are its dead letters: those are redriven. \`operations\` shows, holds and cancels it.`,
  ],
  args: { id: several('Ids of events, or what `bus.lookup` finds them by') },
  flags: {
    subscription: texts('<name>', 'Who gets them'),
    tenant: text('<id>', 'Of this tenant'),
    type: eventTypes('Of this type, or matching a pattern like payment.*'),
    from: time('Published then or later'),
    to: time('Published before'),
    correlation: text('<id>', 'Of this correlation; with --tenant'),
    subject: text('<subject>', 'What they are about; with --tenant'),
    all: toggle('All events of the log'),
    rate: integer('<n>', 'Events a second, at most', { min: 1, max: 100_000 }),
    ...waitFlag,
    ...changeFlags,
  },
  isLong: true,
  async run(context) {
    const { args, flags, bus, output, inTime, confirm, actor } = context
    const { subscription: subscriptions, type, rate } = flags
    if (subscriptions.length === 0) throw new UsageError('Say who gets the events: --subscription <name>')
    const filter: ReplaySelection = {
      ...{ tenantId: flags.tenant, from: flags.from, to: flags.to },
      type: type.length === 0 ? undefined : type,
      ...{ correlationId: flags.correlation, subject: flags.subject },
    }
    const isFiltered = Object.values(filter).some((value) => value !== undefined)
    if (!isFiltered && args.id.length === 0 && !flags.all)
      throw new UsageError('Say which events: ids, --type, --tenant, --from or another filter, or --all')
    if (args.id.length > 0 && flags.all) throw new UsageError('Give either ids or --all')
    const open = await inTime(bus())
    const ids: string[] = []
    for (const each of args.id) {
      const id = await inTime(findEventId(open, each, output))
      if (id === undefined) return 1
      ids.push(id)
    }
    const selection = {
      ...filter,
      ...(flags.all && flags.from === undefined ? { from: new Date(0) } : {}),
      ...(ids.length === 0 ? {} : { ids }),
      ...{ subscriptions, rate },
    }
    const preview = await inTime(open.replay({ ...selection, dryRun: true }))
    const deliveries = deliveriesOf(preview)
    if (flags['dry-run'] || deliveries === 0) {
      output.object(preview, () => writePreview(output, preview, flags['dry-run']))
      if (preview.eventCount === 0) await noteNearTypes(context, type)
      return 0
    }
    const to = `to ${subscriptions.join(', ')}`
    await confirm({
      what: `Replay ${counted(preview.eventCount, 'event', preview.isPartial)} ${to}: ${counted(deliveries, 'delivery', preview.isPartial)}`,
    })
    const operation = await inTime(open.replay({ ...selection, ...actor() }))
    return reportStarted(context, open, operation, flags.wait)
  },
})

function deliveriesOf({ subscriptions }: ReplayPreview): number {
  return subscriptions.reduce((sum, { hadCount, neverHadCount }) => sum + hadCount + neverHadCount, 0)
}

function writePreview(output: Output, preview: ReplayPreview, isDryRun: boolean): void {
  const { eventCount, isPartial, subscriptions } = preview
  output.line(
    eventCount === 0
      ? 'No event is like that.'
      : `${counted(eventCount, 'event', isPartial)} ${eventCount === 1 ? 'is' : 'are'} selected${isDryRun ? '' : ', and none of them would be delivered'}.`,
  )
  output.line()
  output.table(subscriptions, [
    { title: 'SUBSCRIPTION', value: ({ subscription }) => subscription, isWhole: true },
    { title: 'REPLAYED', value: (each) => each.hadCount + each.neverHadCount, align: 'right' },
    { title: 'NEVER HAD', value: ({ neverHadCount }) => neverHadCount, align: 'right' },
    { title: 'WAITING', value: ({ waitingCount }) => waitingCount, align: 'right' },
    { title: 'DEAD', value: ({ deadCount }) => deadCount, align: 'right' },
    { title: 'NOT ROUTED', value: ({ filteredCount }) => filteredCount, align: 'right' },
  ])
}
