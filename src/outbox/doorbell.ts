import type pg from 'pg'
import type { BusLogger } from '../events/logger.ts'
import type { Database } from './database.ts'
import { failureDelayMs } from './failure-delay.ts'

/**
 * The advisory locks of the bus: two-integer keys, so they cannot collide with a user's one-integer keys.
 * The SQL of the migrations has the same numbers.
 */
export const locks = {
  namespace: 1_651_864_320,
  /** Held shared by publishers until they end, exclusively by the relay that sleeps. */
  awake: 1,
  /** Held by the one relay that holds the bell. */
  leader: 2,
  /** Held while migrating. */
  migrate: 3,
  /** Held while subscriptions are registered and their queues created. */
  registry: 4,
  /** Held by bus.create_partitions(), in SQL. */
  partitions: 5,
  /** Held by the one relay that hands events with an ordering key over, until its transaction has ended. */
  order: 6,
} as const

const doorbellChannel = 'bus_doorbell'
const wakeChannel = 'bus_wake'

/** What a doorbell tells its owner. */
export interface DoorbellEvents {
  /** Something may be waiting in the outbox: a publisher rang, or rings may have been missed. */
  readonly onRing: () => void
  /** Another process inserted jobs for these subscriptions. */
  readonly onWake: (subscriptionIds: readonly number[]) => void
  /** The session came up, or was lost. */
  readonly onConnection: (connected: boolean) => void
}

/** The one session of a process that listens and holds locks. It reconnects by itself until closed. */
export interface Doorbell {
  /** True while this process is the one that may sleep and is woken at once. */
  readonly leading: boolean
  /** True while publishers ring, because this process sleeps. */
  readonly sleeping: boolean
  readonly connected: boolean
  /** Tries to become the leader. Resolves to whether this process leads now. */
  lead: () => Promise<boolean>
  /** Tries to fall asleep: impossible while a publisher that saw the relay awake has not committed. */
  sleep: () => Promise<boolean>
  /** From now on publishers need not ring. */
  wake: () => Promise<void>
  close: () => Promise<void>
}

/** The text to notify other processes with, for the channel of {@link wakeSql}. */
export function wakePayload(instanceId: string, subscriptionIds: readonly number[]): string {
  return `${instanceId} ${subscriptionIds.join(',')}`
}

/** Notifies other processes that jobs were inserted; delivered when the transaction commits. */
export const wakeSql = `select pg_notify('${wakeChannel}', $1)`

/** Opens the session in the background and keeps it open. */
export function openDoorbell(
  database: Database,
  instanceId: string,
  logger: BusLogger,
  events: DoorbellEvents,
): Doorbell {
  let client: pg.Client | undefined
  let leading = false
  let sleeping = false
  let closed = false
  let failures = 0
  let timer: NodeJS.Timeout | undefined
  let connecting: Promise<void> | undefined

  function onLost(lost: pg.Client): void {
    if (client !== lost) return
    client = undefined
    leading = false
    sleeping = false
    lost.end().catch(() => {})
    if (closed) return
    logger.warn({}, 'the listening connection was lost, reconnecting')
    events.onConnection(false)
    scheduleConnect()
  }

  function scheduleConnect(): void {
    timer = setTimeout(() => {
      connecting = connect()
    }, failureDelayMs(failures))
    failures += 1
  }

  async function connect(): Promise<void> {
    try {
      const next = await database.openSession()
      next.on('error', () => onLost(next))
      next.on('end', () => onLost(next))
      next.on('notification', ({ channel, payload = '' }) => {
        if (channel === doorbellChannel) events.onRing()
        else receiveWake(payload)
      })
      client = next
      await next.query(`listen ${doorbellChannel}; listen ${wakeChannel}`)
      if (closed) {
        await next.end()
        return
      }
      failures = 0
      events.onConnection(true)
      // Rings from before the LISTEN were missed.
      events.onRing()
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      if (client !== undefined) {
        const failed = client
        client = undefined
        failed.end().catch(() => {})
      }
      if (closed) return
      logger.warn({ reason }, 'the listening connection could not be opened, trying again')
      scheduleConnect()
    }
  }

  function receiveWake(payload: string): void {
    const [sender, ids = ''] = payload.split(' ')
    if (sender !== instanceId && ids !== '') events.onWake(ids.split(',').map(Number))
  }

  async function tryLock(key: number): Promise<boolean> {
    const session = client
    if (session === undefined) return false
    const { rows } = await session.query<{ held: boolean }>(
      `select pg_try_advisory_lock(${locks.namespace}, ${key}) as held`,
    )
    return session === client && rows[0]?.held === true
  }

  connecting = connect()

  return {
    get leading() {
      return leading
    },
    get sleeping() {
      return sleeping
    },
    get connected() {
      return client !== undefined
    },
    async lead() {
      leading ||= await tryLock(locks.leader).catch(() => false)
      return leading
    },
    async sleep() {
      sleeping ||= await tryLock(locks.awake).catch(() => false)
      return sleeping
    },
    async wake() {
      if (!sleeping) return
      sleeping = false
      // A lost session has lost its locks with it.
      await client?.query(`select pg_advisory_unlock(${locks.namespace}, ${locks.awake})`).catch(() => {})
    },
    async close() {
      closed = true
      clearTimeout(timer)
      await connecting
      const last = client
      client = undefined
      leading = false
      sleeping = false
      await last?.end().catch(() => {})
    },
  }
}
