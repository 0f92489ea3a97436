import type { Claim, HeldWhat } from './claim.ts'

/** Delays between the retries of events that a lock has kept from a subscription: short at first, then longer. */
const firstRetryMs = 50
const lastRetryMs = 1000

/** A wait longer than this is logged. */
const longMs = 5000

/** After waiting in vain for a key's row, no row is waited for during this time. */
const impatienceMs = 1000

interface Held {
  /** Whether nothing is tried for the subscription meanwhile. */
  closed: boolean
  dueAt: number
  delayMs: number
  cursor: Claim['heldCursor']
  /** Since when there has been no progress. */
  since: number
  warned: boolean
  /** Whether some of the events of the last try were held back again. */
  heldAgain: boolean
}

/** Tracks which subscriptions have events in the outbox because of a lock, and when to retry them. */
export interface HeldEvents {
  readonly isClosed: (subscriptionId: number) => boolean
  /** Whether to wait for locked rows of keys. */
  readonly isPatient: boolean
  /** Time until the next retry; Infinity if nothing is held back. */
  readonly restMs: number
  /** The subscription to retry now, and the key to continue after. */
  readonly next: () => { readonly subscriptionId: number; readonly cursor: Claim['heldCursor'] } | undefined
  readonly note: (subscriptionId: number, what: HeldWhat) => void
  /** Adds subscriptions that the database reports, including those of other relays. */
  readonly noteAll: (subscriptionIds: readonly number[]) => void
  /** Records the result of a retry; undefined if it met a lock again. Returns a change that should be logged. */
  readonly noteTry: (
    subscriptionId: number,
    claim: Pick<Claim, 'count' | 'isLeft' | 'heldCursor'> | undefined,
  ) => 'blocked' | 'resumed' | undefined
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
      // Later events of the subscription must stay behind its held ones.
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
          return entry.warned ? 'resumed' : undefined
        }
      }
      const count = entry.heldAgain ? 0 : (claim?.count ?? 0)
      entry.heldAgain = false
      if (count > 0) entry.since = now()
      // Immediately after progress; soon if not all keys were tried.
      entry.delayMs =
        count > 0 || claim?.heldCursor !== undefined ? firstRetryMs : Math.min(entry.delayMs * 2, lastRetryMs)
      entry.dueAt = now() + (count > 0 ? 0 : entry.delayMs)
      if (entry.warned || now() - entry.since < longMs) return undefined
      entry.warned = true
      return 'blocked'
    },
  }
}
