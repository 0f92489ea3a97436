import type { ClaimedEvent } from '../outbox/relay.ts'

/**
 * Subscriptions that one claim serves. Inserting into a queue locks its table and a dozen indexes until the claim has committed: what
 * all claims hold together must fit into the lock table of the server, for some 6,400 locks by default.
 */
export const maxFanOut = 32

/** Where events may go, in the order of the ids. */
interface Destination {
  readonly id: number
  readonly matches: (type: string) => boolean
}

/** What a claim hands over. */
export interface FanOut<D> {
  readonly shares: ReadonlyMap<D, readonly ClaimedEvent[]>
  /** Events that others want besides, by id: the subscription up to whose id they have been handed over. */
  readonly left: ReadonlyMap<string, number>
}

/**
 * Finds the subscriptions that want the events of a claim, up to {@link maxFanOut} of them. An event that more want stays in the
 * outbox and is claimed again for the others. No event behind it is handed to a subscription that has still to get it, so each
 * subscription gets them in the order of the claim.
 */
export function fanOut<D extends Destination>(
  claimed: readonly ClaimedEvent[],
  destinations: readonly D[],
): FanOut<D> {
  const shares = new Map<D, ClaimedEvent[]>()
  const left = new Map<string, number>()
  let last = Number.POSITIVE_INFINITY
  for (const event of claimed) {
    let routedThrough = event.routedThrough ?? 0
    for (const destination of destinations) {
      if (destination.id <= (event.routedThrough ?? 0) || !destination.matches(event.type)) continue
      const share = shares.get(destination)
      if (destination.id > last || (share === undefined && shares.size === maxFanOut)) {
        left.set(event.id, routedThrough)
        last = Math.min(last, routedThrough)
        break
      }
      if (share === undefined) shares.set(destination, [event])
      else share.push(event)
      routedThrough = destination.id
    }
  }
  return { shares, left }
}
