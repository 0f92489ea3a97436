import { lowestId } from '../../events/event-id.ts'
import { limits } from '../../foundation/limits.ts'
import { integerOption } from '../../foundation/options.ts'
import type { HistoryEvent } from '../../operations/history-event.ts'
import { cutToSize } from '../answer-size.ts'
import { eventNotFound } from '../errors.ts'
import { integerField, listField, required } from '../fields.ts'
import { defineRoute, inTenant, type ApiRoute } from '../route.ts'
import { integer, list, objectOf, optional, ref, text, time, uuid } from '../schemas/schema.ts'
import { eventFilter, eventPage, eventSpan, idInPath, readLimit, toEventFilter } from './filters.ts'

const tag = 'Events'

/** How long ago an event of a tail was published at least, so that transactions that commit later are not missed. */
const lagRange = { min: 0, max: 60_000, default: 1000 }

/** What the clocks of this process and of the database, which ids are made by, may differ by. */
const clockMarginMs = 10_000

const page = objectOf<{ events: readonly object[]; next: string | undefined }>({
  events: list(ref('Event')),
  next: optional(uuid('Pass it as `after`. Left out on the last page.')),
})

/** A page of a list that ends where it is full. */
function toPage(events: readonly HistoryEvent[], given: number | undefined): object {
  const { kept, isCut } = cutToSize(events)
  const isFull = isCut || kept.length === (given ?? limits.listLimit.default)
  return { events: kept, next: isFull ? kept.at(-1)?.id : undefined }
}

interface Searched {
  readonly events: readonly HistoryEvent[]
  readonly next: string | undefined
  readonly searched: object
}

function toSearchPage({ events, next, searched }: Searched): object {
  const { kept, isCut } = cutToSize(events)
  return { events: kept, next: isCut ? kept.at(-1)?.id : next, searched }
}

interface Tailing {
  readonly after: string | undefined
  readonly lagMs: number | undefined
  readonly limit: number | undefined
}

/**
 * What follows a cursor, oldest first; without one the newest events. `next` is where to go on, whether there was something or not: never
 * before an event that was shown, and otherwise a while back, so that a clock that is ahead of the database's makes it pass over nothing.
 */
async function tail<T extends Tailing>(
  { lagMs, ...filter }: T,
  search: (filter: Omit<T, 'lagMs'> & { order: 'newest' | 'oldest'; to: Date }) => Promise<Searched>,
): Promise<object> {
  const to = new Date(Date.now() - integerOption('lagMs', lagMs, lagRange))
  const end = lowestId(Math.max(0, to.getTime() - clockMarginMs))
  const after = filter.after?.toLowerCase()
  if (after === undefined) {
    const { events } = await search({ ...filter, order: 'newest', to })
    const kept = cutToSize(events).kept.toReversed()
    return { events: kept, next: latest(end, kept.at(-1)?.id) }
  }
  const { events, next } = await search({ ...filter, order: 'oldest', to })
  const { kept, isCut } = cutToSize(events)
  const last = kept.at(-1)?.id
  return { events: kept, next: (isCut ? last : next) ?? latest(end, after, last) }
}

const latest = (first: string, ...others: readonly (string | undefined)[]): string =>
  others.reduce<string>((last, id) => (id !== undefined && id > last ? id : last), first)

/** Lists of `bus.events`, and single events. */
export const eventRoutes: readonly ApiRoute[] = [
  defineRoute({
    ...{ action: 'events.find', method: 'GET', url: '/events', tag },
    summary: 'A page of events. It reads on until the page is full.',
    query: { ...eventFilter, ...eventSpan, ...eventPage },
    answer: page,
    errors: ['BUS_SUBSCRIPTION_NOT_FOUND', 'BUS_INVALID_PATTERN'],
    handle: async ({ bus, query }) => toPage(await bus.events.find(toEventFilter(query)), query.limit),
    handleForTenant: async ({ tenant, tenantId, query }) =>
      toPage(await tenant.events.find(inTenant(toEventFilter(query), tenantId)), query.limit),
  }),
  defineRoute({
    ...{ action: 'events.search', method: 'GET', url: '/events/search', tag },
    summary:
      'A page of events, after reading at most `readLimit` of them: for a person who waits. It may have fewer than `limit`, and `next` nevertheless.',
    query: { ...eventFilter, ...eventSpan, ...eventPage, readLimit },
    answer: objectOf<Searched>({
      events: list(ref('Event')),
      next: optional(uuid('Pass it as `after` to search on. Left out when all was searched.')),
      searched: objectOf<{
        readCount: number
        through: Date | undefined
        unsearchedTypes: readonly string[]
      }>({
        readCount: integer('Events that were read because no index answers. 0 if an index does.'),
        through: optional(time('How far it came.')),
        unsearchedTypes: list(text(), 'Types that were left out, because `payload` names what they hide.'),
      }),
    }),
    errors: ['BUS_SUBSCRIPTION_NOT_FOUND', 'BUS_INVALID_PATTERN'],
    handle: async ({ bus, query }) => toSearchPage(await bus.events.search(toEventFilter(query))),
    handleForTenant: async ({ tenant, tenantId, query }) =>
      toSearchPage(await tenant.events.search(inTenant(toEventFilter(query), tenantId))),
  }),
  defineRoute({
    ...{ action: 'events.tail', method: 'GET', url: '/events/tail', tag },
    summary: 'What was published after `after`, oldest first; without it the newest events.',
    description:
      'Ask again with `after: next`. An event is shown `lagMs` after it was published: one whose transaction commits later than that is missed by the tail, not by the other lists.',
    query: {
      ...eventFilter,
      after: eventPage.after,
      readLimit,
      lagMs: integerField(lagRange, 'In milliseconds.'),
    },
    answer: objectOf<{ events: readonly object[]; next: string }>({
      events: list(ref('Event')),
      next: uuid('Pass it as `after`, also if there are no events.'),
    }),
    errors: ['BUS_SUBSCRIPTION_NOT_FOUND', 'BUS_INVALID_PATTERN'],
    handle: async ({ bus, query }) => tail(toEventFilter(query), async (filter) => bus.events.search(filter)),
    handleForTenant: async ({ tenant, tenantId, query }) =>
      tail(inTenant(toEventFilter(query), tenantId), async (filter) => tenant.events.search(filter)),
  }),
  defineRoute({
    ...{ action: 'events.states', method: 'GET', url: '/events/states', tag },
    summary: 'Where some events are, for each subscription.',
    query: { ids: required(listField('1 to 200 ids.', { type: 'string', format: 'uuid' })) },
    answer: objectOf<{ states: readonly object[] }>({ states: list(ref('EventState')) }),
    handle: async ({ bus, query }) => ({ states: await bus.events.states(query.ids) }),
    handleForTenant: async ({ tenant, query }) => ({ states: await tenant.events.states(query.ids) }),
  }),
  defineRoute({
    ...{ action: 'events.get', method: 'GET', url: '/events/:id', tag },
    summary: 'One event.',
    params: idInPath,
    answer: ref('Event'),
    errors: ['BUS_EVENT_NOT_FOUND'],
    handle: async ({ bus, params: { id } }) => found(id, await bus.events.get(id, { exactNumbers: true })),
    handleForTenant: async ({ tenant, params: { id } }) =>
      found(id, await tenant.events.get(id, { exactNumbers: true })),
  }),
]

function found(id: string, event: HistoryEvent | undefined): HistoryEvent {
  if (event === undefined) throw eventNotFound(id)
  return event
}
