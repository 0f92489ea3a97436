import type { BusLogger } from '../../foundation/logger.ts'
import { reasonOf } from '../../foundation/error-reason.ts'
import type { BusClient } from '../../database/bus-client.ts'
import type { Database } from '../../database/database.ts'
import { failureDelayMs } from '../../foundation/retry-delay.ts'
import { createListenTest, type ListenTest } from './listen-test.ts'
import { locks } from '../../database/locks.ts'

/** Publishers notify it if no relay is awake. */
export const outboxChannel = 'bus_outbox'
const wakeChannel = 'bus_wake'

/** What a notifier reports to its owner. */
export interface NotifierEvents {
  /** The outbox may contain events: a publisher sent a notification, or notifications may have been missed. */
  readonly onPublished: () => void
  /** Another process has inserted jobs for these subscriptions. */
  readonly onWake: (subscriptionIds: readonly number[]) => void
  /** Another process has paused or resumed subscriptions, or opened or closed their circuit breakers. */
  readonly onStateChange: (subscriptionIds: readonly number[]) => void
  /** An operation was started, resumed, paused or cancelled: see src/operations/operation-runner.ts. */
  readonly onOperations: () => void
  /** The session was opened or lost. */
  readonly onConnection: (connected: boolean) => void
}

/**
 * The one session of a process that listens and holds locks. It reconnects by itself until it is closed.
 *
 * The session is tested before it is used, and periodically afterwards. Behind a pooler in transaction mode
 * notifications get lost, and session-level locks stay with whichever client comes next; the notifier then takes no
 * locks, and the bus polls.
 */
export interface Notifier {
  /** True while this process is the leader: it may sleep, and publishers wake it. */
  readonly leading: boolean
  /** True while publishers send notifications, because this process sleeps. */
  readonly sleeping: boolean
  readonly connected: boolean
  /** True if notifications do not arrive, so that neither publishers nor other processes can wake this one. */
  readonly polling: boolean
  /** Tries to become the leader. Resolves to whether this process is the leader now. */
  lead: () => Promise<boolean>
  /** Tries to fall asleep. Fails while a publisher that saw the relay awake has not committed. */
  sleep: () => Promise<boolean>
  /** From now on publishers need not send notifications. */
  wake: () => Promise<void>
  close: () => Promise<void>
}

/** How often the session is tested, with two statements. */
const testIntervalMs = 15_000

/** How often the test is repeated if notifications do not arrive. */
const retestIntervalMs = 5 * 60_000

/** Logged once when the bus has to poll. Stable: docs/drivers.md explains it. */
export const pollingWarning =
  'notifications do not arrive, probably a pooler in transaction mode: the bus polls. Give it a direct database URL'

/** The payload that notifies other processes of new jobs, for the channel of {@link wakeSql}. */
export function wakePayload(instanceId: string, subscriptionIds: readonly number[]): string {
  return `${instanceId} ${subscriptionIds.join(',')}`
}

/** The payload for subscriptions that were paused or resumed, or whose circuit breaker opened or closed. */
export function statePayload(instanceId: string, subscriptionIds: readonly number[]): string {
  return `${instanceId} ${subscriptionIds.join(',')} state`
}

/** The payload for operations that have something to do, for all processes. Its id is of no subscription. */
export const operationsPayload = ' 0 operations'

/** Makes relays that sleep look for events, also for those that were held back. */
export const publishedSql = `select pg_notify('${outboxChannel}', '')`

/** Notifies other processes of new jobs; delivered when the transaction commits. */
export const wakeSql = `select pg_notify('${wakeChannel}', $1)`

/** Opens the session in the background and keeps it open. */
export function openNotifier(
  database: Database,
  instanceId: string,
  logger: BusLogger,
  events: NotifierEvents,
): Notifier {
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
    if (leading) logger.info({ instanceId }, 'this process is no longer the leader')
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
        if (channel === outboxChannel) events.onPublished()
        else if (channel === wakeChannel) receiveWake(payload)
      })
      await next.query(`listen ${outboxChannel}; listen ${wakeChannel}`)
      if (closed) {
        await next.end()
        return
      }
      client = next
      listenTest = test
      if (polling) logger.info({}, 'notifications arrive again: the bus no longer polls')
      polling = false
      failures = 0
      // The server may keep its locks for hours if only this end has noticed that it is disconnected.
      await endPredecessor?.().catch(() => {})
      endPredecessor = undefined
      scheduleTest()
      events.onConnection(true)
      // Notifications from before the LISTEN were missed.
      events.onPublished()
    } catch (error) {
      if (opened !== undefined && client === opened) client = undefined
      opened?.end().catch(() => {})
      if (closed) return
      logger.warn({ reason: reasonOf(error) }, 'the listening connection could not be opened, retrying')
      scheduleConnect(failureDelayMs(failures))
      failures += 1
    }
  }

  function startPolling(): void {
    if (closed) return
    if (!polling) {
      polling = true
      logger.warn({}, pollingWarning)
      events.onPublished()
    }
    scheduleConnect(retestIntervalMs)
  }

  function scheduleTest(): void {
    clearTimeout(timer)
    timer = setTimeout(runTest, testIntervalMs).unref()
  }

  /** A disconnected session fails here, at the latest when the watchdog has closed its connection. */
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
    if (what === 'operations') {
      events.onOperations()
      return
    }
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
        if (leading)
          logger.info({ instanceId }, 'this process is the leader: its relay acts on notifications first')
      }
      return leading
    },
    async sleep() {
      sleeping ||= await tryLock(locks.publishing).catch(() => false)
      return sleeping
    },
    async wake() {
      if (!sleeping) return
      sleeping = false
      // A lost session has released its locks.
      await client
        ?.query(`select pg_advisory_unlock(${locks.namespace}, ${locks.publishing})`)
        .catch(() => {})
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
