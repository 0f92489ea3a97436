import type pg from 'pg'
import { beginSql, type Commit, type Database } from './database.ts'
import type { Doorbell } from './doorbell.ts'
import { failureDelayMs } from './failure-delay.ts'
import { orderedClaimSql, orderedPositions, orderedReadySql } from './ordered-claim.ts'
import type { BusLogger } from '../events/logger.ts'

/** An event the relay has taken out of the outbox, in the transaction that took it. */
export interface ClaimedEvent {
  readonly id: string
  readonly tenantId: string
  readonly type: string
  /** Those of one claim have one, or none of them has. */
  readonly orderingKey: string | undefined
  /** About the bytes of the payload as text. */
  readonly payloadBytes: number
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
) => Promise<() => void>

/** What the relay is doing, for health. */
export type RelayState = 'stopped' | 'awake' | 'sleeping' | 'standby' | 'polling' | 'failing'

/** Moves events from the outbox to the subscriptions. */
export interface Relay {
  readonly state: RelayState
  /** Events handed over since the start. */
  readonly dispatchedCount: number
  /** Something may be waiting. */
  ring: () => void
  /** Resolves when no claim is open and none will be opened. */
  stop: () => Promise<void>
}

/** Events in one claim: enough to spread the cost of a transaction, few enough to keep it short. */
const claimSize = 1000

/** From this many events in one claim on, publishers are told not to ring: ringing takes a database-wide lock. */
const busyClaimSize = 16

/** So many events in so short a time are many, too, however small the claims that found them. */
const busyWindowMs = 50
const busyWindowEvents = 50

/** While many events come, claims are collected for this long: each costs as much for one event as for some. */
const collectPauseMs = 5

/** A relay that is awake looks again after this long, and tries to sleep after this many rounds that were not busy. */
const busyPauseMs = 2
const quietRoundsBeforeSleep = 10

/** How often a relay that cannot sleep yet looks again. */
const restlessPauseMs = 10

/** A relay that does not lead leaves single events to the leader and looks after this long. */
const standbyDelayMs = 25
const standbyPollMs = 2000

/** What is due, but locked, is looked for again after this long. */
const lockedPauseMs = 50

/** Without a bell, how often a relay looks: soon again while there is something. */
const busyPollMs = 50
const bellLessPollMs = 500

/** The slowest poll, in case a bell was lost. */
const safetyPollMs = 30_000

/** Under load, how often the claim starts at the very beginning instead of at the floor. */
const sweepIntervalMs = 1000

/** Starts claiming. Any number of relays may run on one database. */
export function startRelay(
  database: Database,
  doorbell: Doorbell,
  dispatch: Dispatch,
  logger: BusLogger,
): Relay {
  let stopping = false
  let rang = false
  let state: RelayState = 'awake'
  let dispatchedCount = 0
  let failures = 0
  let quietRounds = 0
  let windowBeganAt = 0
  let windowCount = 0
  let busyAt = Number.NEGATIVE_INFINITY
  let floor = 0n
  let sweptAt = 0
  let nextDueMs: number | undefined
  let orderTaken = false
  let interrupt: () => void = () => {}

  /** Waits, unless somebody rings or the relay is told to stop. */
  async function rest(durationMs: number, wakeOnRing: boolean): Promise<void> {
    if (stopping || (wakeOnRing && rang)) return
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, durationMs)
      interrupt = () => {
        if (!stopping && !wakeOnRing) return
        clearTimeout(timer)
        resolve()
      }
    })
    interrupt = () => {}
  }

  function noteClaim(count: number): void {
    const now = performance.now()
    if (now - windowBeganAt > busyWindowMs) {
      windowBeganAt = now
      windowCount = 0
    }
    windowCount += count
    if (count >= busyClaimSize || windowCount >= busyWindowEvents) busyAt = now
  }

  const isBusy = (): boolean => performance.now() - busyAt < busyWindowMs * 2

  /** After each claim, not where it rests: under a steady load it may not rest for hours. */
  function noteSuccess(): void {
    failures = 0
    if (state === 'failing') state = 'awake'
  }

  /** Claims until nothing is ready. Resolves to whether anything was. */
  async function drain(): Promise<boolean> {
    const countBefore = dispatchedCount
    floor = 0n
    orderTaken = false
    while (!stopping) {
      rang = false
      const now = performance.now()
      const full = floor === 0n || now - sweptAt > sweepIntervalMs
      if (full) sweptAt = now
      const claim = await claimOnce(database, claimSql(full ? 0n : floor), dispatch)
      if (claim.count > 0) await database.reach?.('relay.committed')
      claim.afterCommit()
      if (claim.count > 0) await database.reach?.('relay.woken')
      const orderedCount = claim.orderedReady ? await handOverOrdered() : 0
      const count = claim.count + orderedCount
      dispatchedCount += count
      nextDueMs = claim.nextDueMs
      noteClaim(count)
      if (isBusy() && doorbell.sleeping) await doorbell.wake()
      const isDue = claim.nextDueMs !== undefined && claim.nextDueMs <= 0
      const promotedCount = isDue ? await promoteDue(database) : 0
      if (promotedCount > 0) await database.reach?.('relay.promoted')
      // Somebody cancels it, or another relay is at it.
      if (isDue && promotedCount + orderedCount === 0) nextDueMs = lockedPauseMs
      noteSuccess()
      if (claim.count === claimSize) {
        // Late committers below the floor are found by the next full sweep.
        floor = claim.lastPosition + 1n
        continue
      }
      if (orderTaken || (floor === 0n && promotedCount + orderedCount === 0)) break
      floor = 0n
    }
    return dispatchedCount > countBefore
  }

  /** One claim of events with an ordering key, unless another relay is at it: then this one looks again soon. */
  async function handOverOrdered(): Promise<number> {
    const claim = await claimOnce(database, orderedClaimSql(claimSize), dispatch, 'relay-ordered')
    if (claim.count > 0) await database.reach?.('relay-ordered.committed')
    claim.afterCommit()
    orderTaken = claim.orderTaken
    return claim.count
  }

  async function restAfter(foundAny: boolean): Promise<void> {
    if (orderTaken) return rest(restlessPauseMs, false)
    const pauseMs = isBusy() ? collectPauseMs : busyPauseMs
    if (rang && !doorbell.sleeping) return rest(pauseMs, false)
    if (rang) return
    const dueMs = Math.max(0, Math.min(nextDueMs ?? safetyPollMs, safetyPollMs))
    if (!doorbell.connected) {
      state = doorbell.polling ? 'polling' : 'awake'
      return rest(Math.min(dueMs, foundAny ? busyPollMs : bellLessPollMs), true)
    }
    if (!doorbell.leading && !(await doorbell.lead())) {
      state = 'standby'
      await rest(Math.min(dueMs, standbyPollMs), true)
      return rest(rang ? standbyDelayMs : 0, false)
    }
    if (doorbell.sleeping) {
      state = 'sleeping'
      return rest(dueMs, true)
    }
    state = 'awake'
    quietRounds = isBusy() ? 0 : quietRounds + 1
    if (dispatchedCount > 0 && quietRounds < quietRoundsBeforeSleep) return rest(pauseMs, false)
    // Granted: one more look, because what was published before the lock was taken did not ring.
    if (!(await doorbell.sleep())) return rest(Math.min(dueMs, restlessPauseMs), false)
    await database.reach?.('relay.asleep')
  }

  async function run(): Promise<void> {
    while (!stopping) {
      try {
        await restAfter(await drain())
        failures = 0
      } catch (error) {
        state = 'failing'
        const delayMs = failureDelayMs(failures)
        failures += 1
        logger.error({ err: error, failures, delayMs }, 'the relay could not hand events over, trying again')
        await rest(delayMs, false)
      }
    }
  }

  const running = run()

  return {
    get state() {
      return state
    },
    get dispatchedCount() {
      return dispatchedCount
    },
    ring() {
      rang = true
      interrupt()
    },
    async stop() {
      stopping = true
      interrupt()
      await running
      state = 'stopped'
    },
  }
}

interface Claim {
  readonly count: number
  readonly lastPosition: bigint
  /** Until the next scheduled event, 0 or less when one is due, undefined when there is none. */
  readonly nextDueMs: number | undefined
  /** Whether events with an ordering key are ready, or scheduled and due. */
  readonly orderedReady: boolean
  /** Whether they could not be claimed, because another relay is at it. */
  readonly orderTaken: boolean
  readonly afterCommit: () => void
}

interface StateRow {
  readonly next_due_seconds: string | null
  readonly ordered_ready: boolean
  readonly order_taken: boolean
  readonly registry_stamp: string
}

interface ClaimRow {
  readonly position: string
  readonly event_id: string
  readonly tenant_id: string
  readonly type: string
  readonly ordering_key: string | null
  readonly payload_bytes: number | null
}

/**
 * One claim: takes up to {@link claimSize} ready rows out of the outbox, hands their events over, commits.
 * All or nothing: a crash anywhere leaves the rows where they were.
 */
async function claimOnce(
  database: Database,
  statements: string,
  dispatch: Dispatch,
  protocol: 'relay' | 'relay-ordered' = 'relay',
): Promise<Claim> {
  return database.transaction(async (client, begun, commit) => {
    const rows = (begun.at(-2)?.rows ?? []) as readonly ClaimRow[]
    const [state] = (begun.at(-1)?.rows ?? []) as readonly StateRow[]
    if (rows.length > 0) await database.reach?.(`${protocol}.claimed`)
    const measured = await measureLarge(client, rows)
    const claimed = rows.map(({ event_id, tenant_id, type, ordering_key, payload_bytes }) => ({
      id: event_id,
      tenantId: tenant_id,
      type,
      orderingKey: ordering_key ?? undefined,
      payloadBytes: payload_bytes ?? measured.get(event_id) ?? 0,
    }))
    const dueSeconds = state?.next_due_seconds ?? null
    const afterCommit =
      claimed.length > 0 ? await dispatch(client, claimed, state?.registry_stamp ?? '', commit) : () => {}
    if (rows.length > 0) await database.reach?.(`${protocol}.jobs-inserted`)
    return {
      count: rows.length,
      lastPosition: BigInt(rows.at(-1)?.position ?? 0),
      nextDueMs: dueSeconds === null ? undefined : Number(dueSeconds) * 1000,
      orderedReady: state?.ordered_ready ?? false,
      orderTaken: state?.order_taken ?? false,
      afterCommit,
    }
  }, statements)
}

/**
 * Row locks on the claimed rows only (SKIP LOCKED: rows of another relay are passed over), in position order, from
 * the floor on, up to where those with an ordering key are. Everything through the primary key, whatever the
 * statistics say. The commit is not waited for to reach the disk: a claim that a crash of the server undoes is made again.
 *
 * Gives the rows, then the state: what the claim sees was published to subscriptions that the later statement sees.
 */
function claimSql(floor: bigint): string {
  return `${beginSql}; set local synchronous_commit = off;
${claimRowsSql(floor)};
select
  ${orderedReadySql} as ordered_ready,
  false as order_taken,
  (select extract(epoch from min(available_at) - clock_timestamp()) from bus.outbox where available_at is not null) as next_due_seconds,
  (select count(*) || '/' || coalesce(sum(revision), 0) from bus.subscriptions) as registry_stamp`
}

/** The claim alone. */
export function claimRowsSql(floor: bigint): string {
  return `
with claimed as (
  delete from bus.outbox where position = any(array(
    select position from bus.outbox
    where position >= ${floor} and position < ${orderedPositions}
    order by position limit ${claimSize}
    for update skip locked))
  returning position, event_id, tenant_id, type, payload_bytes
)
select *, null as ordering_key from claimed order by position`
}

/** Payloads that are stored compressed or out of line show their size only when they are read. */
async function measureLarge(
  client: pg.ClientBase,
  rows: readonly ClaimRow[],
): Promise<ReadonlyMap<string, number>> {
  const ids = rows.filter((row) => row.payload_bytes === null).map((row) => row.event_id)
  if (ids.length === 0) return new Map()
  const { rows: measured } = await client.query<{ id: string; bytes: number }>(
    'select id, octet_length(payload::text) as bytes from bus.events where id = any($1::uuid[])',
    [ids],
  )
  return new Map(measured.map(({ id, bytes }) => [id, bytes]))
}

/**
/**
 * Makes scheduled events whose time has come ready, a thousand at a time: last in the line. Skips rows that another relay
 * is at, or that are being cancelled, and those with an ordering key. Resolves to their number.
 */
async function promoteDue(database: Database): Promise<number> {
  const { rows } = await database.query<{ count: number }>(`
with promoted as (
  update bus.outbox set available_at = null, position = default
  where position in (
    select position from bus.outbox where available_at <= clock_timestamp() and ordering_key is null
    order by available_at limit ${claimSize}
    for update skip locked)
  returning 1
)
select count(*)::int as count from promoted`)
  return rows[0]?.count ?? 0
}
