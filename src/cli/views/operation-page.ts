import { jsonText } from '../output/json-text.ts'
import type { Output } from '../output/output.ts'
import { bold, quiet, red, state } from '../output/styled.ts'
import type { Column } from '../output/table.ts'
import { counted, isoTime } from '../output/cells.ts'
import type { Operation } from '../../operations/operation.ts'

/** The columns of a list of operations. */
export const operationColumns: readonly Column<Operation>[] = [
  { title: 'ID', value: ({ id }) => id, isWhole: true },
  { title: 'KIND', value: ({ kind }) => kind },
  { title: 'STATE', value: ({ state: name }) => state(name) },
  { title: 'SUBSCRIPTIONS', value: (each) => each.subscriptions, isWhole: true },
  { title: 'DONE', value: doneOf, align: 'right' },
  { title: 'OF', value: totalOf, align: 'right' },
  { title: 'BY', value: ({ by }) => by },
  { title: 'SINCE', value: ({ createdAt }) => createdAt },
  { title: 'WHY', value: ({ stateReason, reason }) => stateReason ?? reason, isProse: true },
]

/** Events of it that are done with, one way or the other. */
export function doneOf({ kind, counts }: Operation): number {
  const sum = (names: readonly string[]): number =>
    names.reduce((total, name) => total + (counts[name] ?? 0), 0)
  // The events of a replay are done when they are delivered, and not when they are in a queue.
  if (kind === 'replay') return sum(['delivered', 'expired', 'dead'])
  if (kind === 'catch-up') return sum(['enqueued'])
  return sum(Object.keys(counts).filter((name) => name !== 'probesFailed'))
}

/** Events that it is about, as far as that is known. */
export function totalOf({ kind, totalCount, counts, expected }: Operation): number | undefined {
  if (kind === 'replay') return counts['enqueued']
  if (kind !== 'remove') return totalCount
  const { waiting, dead } = expected ?? {}
  return typeof waiting === 'number' && typeof dead === 'number' ? waiting + dead : undefined
}

/** An operation for a person: what it does, for whom, how far it is. */
export function writeOperation(output: Output, operation: Operation): void {
  const { id, kind, subscriptions, counts, error } = operation
  output.line(bold(kind), '  ', state(operation.state), '  ', id)
  const time = (at: Date | undefined): string | undefined => (at === undefined ? undefined : isoTime(at))
  const facts: readonly (readonly [string, string | undefined])[] = [
    ['subscriptions', subscriptions.join(', ')],
    ['by', operation.by],
    ['reason', operation.reason],
    ['state by', operation.stateBy],
    ['because', operation.stateReason],
    ['selection', jsonText(operation.selection)],
    [
      'rate',
      operation.rate === undefined ? undefined : `${counted(operation.rate, 'event')} a second at most`,
    ],
    ['began', time(operation.createdAt)],
    ['changed', time(operation.updatedAt)],
    ['ended', time(operation.finishedAt)],
  ]
  for (const [name, value] of facts)
    if (value !== undefined && value !== '') output.line(quiet(name.padEnd(16)), value)
  const total = totalOf(operation)
  if (total !== undefined) output.line(quiet('done'.padEnd(16)), `${doneOf(operation)} of ${total}`)
  if (error !== undefined) output.line(quiet('last error'.padEnd(16)), red(error))
  if (Object.keys(counts).length === 0) return
  output.heading('Counts')
  output.table(Object.entries(counts), [
    { title: 'WHAT', value: ([name]) => name, isProse: true },
    { title: 'EVENTS', value: ([, count]) => count, align: 'right' },
  ])
}
