import { limits } from '../../foundation/limits.ts'
import type { HistoryEvent } from '../../operations/history-event.ts'
import type { TraceNode, TraceTree } from '../../operations/event-trace.ts'
import { cutToSize } from '../answer-size.ts'
import { integerField, required, textField } from '../fields.ts'
import { defineRoute, inTenant, type ApiRoute } from '../route.ts'
import { choice, flag, integer, list, objectOf, ref } from '../schemas/schema.ts'
import { idInPath, subscription, tenantId } from './filters.ts'

const tag = 'Events'

const limit = integerField(limits.traceLimit)

/** A node of a tree as a line of a list: depth first, each below its cause. */
interface TraceLine {
  readonly event: HistoryEvent
  readonly cause: TraceNode['cause']
  /** 0 for a root. */
  readonly depth: number
}

/** Nested as deep as a chain of events is long, it would break readers of JSON. Not recursive, for the same reason. */
function toLines({ roots, eventCount, isPartial }: TraceTree): object {
  const lines: TraceLine[] = []
  const left = roots.toReversed().map((node) => ({ node, depth: 0 }))
  for (let next = left.pop(); next !== undefined; next = left.pop()) {
    const { node, depth } = next
    lines.push({ event: node.event, cause: node.cause, depth })
    for (const child of node.children.toReversed()) left.push({ node: child, depth: depth + 1 })
  }
  const { kept, isCut } = cutToSize(lines)
  return { lines: kept, eventCount, isPartial: isPartial || isCut }
}

function toTrace(events: readonly HistoryEvent[], given: number | undefined): object {
  const { kept, isCut } = cutToSize(events)
  return { events: kept, isPartial: isCut || events.length === (given ?? limits.traceLimit.default) }
}

/** What belongs to an event, what became of it, and what a text is. */
export const traceRoutes: readonly ApiRoute[] = [
  defineRoute({
    ...{ action: 'deliveries', method: 'GET', url: '/events/:id/deliveries', tag },
    summary: 'What became of an event, for each subscription. Empty while it is in the outbox.',
    params: idInPath,
    answer: objectOf<{ deliveries: readonly object[] }>({ deliveries: list(ref('Delivery')) }),
    handle: async ({ bus, params: { id } }) => ({ deliveries: await bus.deliveries(id) }),
    handleForTenant: async ({ tenant, params: { id } }) => ({ deliveries: await tenant.deliveries(id) }),
  }),
  defineRoute({
    ...{ action: 'explain', method: 'GET', url: '/events/:id/explanation', tag },
    summary: 'Why an event is where it is.',
    params: idInPath,
    query: { subscription },
    answer: ref('Explanation'),
    errors: ['BUS_SUBSCRIPTION_NOT_FOUND'],
    handle: async ({ bus, params: { id }, query }) => bus.explain(id, query.subscription),
    handleForTenant: async ({ tenant, params: { id }, query }) => tenant.explain(id, query.subscription),
  }),
  defineRoute({
    ...{ action: 'events.trace', method: 'GET', url: '/trace', tag },
    summary: 'The events of a correlation, each behind its cause.',
    query: { correlationId: required(textField(undefined, limits.keyLength)), limit, tenantId },
    answer: objectOf<{ events: readonly object[]; isPartial: boolean }>({
      events: list(ref('Event')),
      isPartial: flag('There may be more.'),
    }),
    handle: async ({ bus, query: { correlationId, ...options } }) =>
      toTrace(await bus.events.trace(correlationId, { ...options, exactNumbers: true }), options.limit),
    handleForTenant: async ({ tenant, tenantId: own, query }) => {
      const { correlationId, ...options } = inTenant(query, own)
      return toTrace(
        await tenant.events.trace(correlationId, { ...options, exactNumbers: true }),
        options.limit,
      )
    },
  }),
  defineRoute({
    ...{ action: 'events.traceTree', method: 'GET', url: '/trace-tree', tag },
    summary: 'The events of a correlation, or of the correlation of an event, as the lines of a tree.',
    description:
      'Depth first: the effects of an event follow it, and are one deeper. A list and not a nested tree, because a chain of events may be longer than readers of JSON can nest.',
    query: {
      id: required(textField('The id of an event, or a correlation.', limits.keyLength)),
      limit,
      tenantId,
    },
    answer: objectOf<{ lines: readonly object[]; eventCount: number; isPartial: boolean }>({
      lines: list(
        objectOf<TraceLine>({
          event: ref('Event'),
          cause: choice('none', 'found', 'missing', 'circular'),
          depth: integer('0 for an event that nothing here has caused.'),
        }),
      ),
      eventCount: integer(),
      isPartial: flag('There are more.'),
    }),
    handle: async ({ bus, query: { id, ...options } }) =>
      toLines(await bus.events.traceTree(id, { ...options, exactNumbers: true })),
    handleForTenant: async ({ tenant, tenantId: own, query }) => {
      const { id, ...options } = inTenant(query, own)
      return toLines(await tenant.events.traceTree(id, { ...options, exactNumbers: true }))
    },
  }),
  defineRoute({
    ...{ action: 'lookup', method: 'GET', url: '/lookup', tag },
    summary: 'What a text is that somebody has in hand: an id, a key, a correlation, a subject, a name.',
    query: { text: required(textField(undefined, limits.lookupLength)) },
    answer: ref('Lookup'),
    handle: async ({ bus, query }) => bus.lookup(query.text),
    handleForTenant: async ({ tenant, query }) => tenant.lookup(query.text),
  }),
]
