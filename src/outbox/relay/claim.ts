import type pg from 'pg'
import type { SweepResult } from './claim-floors.ts'
import type { Commit, Database } from '../../database/database.ts'

/** An event the relay has taken out of the outbox, in the transaction that took it. */
export interface ClaimedEvent {
  readonly id: string
  readonly tenantId: string
  readonly type: string
  /** Those of one claim have one, or none of them has. */
  readonly orderingKey: string | undefined
  /** About the bytes of the payload as text. */
  readonly payloadBytes: number
  /** Whether it waited for its time: then all of its claim did. */
  readonly wasScheduled: boolean
}

/** Why events were held, and which. */
export type HeldWhat = 'subscription' | 'keys' | 'payloads' | 'fan-out'

/** How a claim is to be handed over. */
export interface DispatchTerms {
  /** The claim before met a lock: each subscription is tried by itself, and what one cannot take is held for it. */
  readonly careful: boolean
  /** These events were held for this subscription, and are for nobody else. */
  readonly retakenFor: number | undefined
  /** Whether the rows of keys may be waited for. */
  readonly patient: boolean
  /** Whether nothing is to be tried for a subscription, because a lock was met: what comes for it is held. */
  readonly isClosed: (subscriptionId: number) => boolean
  /**
   * Told when events were held: because of a lock all of a subscription, those of some keys, or some that cannot be read; or
   * because more subscriptions want them than one claim serves.
   */
  readonly onHeld: (subscriptionId: number, what: HeldWhat) => void
}

/**
 * Hands claimed events over, inside the claiming transaction. Resolves to what to do once it has committed; it may send the
 * commit itself, as its last statement.
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
  /** Until the next scheduled event without a key, 0 or less when one is due, undefined when there is none. */
  readonly dueMs: number | undefined
  /** The same with a key. */
  readonly orderedDueMs: number | undefined
  /** Whether events with an ordering key are ready. */
  readonly orderedReady: boolean
  /** Whether they could not be claimed, because another relay is at it. */
  readonly orderTaken: boolean
  /** Of events that were held: whether there are more. */
  readonly isLeft: boolean
  /** Of events that were held: behind which key to go on looking. */
  readonly heldCursor: { readonly tenantId: string; readonly orderingKey: string } | undefined
  /** What a sweep found, and for which subscriptions events are held. */
  readonly sweep: (SweepResult & { readonly heldFor: readonly number[] }) | undefined
  /** How long it took to read. */
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
}

/**
 * One claim: takes ready rows out of the outbox, hands their events over, commits. All or nothing: a crash anywhere leaves the
 * rows where they were.
 *
 * @param statements - begin the transaction and end in one that gives the rows and one that gives the state; of a sweep,
 *   the one before gives the writers
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
    if (rows.length > 0) await database.reach?.(`${protocol}.claimed`)
    const measured = await measureLarge(client, rows, terms.careful)
    const claimed = rows.map(({ event_id, tenant_id, type, ordering_key, payload_bytes }) => ({
      id: event_id,
      tenantId: tenant_id,
      type,
      orderingKey: ordering_key ?? undefined,
      payloadBytes: payload_bytes ?? measured.get(event_id) ?? 0,
      wasScheduled: protocol === 'relay-due',
    }))
    let isInserted = rows.length === 0
    const noteInserted = async (): Promise<void> => {
      if (isInserted) return
      isInserted = true
      await database.reach?.(`${protocol}.jobs-inserted`)
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
      orderTaken: state?.order_taken ?? false,
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
    // Or when the first one was due that is still there.
    now: now + Math.min(0, Number(state.due_seconds ?? 0), Number(state.ordered_due_seconds ?? 0)),
    isClean: isClean ?? false,
    isLeftBehind: isLeftBehind ?? false,
    writers: writers.map(({ writer }) => writer),
    heldFor: heldFor ?? [],
  }
}

/** Stands for the size of a payload that cannot be read now: such an event gets a job of its own. */
const unknownBytes = 1024 * 1024

/** Payloads that are stored compressed or out of line show their size only when they are read. */
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
 * Runs a part of an open transaction, checks of deferred constraints included. Where it meets a lock that somebody else holds, that part
 * is undone, the transaction goes on, and it gives undefined.
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

/** Whether somebody else held a lock for too long. */
export function isLockTimeout(error: unknown): boolean {
  const { sqlState, code } = error as { readonly sqlState?: unknown; readonly code?: unknown }
  return sqlState === '55P03' || code === '55P03'
}
