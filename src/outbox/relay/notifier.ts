import type { BusLogger } from '../../foundation/logger.ts'
import { reasonOf } from '../../foundation/error-reason.ts'
import type { BusClient } from '../../database/bus-client.ts'
import type { Database } from '../../database/database.ts'
import { failureDelayMs } from '../../foundation/retry-delay.ts'
import { createListenTest, type ListenTest } from './listen-test.ts'
import { locks } from '../../database/locks.ts'

const doorbellChannel = 'bus_outbox'
const wakeChannel = 'bus_wake'

/** What a doorbell tells its owner. */
export interface DoorbellEvents {
  /** Something may be waiting in the outbox: a publisher rang, or rings may have been missed. */
  readonly onRing: () => void
  /** Another process inserted jobs for these subscriptions. */
  readonly onWake: (subscriptionIds: readonly number[]) => void
  /** Subscriptions were paused or resumed, or their circuit breakers opened or closed, in another process. */
  readonly onStateChange: (subscriptionIds: readonly number[]) => void
  /** The session came up, or was lost. */
  readonly onConnection: (connected: boolean) => void
}

/**
 * The one session of a process that listens and holds locks. It reconnects by itself until closed.
 *
 * It is tested before it is relied on, and now and then after. Behind a pooler that hands every transaction another
 * session, notifications get lost and a session's locks stay with whoever comes next: there it takes none and polls.
 */
export interface Doorbell {
  /** True while this process is the one that may sleep and is woken at once. */
  readonly leading: boolean
  /** True while publishers ring, because this process sleeps. */
  readonly sleeping: boolean
  readonly connected: boolean
  /** True where notifications do not arrive: rings and wakes will not come. */
  readonly polling: boolean
  /** Tries to become the leader. Resolves to whether this process leads now. */
  lead: () => Promise<boolean>
  /** Tries to fall asleep: impossible while a publisher that saw the relay awake has not committed. */
  sleep: () => Promise<boolean>
  /** From now on publishers need not ring. */
  wake: () => Promise<void>
  close: () => Promise<void>
}

/** How often the session is tested: two statements. */
const testIntervalMs = 15_000

/** Where notifications do not arrive, how often that is tested again. */
const retestIntervalMs = 5 * 60_000

/** What the bus logs, once, where it has to poll. Stable: docs/drivers.md explains it. */
export const pollingWarning =
  'notifications do not arrive, probably a pooler in transaction mode: the bus polls. Give it a direct database URL'

/** The text to notify other processes with, for the channel of {@link wakeSql}. */
export function wakePayload(instanceId: string, subscriptionIds: readonly number[]): string {
  return `${instanceId} ${subscriptionIds.join(',')}`
}

/** The same for subscriptions whose state has changed: paused, resumed, circuit breaker opened or closed. */
export function statePayload(instanceId: string, subscriptionIds: readonly number[]): string {
  return `${instanceId} ${subscriptionIds.join(',')} state`
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
  let client: BusClient | undefined
  let leading = false
  let sleeping = false
  let polling = false
  let closed = false
  let failures = 0
  let timer: NodeJS.Timeout | undefined
  let connecting: Promise<void> | undefined
  let testing: Promise<void> | undefined
  let listenTest: ListenTest | undefined
  let endPredecessor: (() => Promise<void>) | undefined

  function onLost(lost: BusClient): void {
    if (client !== lost) return
    client = undefined
    endLead()
    sleeping = false
    clearTimeout(timer)
    endPredecessor = listenTest?.endSession
    lost.end().catch(() => {})
    if (closed) return
    logger.warn({}, 'the listening connection was lost, reconnecting')
    events.onConnection(false)
    scheduleConnect(failureDelayMs(failures))
    failures += 1
  }

  function endLead(): void {
    if (leading) logger.info({ instanceId }, 'this process no longer leads')
    leading = false
  }

  function scheduleConnect(delayMs: number): void {
    timer = setTimeout(() => {
      connecting = connect()
    }, delayMs).unref()
  }

  async function connect(): Promise<void> {
    let opened: BusClient | undefined
    try {
      const next = await database.openSession()
      opened = next
      const test = createListenTest(database, next, instanceId)
      if (!(await test.start())) {
        await next.end()
        startPolling()
        return
      }
      next.on('error', () => onLost(next))
      next.on('end', () => onLost(next))
      next.on('notification', ({ channel, payload = '' }) => {
        if (channel === doorbellChannel) events.onRing()
        else if (channel === wakeChannel) receiveWake(payload)
      })
      await next.query(`listen ${doorbellChannel}; listen ${wakeChannel}`)
      if (closed) {
        await next.end()
        return
      }
      client = next
      listenTest = test
      if (polling) logger.info({}, 'notifications arrive again: the bus no longer polls')
      polling = false
      failures = 0
      // It may hold its locks for hours, where only this end knows that it is cut off.
      await endPredecessor?.().catch(() => {})
      endPredecessor = undefined
      scheduleTest()
      events.onConnection(true)
      // Rings from before the LISTEN were missed.
      events.onRing()
    } catch (error) {
      if (opened !== undefined && client === opened) client = undefined
      opened?.end().catch(() => {})
      if (closed) return
      logger.warn({ reason: reasonOf(error) }, 'the listening connection could not be opened, trying again')
      scheduleConnect(failureDelayMs(failures))
      failures += 1
    }
  }

  function startPolling(): void {
    if (closed) return
    if (!polling) {
      polling = true
      logger.warn({}, pollingWarning)
      events.onRing()
    }
    scheduleConnect(retestIntervalMs)
  }

  function scheduleTest(): void {
    clearTimeout(timer)
    timer = setTimeout(runTest, testIntervalMs).unref()
  }

  /** A session that is cut off fails here, at the latest when the watchdog has cut its connection. */
  function runTest(): void {
    const session = client
    if (session === undefined || closed) return
    testing ??= (async () => {
      const isGood = await listenTest?.repeat().catch(() => undefined)
      // The pool's connection failed, which says nothing about this one.
      if (isGood === false) onLost(session)
      if (client === session && !closed) scheduleTest()
    })().finally(() => {
      testing = undefined
    })
  }

  function receiveWake(payload: string): void {
    const [sender, ids = '', what] = payload.split(' ')
    if (sender === instanceId || ids === '') return
    const tell = what === 'state' ? events.onStateChange : events.onWake
    tell(ids.split(',').map(Number))
  }

  async function tryLock(key: number): Promise<boolean> {
    const session = client
    if (session === undefined) return false
    const { rows } = await session.query<{ held: boolean }>(
      `select pg_try_advisory_lock(${locks.namespace}, ${key}) as held`,
    )
    return session === client && rows[0]?.held === true
  }

  database.onConnectionsCut(runTest)
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
    get polling() {
      return polling
    },
    async lead() {
      if (!leading) {
        leading = await tryLock(locks.leader).catch(() => false)
        if (leading) logger.info({ instanceId }, 'this process leads: publishers ring it first')
      }
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
      endLead()
      sleeping = false
      await last?.end().catch(() => {})
      await testing
    },
  }
}
