import type { HistoryEvent } from '../../operations/history-event.ts'
import type { TraceNode } from '../../operations/event-trace.ts'
import { required } from '../command/arguments.ts'
import { defineCommand } from '../command/command.ts'
import { integer, text } from '../command/flags.ts'

/** An event of the tree, and how many causes are above it. */
type TraceRow = HistoryEvent & { readonly depth: number; readonly cause: TraceNode['cause'] }

/** Deeper ones are no further indented. */
const maxIndent = 12

export const eventsTrace = defineCommand({
  examples: [
    ['events trace 0192f7c1-6d2e-7c3a-9a41-2b7f0e6d9c10', 'the events that it belongs with'],
    ['events trace order-42', 'a correlation'],
  ],
  args: { id: required('A correlation, or the id of an event') },
  flags: {
    tenant: text('<id>', 'Whose events these are: any correlation but an id is found faster with it'),
    limit: integer('<n>', 'Events at most, the first ones', { min: 1, max: 10_000, default: 1000 }),
  },
  notes: [
    'With --json each line is an event, with `depth` and `cause` (none, found, missing or circular) beside it.',
  ],
  async run({ args, flags, bus, output }) {
    const { events } = await bus()
    const tree = await events.traceTree(args.id, { limit: flags.limit, tenantId: flags.tenant })
    const rows = rowsOf(tree.roots)
    output.list(
      rows,
      [
        {
          title: 'EVENT',
          value: ({ type, depth, cause }) =>
            `${'  '.repeat(Math.min(depth, maxIndent))}${depth > 0 ? '└ ' : ''}${type}${cause === 'missing' ? ' (its cause is not in the log)' : cause === 'circular' ? ' (caused by its own effect)' : ''}`,
        },
        { title: 'ID', value: ({ id }) => id, isWhole: true },
        { title: 'TENANT', value: ({ tenantId }) => tenantId },
        { title: 'SUBJECT', value: ({ subject }) => subject },
        { title: 'PUBLISHED', value: ({ createdAt }) => createdAt },
      ],
      `No event belongs to ${args.id}.`,
    )
    if (tree.isPartial) output.note(`There are more events than ${flags.limit}: --limit shows up to 10,000.`)
    return rows.length === 0 ? 1 : 0
  },
})

/** Each event below its cause. Not recursive: a chain may be ten thousand events long. */
function rowsOf(roots: readonly TraceNode[]): readonly TraceRow[] {
  const rows: TraceRow[] = []
  const left = roots.toReversed().map((node) => ({ node, depth: 0 }))
  for (let next = left.pop(); next !== undefined; next = left.pop()) {
    const { node, depth } = next
    rows.push({ ...node.event, depth, cause: node.cause })
    left.push(...node.children.toReversed().map((child) => ({ node: child, depth: depth + 1 })))
  }
  return rows
}
