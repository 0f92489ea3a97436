import type { Claim, HeldWhat } from './claim.ts'

/** How soon what a lock has kept from a subscription is tried again: soon at first, then less often. */
const firstRetryMs = 50
const lastRetryMs = 1000

/** Who waits longer than this is worth a line in the log. */
const longMs = 5000

/** After a row of a key was waited for in vain, none is waited for this long. */
const impatienceMs = 1000

interface Held {
  /** Whether nothing at all is tried for the subscription meanwhile. */
  closed: boolean
  dueAt: number
  delayMs: number
  cursor: Claim['heldCursor']
  /** Since when nothing got on. */
  since: number
  warned: boolean
  /** Whether some of what was tried last was held again. */
  heldAgain: boolean
}

/** Which subscriptions have events in the outbox that they could not take, because of a lock, and when to try again. */
export interface HeldEvents {
  readonly isClosed: (subscriptionId: number) => boolean
  /** Whether the rows of keys may be waited for. */
  readonly isPatient: boolean
  /** How long until one is to be tried again; Infinity where nothing is held. */
  readonly restMs: number
  /** The one that is to be tried now, and behind which of its keys. */
  readonly next: () => { readonly subscriptionId: number; readonly cursor: Claim['heldCursor'] } | undefined
  readonly note: (subscriptionId: number, what: HeldWhat) => void
  /** What the database knows, also of what other relays have left. */
  readonly noteAll: (subscriptionIds: readonly number[]) => void
  /** What became of a try: undefined where a lock was met again. Gives what is worth to be said. */
  readonly noteTry: (
    subscriptionId: number,
    claim: Pick<Claim, 'count' | 'isLeft' | 'heldCursor'> | undefined,
  ) => 'waits long' | 'goes on' | undefined
}

export function createHeldEvents(now: () => number = () => performance.now()): HeldEvents {
  const held = new Map<number, Held>()
  let impatientUntil = Number.NEGATIVE_INFINITY

  function hold(subscriptionId: number, closed: boolean): void {
    const known = held.get(subscriptionId)
    if (known !== undefined) known.closed ||= closed
    else
      held.set(subscriptionId, {
        closed,
        dueAt: now() + firstRetryMs,
        delayMs: firstRetryMs,
        cursor: undefined,
        since: now(),
        warned: false,
        heldAgain: false,
      })
  }

  return {
    isClosed: (subscriptionId) => held.get(subscriptionId)?.closed ?? false,
    get isPatient() {
      return now() >= impatientUntil
    },
    get restMs() {
      const first = Math.min(...[...held.values()].map(({ dueAt }) => dueAt))
      return Math.max(0, first - now())
    },
    next() {
      const due = [...held].filter(([, { dueAt }]) => dueAt <= now())
      const [first] = due.toSorted(([, a], [, b]) => a.dueAt - b.dueAt)
      return first && { subscriptionId: first[0], cursor: first[1].cursor }
    },
    note(subscriptionId, what) {
      if (what === 'keys') impatientUntil = now() + impatienceMs
      // What comes later for it goes behind what it has still to get.
      hold(subscriptionId, what === 'subscription' || what === 'fan-out')
      const entry = held.get(subscriptionId)
      // There is no lock to wait for.
      if (entry !== undefined && what === 'fan-out') entry.dueAt = now()
      if (entry !== undefined && what === 'payloads') entry.heldAgain = true
    },
    noteAll(subscriptionIds) {
      for (const id of subscriptionIds) hold(id, false)
    },
    noteTry(subscriptionId, claim) {
      const entry = held.get(subscriptionId)
      if (entry === undefined) return undefined
      if (claim !== undefined) {
        entry.closed = false
        entry.cursor = claim.heldCursor
        if (!claim.isLeft) {
          held.delete(subscriptionId)
          return entry.warned ? 'goes on' : undefined
        }
      }
      const count = entry.heldAgain ? 0 : (claim?.count ?? 0)
      entry.heldAgain = false
      if (count > 0) entry.since = now()
      // At once where it gets on; soon where not all keys were looked at.
      entry.delayMs =
        count > 0 || claim?.heldCursor !== undefined ? firstRetryMs : Math.min(entry.delayMs * 2, lastRetryMs)
      entry.dueAt = now() + (count > 0 ? 0 : entry.delayMs)
      if (entry.warned || now() - entry.since < longMs) return undefined
      entry.warned = true
      return 'waits long'
    },
  }
}
