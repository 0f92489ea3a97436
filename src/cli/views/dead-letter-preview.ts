import type { DeadLetterPreview } from '../../operations/dead-letters/preview.ts'
import { count, counted } from '../output/cells.ts'
import type { Output } from '../output/output.ts'
import { quiet, yellow } from '../output/styled.ts'

/** What an act on dead letters would be about. */
export function writePreview(
  output: Output,
  preview: DeadLetterPreview,
  { isRedrive, isDryRun }: { readonly isRedrive: boolean; readonly isDryRun: boolean },
): void {
  const done = isRedrive ? 'redriven' : 'discarded'
  output.line(
    isDryRun
      ? `${lettersOf(preview)} would be ${done}.`
      : `There are no such dead letters: nothing was ${done}.`,
  )
  if (preview.count === 0) return
  output.heading('Subscriptions')
  output.table(preview.subscriptions, [
    { title: 'SUBSCRIPTION', value: ({ subscription }) => subscription ?? quiet('removed'), isWhole: true },
    { title: 'EVENTS', value: (each) => each.count, align: 'right' },
    { title: 'KEYS', value: ({ keyCount }) => keyCount, align: 'right' },
  ])
  if (!isRedrive) return
  const { unroutable, notHandled, examinedCount } = preview
  const skipped = [
    ['subscription removed', unroutable.noSubscription],
    ['no queue', unroutable.noQueue],
    ['not in the log', unroutable.notInLog],
    ['redriven or deleted in pg-boss', unroutable.moved],
    ['expired', notHandled.expired],
    ['erased', notHandled.erased],
  ] as const
  if (skipped.every(([, events]) => events === 0)) return
  output.heading(`No handler gets these, of the first ${count(examinedCount)}`)
  output.table(
    skipped.filter(([, events]) => events > 0),
    [
      { title: 'WHY', value: ([why]) => why, isProse: true },
      { title: 'EVENTS', value: ([, events]) => yellow(String(events)), align: 'right' },
    ],
  )
}

/** `1,284 dead letters` */
function lettersOf({ count: events, isCountPartial }: DeadLetterPreview): string {
  return counted(events, 'dead letter', isCountPartial)
}

/** `Redrive 1,284 dead letters of ledger` */
export function questionOf(verb: string, preview: DeadLetterPreview): string {
  const names = preview.subscriptions.flatMap(({ subscription }) => subscription ?? [])
  const shown = names.length > 3 ? [...names.slice(0, 3), `${names.length - 3} more`] : names
  return `${verb} ${lettersOf(preview)}${shown.length === 0 ? '' : ` of ${shown.join(', ')}`}`
}
