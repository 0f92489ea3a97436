import { timeInId } from '../../events/event-id.ts'
import type pg from 'pg'
import { compilePatterns } from '../../events/pattern.ts'
import { unlessLocked, type ClaimedEvent } from '../../outbox/relay/claim.ts'
import { filterByPredicate, type Declaration } from '../registry/declarations.ts'
import type { RoutedEvents } from './plan-jobs.ts'
import type { RegisteredSubscription } from '../registry/registry.ts'

/** A subscription prepared for routing claims. */
export interface Route {
  readonly subscription: RegisteredSubscription
  readonly declarations: readonly RoutedDeclaration[]
  /** Whether one of its declarations covers a type. */
  readonly matches: (type: string) => boolean
}

interface RoutedDeclaration extends Declaration {
  readonly matches: (type: string) => boolean
}

export function toRoute(subscription: RegisteredSubscription): Route {
  const declarations = subscription.declarations.map((declaration) => ({
    ...declaration,
    matches: compilePatterns(declaration.patterns),
  }))
  const [first, ...others] = declarations
  const matches =
    first !== undefined && others.length === 0
      ? first.matches
      : (type: string) => declarations.some((declaration) => declaration.matches(type))
  return { subscription, declarations, matches }
}

/**
 * The events, among some with matching types, that a declaration of the subscription covers. If it has predicates,
 * events are grouped by the declarations that cover them, and their jobs name these, so that a process need not
 * evaluate the predicates again.
 */
export async function findRoutedEvents(
  client: pg.ClientBase,
  { subscription, declarations }: Route,
  matched: readonly ClaimedEvent[],
): Promise<readonly RoutedEvents[]> {
  if (matched.length === 0) return []
  // Each process checks the types itself.
  if (declarations.every(({ where }) => where === undefined)) return [{ subscription, events: matched }]
  const covering = new Map<string, number[]>()
  for (const declaration of declarations) {
    for (const id of await coveredBy(client, declaration, matched)) {
      const ids = covering.get(id) ?? []
      covering.set(id, ids)
      if (declaration.id !== undefined) ids.push(declaration.id)
    }
  }
  const events = matched.filter(({ id }) => covering.has(id))
  if (events.length === 0) return []
  // Keys stay in order.
  if (subscription.ordered === true) return [{ subscription, events }]
  const groups = Map.groupBy(events, ({ id }) => covering.get(id)?.join() ?? '')
  return [...groups.values()].map((group) => ({
    subscription,
    events: group,
    declarations: covering.get(group[0]?.id ?? ''),
  }))
}

async function coveredBy(
  client: pg.ClientBase,
  { matches, where }: RoutedDeclaration,
  matched: readonly ClaimedEvent[],
): Promise<Iterable<string>> {
  const ids = matched.filter(({ type }) => matches(type)).map(({ id }) => id)
  return where === undefined || ids.length === 0 ? ids : filterByPredicate(client, ids, where)
}

/**
 * The same if a lock is in the way: payloads of a month whose partition is locked cannot be read now. For an ordered
 * subscription, events that were held cannot be held again, behind later ones of their key; then the error is passed
 * on.
 */
export async function findRoutedEventsByMonth(
  client: pg.ClientBase,
  route: Route,
  matched: readonly ClaimedEvent[],
  retaken: boolean,
): Promise<{ readonly routed: readonly RoutedEvents[]; readonly unreadable: readonly ClaimedEvent[] }> {
  const { subscription, declarations } = route
  if (declarations.every(({ where }) => where === undefined) || (retaken && subscription.ordered === true))
    return { routed: await findRoutedEvents(client, route, matched), unreadable: [] }
  const routed: RoutedEvents[] = []
  const unreadable = new Set<ClaimedEvent>()
  for (const ofMonth of Map.groupBy(matched, ({ id }) => monthOf(id)).values()) {
    const readable = await unlessLocked(client, async () => findRoutedEvents(client, route, ofMonth))
    if (readable === undefined) for (const event of ofMonth) unreadable.add(event)
    else routed.push(...readable)
  }
  return {
    routed: inOrder(routed, subscription, matched),
    unreadable: matched.filter((event) => unreadable.has(event)),
  }
}

/** Keys stay in order: merges an ordered subscription's events of several months. */
function inOrder(
  routed: readonly RoutedEvents[],
  subscription: RegisteredSubscription,
  matched: readonly ClaimedEvent[],
): readonly RoutedEvents[] {
  if (subscription.ordered !== true || routed.length < 2) return routed
  const events = new Set(routed.flatMap((each) => each.events))
  return [{ subscription, events: matched.filter((event) => events.has(event)) }]
}

/** The month of a uuid v7, in UTC, which determines its partition of the log. */
function monthOf(id: string): string {
  const time = new Date(timeInId(id))
  return `${time.getUTCFullYear()}-${time.getUTCMonth()}`
}
