import type { Database } from '../../database/database.ts'
import { endCatchUp, type OnCatchUp } from '../../delivery/registry/catch-up.ts'
import { loadSubscriptions } from '../../delivery/registry/registry.ts'
import { findRoutedEvents, toRoute } from '../../delivery/routing/match-events.ts'
import { lowestId } from '../../events/event-id.ts'
import type { BusLogger } from '../../foundation/logger.ts'
import { insertOperation } from '../operation.ts'
import type { OperationPart } from '../operation-runner.ts'
import { fullPauseMs, openBackgroundQueue } from './background.ts'
import { firstCursor, readPage, type StoredSelection } from './selection.ts'

interface Progress {
  readonly cursor?: string
  readonly isRead?: boolean
}

/** Writes the operation by which a new subscription catches up, in the transaction that registers it. */
export function catchUpFor(service: string): OnCatchUp {
  return async (client, { subscriptionId, name, startFrom, until }) => {
    const fromId = startFrom === 'beginning' ? lowestId(0) : lowestId(startFrom.getTime())
    const stored: StoredSelection = { fromId, untilId: until }
    await insertOperation(client, {
      kind: 'catch-up',
      by: service,
      action: 'subscribe.startFrom',
      selection: { startFrom: startFrom === 'beginning' ? startFrom : startFrom.toISOString(), stored },
      subscriptionIds: [subscriptionId],
      subscription: name,
    })
  }
}

/**
 * A part of a catch-up: inserts jobs for the events that the log held when the subscription was registered and that had been dispatched
 * without it. Those that were in the outbox then, or came later, are dispatched by claims: they are in the outbox still, or a claim has noted
 * them. One statement looks at the log, the outbox and the notes, so that none is between two of them.
 */
export function createCatchUpPart(database: Database, logger: BusLogger): OperationPart {
  return async (client, { selection, subscription_ids, progress }, maxCount) => {
    const subscription = (await loadSubscriptions(client)).find(({ id }) => id === subscription_ids[0])
    const { cursor, isRead = false } = progress as Progress
    if (subscription === undefined) {
      const reason = 'The subscription was removed: nobody is left who gets the events'
      return { progress, counts: {}, handledCount: 0, next: { state: 'done', reason } }
    }
    if (isRead) {
      await endCatchUp(client, subscription.id)
      return { progress, counts: {}, handledCount: 0, next: { state: 'done' } }
    }
    const queue = openBackgroundQueue(client, database, logger, subscription)
    if ((await queue.countWaiting(undefined)) >= queue.maxWaiting)
      return { progress, counts: {}, handledCount: 0, next: { state: 'running', waitMs: fullPauseMs } }
    const { stored } = selection as unknown as { readonly stored: StoredSelection }
    const after = cursor ?? (await firstCursor(client, stored))
    const page = await readPage(client, stored, after, maxCount, missedBy(subscription.id))
    const route = toRoute(subscription)
    const routed = await findRoutedEvents(
      client,
      route,
      page.events.filter(({ type }) => route.matches(type)),
    )
    await queue.insert(routed, undefined)
    const count = routed.reduce((sum, { events }) => sum + events.length, 0)
    return {
      progress: { cursor: page.cursor, isRead: page.isLast },
      counts: { enqueued: count, filtered: page.events.length - count },
      handledCount: count,
      next: { state: 'running' },
    }
  }
}

/** In SQL: events of the log that no claim has dispatched, or will dispatch, to a subscription, and that are not for another one alone. */
const missedBy = (subscriptionId: number): string =>
  `e.id not in (select o.event_id from bus.outbox o where o.subscription_id is null and o.event_id > $1::uuid and o.event_id <= $2::uuid)
   and e.id not in (select d.event_id from bus.catch_up_dispatched d where d.subscription_id = ${subscriptionId} and d.event_id > $1::uuid)
   and e.id not in (select c.event_id from bus.event_copies c where c.event_id > $1::uuid and c.event_id <= $2::uuid)`
