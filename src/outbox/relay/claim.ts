import type pg from 'pg'
import type { SweepResult } from './claim-floors.ts'
import type { Commit, Database } from '../../database/database.ts'
import { isLockTimeout } from '../../database/database-errors.ts'

/** An event that the relay has deleted from the outbox, in the current transaction. */
export interface ClaimedEvent {
  readonly id: string
  readonly tenantId: string
  readonly type: string
  /** Either all events of a claim have one, or none. */
  readonly orderingKey: string | undefined
  /** Approximate bytes of the payload as text. */
  readonly payloadBytes: number
  /** Whether it was scheduled. All events of a claim are alike in this. */
  readonly wasScheduled: boolean
  /** When it was due, in milliseconds since 1970, if it was scheduled. */
  readonly dueMs?: number | undefined
}

/** Why events were held back, and which. */
export type HeldWhat = 'subscription' | 'keys' | 'payloads' | 'fan-out'

/** How the events of a claim are dispatched. */
export interface DispatchTerms {
  /** The previous claim met a lock: each subscription is tried separately, and its events are held back if it fails. */
  readonly careful: boolean
  /** These events were held back for this subscription, and are for no other. */
  readonly retakenFor: number | undefined
  /** Whether to wait for locked rows of keys. */
  readonly patient: boolean
  /** Whether a subscription is not tried at all, because a lock was met: its events are held back. */
  readonly isClosed: (subscriptionId: number) => boolean
  /**
   * Called after events were held back: because of a lock all events of a subscription, those of some keys, or those
   * whose payload cannot be read; or because more subscriptions need them than one claim serves.
   */
  readonly onHeld: (subscriptionId: number, what: HeldWhat) => void
}

/**
 * Dispatches claimed events inside the claiming transaction. Resolves to a function to call after the commit. It may
 * send the commit itself, as its last statement.
 */
export type Dispatch = (
  client: pg.ClientBase,
  claimed: readonly ClaimedEvent[],
  registryStamp: string,
  commit: Commit,
  terms: DispatchTerms,
) => Promise<() => void>

export type ClaimProtocol = 'relay' | 'relay-due' | 'relay-ordered' | 'relay-held'

export interface Claim {
  readonly count: number
  readonly lastPosition: bigint
  /** Milliseconds until the next scheduled event without a key is due, 0 or less if one is due, undefined if there is none. */
  readonly dueMs: number | undefined
  /** The same for events with a key. */
  readonly orderedDueMs: number | undefined
  /** Whether events with an ordering key are ready. */
  readonly orderedReady: boolean
  /** Whether they could not be claimed, because another relay is claiming them. */
  readonly isOrderLocked: boolean
  /** For held events: whether there are more. */
  readonly isLeft: boolean
  /** For held events: the key after which the next claim continues. */
  readonly heldCursor: { readonly tenantId: string; readonly orderingKey: string } | undefined
  /** The result of a sweep, and the subscriptions for which events are held back. */
  readonly sweep: (SweepResult & { readonly heldFor: readonly number[] }) | undefined
  /** How long the read took. */
  readonly readMs: number
  readonly afterCommit: () => void
}

interface StateRow {
  readonly due_seconds?: string | null
  readonly ordered_due_seconds?: string | null
  readonly ordered_ready?: boolean
  readonly order_taken?: boolean
  readonly is_left?: boolean
  readonly registry_stamp: string
  readonly server?: string
  readonly now?: number
  readonly is_clean?: boolean
  readonly is_left_behind?: boolean
  readonly deferred_for?: readonly number[]
}

interface WriterRow {
  readonly writer: string
}

interface ClaimRow {
  readonly position: string
  readonly event_id: string | null
  readonly tenant_id: string
  readonly type: string
  readonly ordering_key: string | null
  readonly payload_bytes: number | null
  readonly due_ms?: number
}

/**
 * One claim: deletes ready rows from the outbox, dispatches their events, commits. All or nothing: a crash at any point
 * leaves the rows in the outbox.
 *
 * @param statements - begin the transaction and end with one that returns the rows and one that returns the state; a
 *   sweep has one before them that returns the writers
 */
export async function claimOnce(
  database: Database,
  statements: string,
  dispatch: Dispatch,
  protocol: ClaimProtocol,
  terms: DispatchTerms,
): Promise<Claim> {
  const beganAt = performance.now()
  return database.transaction(async (client, begun, commit) => {
    const readMs = performance.now() - beganAt
    const found = (begun.at(-2)?.rows ?? []) as readonly ClaimRow[]
    const [state] = (begun.at(-1)?.rows ?? []) as readonly StateRow[]
    const rows = found.filter((row): row is ClaimRow & { readonly event_id: string } => row.event_id !== null)
    const cursor = found.find((row) => row.event_id === null)
    if (rows.length > 0) await database.faultPoint?.(`${protocol}.claimed`)
    const measured = await measureLarge(client, rows, terms.careful)
    const claimed = rows.map(({ event_id, tenant_id, type, ordering_key, payload_bytes, due_ms }) => ({
      id: event_id,
      tenantId: tenant_id,
      type,
      orderingKey: ordering_key ?? undefined,
      payloadBytes: payload_bytes ?? measured.get(event_id) ?? 0,
      wasScheduled: protocol === 'relay-due',
      dueMs: due_ms === undefined ? undefined : Math.floor(due_ms),
    }))
    let isInserted = rows.length === 0
    const noteInserted = async (): Promise<void> => {
      if (isInserted) return
      isInserted = true
      await database.faultPoint?.(`${protocol}.jobs-inserted`)
    }
    const commitInserted: Commit = async () => {
      await noteInserted()
      await commit()
    }
    const afterCommit =
      claimed.length > 0
        ? await dispatch(client, claimed, state?.registry_stamp ?? '', commitInserted, terms)
        : () => {}
    await noteInserted()
    return {
      count: rows.length,
      lastPosition: BigInt(rows.at(-1)?.position ?? 0),
      dueMs: toMs(state?.due_seconds),
      orderedDueMs: toMs(state?.ordered_due_seconds),
      orderedReady: state?.ordered_ready ?? false,
      isOrderLocked: state?.order_taken ?? false,
      isLeft: state?.is_left ?? false,
      heldCursor: cursor && { tenantId: cursor.tenant_id, orderingKey: cursor.ordering_key ?? '' },
      sweep: state && toSweep(state, (begun.at(-3)?.rows ?? []) as readonly WriterRow[]),
      readMs,
      afterCommit,
    }
  }, statements)
}

const toMs = (seconds: string | null | undefined): number | undefined =>
  seconds == null ? undefined : Number(seconds) * 1000

function toSweep(state: StateRow, writers: readonly WriterRow[]): Claim['sweep'] {
  const { server, now, is_clean: isClean, is_left_behind: isLeftBehind, deferred_for: heldFor } = state
  if (server === undefined || now === undefined) return undefined
  return {
    server,
    // Or the due time of the first event that is still there.
    now: now + Math.min(0, Number(state.due_seconds ?? 0), Number(state.ordered_due_seconds ?? 0)),
    isClean: isClean ?? false,
    isLeftBehind: isLeftBehind ?? false,
    writers: writers.map(({ writer }) => writer),
    heldFor: heldFor ?? [],
  }
}

/** The assumed size of a payload that cannot be read now: such an event gets its own job. */
const unknownBytes = 1024 * 1024

/** The size of a payload that is compressed or stored out of line is only known after reading it. */
async function measureLarge(
  client: pg.ClientBase,
  rows: readonly (ClaimRow & { readonly event_id: string })[],
  careful: boolean,
): Promise<ReadonlyMap<string, number>> {
  const ids = rows.filter((row) => row.payload_bytes === null).map((row) => row.event_id)
  if (ids.length === 0) return new Map()
  const measure = async (): Promise<ReadonlyMap<string, number>> => {
    const { rows: measured } = await client.query<{ id: string; bytes: number }>(
      'select id, octet_length(payload::text) as bytes from bus.events where id = any($1::uuid[])',
      [ids],
    )
    return new Map(measured.map(({ id, bytes }) => [id, bytes]))
  }
  if (!careful) return measure()
  return (await unlessLocked(client, measure)) ?? new Map(ids.map((id) => [id, unknownBytes]))
}

/**
 * Runs a part of an open transaction, including deferred constraint checks. If it meets another transaction's lock,
 * that part is rolled back, the transaction continues, and the result is undefined.
 */
export async function unlessLocked<T>(client: pg.ClientBase, work: () => Promise<T>): Promise<T | undefined> {
  await client.query('savepoint unless_locked')
  try {
    const result = await work()
    await client.query('set constraints all immediate; release savepoint unless_locked')
    return result
  } catch (error) {
    if (!isLockTimeout(error)) throw error
    await client.query('rollback to savepoint unless_locked; release savepoint unless_locked')
    return undefined
  }
}
