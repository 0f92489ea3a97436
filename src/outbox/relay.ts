import type pg from 'pg'
import { toBusError } from './database-errors.ts'
import type { Database } from './database.ts'
import type { Doorbell } from './doorbell.ts'
import { failureDelayMs } from './failure-delay.ts'
import type { BusLogger } from '../events/logger.ts'

/** An event the relay has taken out of the outbox, in the transaction that took it. */
export interface ClaimedEvent {
  readonly id: string
  readonly tenantId: string
  readonly type: string
  /** About the bytes of the payload as text. */
  readonly payloadBytes: number
}

/** Hands claimed events over, inside the claiming transaction. Resolves to what to do once it has committed. */
export type Dispatch = (
  client: pg.ClientBase,
  claimed: readonly ClaimedEvent[],
  registryStamp: string,
) => Promise<() => void>

/** What the relay is doing, for health. */
export type RelayState = 'stopped' | 'awake' | 'sleeping' | 'standby' | 'failing'

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

/** Where the positions of scheduled events begin: 2^62. The trigger that writes them has the same number. */
const scheduledPositions = 4_611_686_018_427_387_904n

/** From this many events in one claim on, publishers are told not to ring: ringing takes a database-wide lock. */
const busyClaimSize = 16

/** A busy relay pauses this long after a small claim, and tries to sleep after this many of them. */
const busyPauseMs = 2
const smallClaimsBeforeSleep = 10

/** How often a relay that cannot sleep yet looks again. */
const restlessPauseMs = 10

/** A relay that does not lead leaves single events to the leader and looks after this long. */
const standbyDelayMs = 25
const standbyPollMs = 2000

/** What is due, but locked, is looked for again after this long. */
const lockedPauseMs = 50

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
  let smallClaims = 0
  let floor = 0n
  let sweptAt = 0
  let nextDueMs: number | undefined
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

  /** Claims until nothing is ready. Resolves to the size of the largest claim. */
  async function drain(): Promise<number> {
    let largest = 0
    floor = 0n
    while (!stopping) {
      rang = false
      const now = performance.now()
      const full = floor === 0n || now - sweptAt > sweepIntervalMs
      if (full) sweptAt = now
      const claim = await claimOnce(database, full ? 0n : floor, dispatch)
      claim.afterCommit()
      dispatchedCount += claim.count
      nextDueMs = claim.nextDueMs
      largest = Math.max(largest, claim.count)
      if (claim.count >= busyClaimSize && doorbell.sleeping) await doorbell.wake()
      const isDue = claim.nextDueMs !== undefined && claim.nextDueMs <= 0
      const promotedCount = isDue ? await promoteDue(database) : 0
      // Somebody cancels it, or another relay is at it.
      if (isDue && promotedCount === 0) nextDueMs = lockedPauseMs
      if (claim.count === claimSize) {
        // Late committers below the floor are found by the next full sweep.
        floor = claim.lastPosition + 1n
        continue
      }
      if (floor === 0n && promotedCount === 0) break
      floor = 0n
    }
    return largest
  }

  async function restAfter(largestClaim: number): Promise<void> {
    if (rang && !doorbell.sleeping) return rest(busyPauseMs, false)
    if (rang) return
    const dueMs = Math.max(0, Math.min(nextDueMs ?? safetyPollMs, safetyPollMs))
    if (!doorbell.connected) {
      state = 'awake'
      return rest(Math.min(dueMs, 500), true)
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
    smallClaims = largestClaim >= busyClaimSize ? 0 : smallClaims + 1
    if (dispatchedCount > 0 && smallClaims < smallClaimsBeforeSleep) return rest(busyPauseMs, false)
    // Granted: one more look, because what was published before the lock was taken did not ring.
    if (!(await doorbell.sleep())) return rest(Math.min(dueMs, restlessPauseMs), false)
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
  readonly afterCommit: () => void
}

interface StateRow {
  readonly next_due_seconds: string | null
  readonly registry_stamp: string
}

interface ClaimRow {
  readonly position: string
  readonly event_id: string
  readonly tenant_id: string
  readonly type: string
  readonly payload_bytes: number | null
}

/**
 * One claim: takes up to {@link claimSize} ready rows out of the outbox, hands their events over, commits.
 * All or nothing: a crash anywhere leaves the rows where they were.
 */
async function claimOnce(database: Database, floor: bigint, dispatch: Dispatch): Promise<Claim> {
  const client = await database.pool.connect().catch((error: unknown) => {
    throw toBusError(error)
  })
  let broken = false
  try {
    const [, state, { rows }] = (await client.query(`begin; ${stateSql}; ${claimSql(floor)}`)) as unknown as [
      unknown,
      pg.QueryResult<StateRow>,
      pg.QueryResult<ClaimRow>,
    ]
    const { next_due_seconds: dueSeconds = null, registry_stamp: registryStamp = '' } = state.rows[0] ?? {}
    const measured = await measureLarge(client, rows)
    const claimed = rows.map(({ event_id, tenant_id, type, payload_bytes }) => ({
      id: event_id,
      tenantId: tenant_id,
      type,
      payloadBytes: payload_bytes ?? measured.get(event_id) ?? 0,
    }))
    const afterCommit = claimed.length > 0 ? await dispatch(client, claimed, registryStamp) : () => {}
    await client.query('commit')
    return {
      count: rows.length,
      lastPosition: BigInt(rows.at(-1)?.position ?? 0),
      nextDueMs: dueSeconds === null ? undefined : Number(dueSeconds) * 1000,
      afterCommit,
    }
  } catch (error) {
    await client.query('rollback').catch(() => {
      broken = true
    })
    throw toBusError(error)
  } finally {
    client.release(broken)
  }
}

/** Seconds until the next scheduled event, and what the registry of subscriptions has come to. */
const stateSql = `
select
  (select extract(epoch from min(available_at) - clock_timestamp()) from bus.outbox where available_at is not null) as next_due_seconds,
  (select count(*) || '/' || coalesce(sum(revision), 0) from bus.subscriptions) as registry_stamp`

/**
 * Row locks on the claimed rows only (SKIP LOCKED: rows of another relay are passed over), in position order, from
 * the floor on, up to where the scheduled ones are. Everything through the primary key, whatever the statistics say.
 */
export function claimSql(floor: bigint): string {
  return `
with claimed as (
  delete from bus.outbox where position = any(array(
    select position from bus.outbox
    where position >= ${floor} and position < ${scheduledPositions}
    order by position limit ${claimSize}
    for update skip locked))
  returning position, event_id, tenant_id, type, payload_bytes
)
select * from claimed order by position`
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
 * Makes scheduled events whose time has come ready, a thousand at a time: last in the line. Skips rows that another relay
 * is at, or that are being cancelled. Resolves to their number.
 */
async function promoteDue(database: Database): Promise<number> {
  const { rows } = await database.query<{ count: number }>(`
with promoted as (
  update bus.outbox set available_at = null, position = default
  where position in (
    select position from bus.outbox where available_at <= clock_timestamp()
    order by available_at limit ${claimSize}
    for update skip locked)
  returning 1
)
select count(*)::int as count from promoted`)
  return rows[0]?.count ?? 0
}
