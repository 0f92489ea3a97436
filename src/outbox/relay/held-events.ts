import type { Database } from '../../database/database.ts'
import { isLockTimeout } from '../../database/database-errors.ts'
import type { BusLogger } from '../../foundation/logger.ts'
import { heldClaimSql, type ClaimPatience } from './claim-sql.ts'
import { claimOnce, type Claim, type ClaimProtocol, type Dispatch, type HeldWhat } from './claim.ts'

/** How long claims of keyed events stay careful after a lock was met. */
const carefulForMs = 5000

/** Delays between the retries of events that a lock has kept from a subscription: short at first, then longer. */
const firstRetryMs = 50
const lastRetryMs = 1000

/** A wait longer than this is logged. */
const longMs = 5000

/** After waiting in vain for a key's row, no row is waited for during this time. */
const impatienceMs = 1000

/** The claims of a relay, and the events that they hold back. */
export interface Claims {
  /**
   * Makes one claim. If it meets a lock that is held for long, it is repeated carefully: events that cannot be dispatched
   * now are held back in the outbox for the subscription that needs the lock, and everything else continues.
   */
  make: (
    protocol: Exclude<ClaimProtocol, 'relay-held'>,
    statements: (patience: ClaimPatience) => string,
  ) => Promise<Claim>
  /** Retries the held events of one subscription if it is time. Resolves to the number of events dispatched. */
  retryHeld: () => Promise<number>
  /** Adds subscriptions for which events are held, including those that other relays hold. */
  noteHeld: (subscriptionIds: readonly number[]) => void
  /** Time until held events are retried; Infinity if there are none. */
  readonly heldRestMs: number
}

export function createClaims(database: Database, dispatch: Dispatch, logger: BusLogger): Claims {
  const held = createHeldEvents()
  let orderCarefulUntil = Number.NEGATIVE_INFINITY

  async function claimAs(
    protocol: ClaimProtocol,
    patience: ClaimPatience,
    statements: string,
    retakenFor?: number,
  ): Promise<Claim> {
    const claim = await claimOnce(database, statements, dispatch, protocol, {
      careful: patience === 'careful',
      retakenFor,
      patient: held.isPatient,
      isClosed: held.isClosed,
      onHeld: held.note,
    })
    if (claim.count > 0) await database.faultPoint?.(`${protocol}.committed`)
    claim.afterCommit()
    return claim
  }

  return {
    async make(protocol, statements) {
      const isOrdered = protocol === 'relay-ordered'
      const patience = isOrdered && performance.now() < orderCarefulUntil ? 'careful' : 'normal'
      try {
        return await claimAs(protocol, patience, statements(patience))
      } catch (error) {
        if (!isLockTimeout(error)) throw error
        if (isOrdered) orderCarefulUntil = performance.now() + carefulForMs
        return claimAs(protocol, 'careful', statements('careful'))
      }
    },
    async retryHeld() {
      const due = held.next()
      if (due === undefined) return 0
      const { subscriptionId, cursor } = due
      const statements = heldClaimSql(subscriptionId, cursor)
      const claim = await claimAs('relay-held', 'retry', statements, subscriptionId).catch(
        (error: unknown) => {
          if (!isLockTimeout(error)) throw error
          return undefined
        },
      )
      const change = held.noteTry(subscriptionId, claim)
      if (change === 'blocked')
        logger.warn(
          { subscriptionId },
          'a lock blocks the events of a subscription: they wait in the outbox until it is released',
        )
      else if (change === 'resumed')
        logger.info({ subscriptionId }, 'the events that waited for a lock were dispatched')
      return claim?.count ?? 0
    },
    noteHeld: held.noteAll,
    get heldRestMs() {
      return held.restMs
    },
  }
}

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
interface HeldEvents {
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

const now = (): number => performance.now()

function createHeldEvents(): HeldEvents {
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
