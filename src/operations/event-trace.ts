import type { HistoryEvent } from './history-event.ts'

/** The events that belong together, each below the event that caused it. */
export interface TraceTree {
  /** Those that nothing among these events has caused, in publish order. */
  readonly roots: readonly TraceNode[]
  readonly eventCount: number
  /** There are more events than were read. */
  readonly isPartial: boolean
}

export interface TraceNode {
  readonly event: HistoryEvent
  /**
   * `'none'`: it names no cause. `'found'`: it is below its cause. `'missing'`: its cause is not among these events. `'circular'`: its cause
   * is one of its own effects, which only plain SQL can publish; the tree is cut there.
   */
  readonly cause: 'none' | 'found' | 'missing' | 'circular'
  /** In publish order. */
  readonly children: readonly TraceNode[]
}

interface GrowingNode extends TraceNode {
  cause: TraceNode['cause']
  readonly children: GrowingNode[]
}

/** Builds the tree of events in publish order. Any causes are accepted: of other correlations, of none, of each other in a circle. */
export function toTree(events: readonly HistoryEvent[], isPartial: boolean): TraceTree {
  const nodes = new Map<string, GrowingNode>(
    events.map((event) => [event.id, { event, cause: 'none', children: [] }]),
  )
  const roots: GrowingNode[] = []
  for (const node of nodes.values()) {
    const { causationId } = node.event
    const parent = causationId === undefined ? undefined : nodes.get(causationId)
    if (parent === undefined) {
      node.cause = causationId === undefined ? 'none' : 'missing'
      roots.push(node)
    } else {
      node.cause = 'found'
      parent.children.push(node)
    }
  }
  const reached = new Set<GrowingNode>()
  const reach = (root: GrowingNode): void => {
    // Not recursive: a chain may be ten thousand events long.
    const left = [root]
    for (let node = left.pop(); node !== undefined; node = left.pop()) {
      reached.add(node)
      left.push(...node.children)
    }
  }
  for (const root of roots) reach(root)
  for (const node of nodes.values()) {
    if (reached.has(node)) continue
    // Its causes lead into a circle, which is cut before its first event.
    const circle = circleAbove(node, nodes)
    const parent = nodes.get(circle.event.causationId ?? '')
    parent?.children.splice(parent.children.indexOf(circle), 1)
    circle.cause = 'circular'
    roots.push(circle)
    reach(circle)
  }
  return {
    roots: roots.toSorted((a, b) => (a.event.id < b.event.id ? -1 : 1)),
    eventCount: events.length,
    isPartial,
  }
}

/** The first event of the circle that the causes of an event lead into. */
function circleAbove(node: GrowingNode, nodes: ReadonlyMap<string, GrowingNode>): GrowingNode {
  const causeOf = (each: GrowingNode): GrowingNode => nodes.get(each.event.causationId ?? '') ?? each
  const above = new Set<GrowingNode>()
  let next = node
  for (; !above.has(next); next = causeOf(next)) above.add(next)
  let first = next
  for (let each = causeOf(next); each !== next; each = causeOf(each))
    if (each.event.id < first.event.id) first = each
  return first
}

/** Ids are ordered by publish time, and a cause is published before its effect, unless a clock was set back in between. */
export function inCausalOrder(events: readonly HistoryEvent[]): HistoryEvent[] {
  const left = new Map(events.map((event) => [event.id, event]))
  const ordered: HistoryEvent[] = []
  for (const event of events) {
    const chain: HistoryEvent[] = []
    for (
      let next: HistoryEvent | undefined = event;
      next !== undefined && left.delete(next.id);
      next = left.get(next.causationId ?? '')
    )
      chain.push(next)
    ordered.push(...chain.toReversed())
  }
  return ordered
}
