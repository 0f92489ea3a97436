import type { Database } from '../../database/database.ts'
import { reasonOf } from '../../foundation/error-reason.ts'
import type { BusLogger } from '../../foundation/logger.ts'
import {
  claimAlert,
  claimCalls,
  endAlert,
  endCall,
  postponeAlert,
  postponeCall,
  type ClaimedCall,
} from '../ledger/dead-letter-calls.ts'
import type { DeadLetterCallbacks } from '../subscriptions/dead-letter-callbacks.ts'

/** Tells the callbacks of this process of dead letters. */
export interface DeadLetterCalls {
  /** Events have become dead letters. */
  readonly wake: () => void
  /** Resolves when the calls under way have ended, or have taken too long. */
  readonly stop: () => Promise<void>
}

/** A subscription with callbacks. */
interface ToldSubscription {
  readonly id: number
  readonly name: string
  readonly callbacks: DeadLetterCallbacks
}

/** How often a process looks for calls that another one has left. */
const lookMs = 10_000

/** How soon it looks for a call that has failed. Others follow at the pace above. */
const retryMs = 1100

/** A callback that takes longer has failed. */
const maxCallMs = 30_000

/**
 * Calls `onDeadLetter` and `deadLetterAlert` of subscriptions. What is to be told is in the database, written in the transaction that makes the
 * dead letter. Any process of the subscription may tell it: it claims the call for a minute, calls, and removes it. After a crash in
 * between another one calls again.
 */
export function startDeadLetterCalls(
  database: Database,
  logger: BusLogger,
  subscriptions: () => readonly ToldSubscription[],
): DeadLetterCalls {
  let timer: NodeJS.Timeout | undefined
  let running: Promise<void> | undefined
  let isWoken = false
  let isStopped = false
  let hasFailed = false

  function schedule(delayMs: number): void {
    if (isStopped) return
    clearTimeout(timer)
    timer = setTimeout(() => {
      running ??= pass().finally(() => {
        running = undefined
        schedule(isWoken ? 0 : hasFailed ? retryMs : lookMs)
      })
    }, delayMs)
    timer.unref()
  }

  async function pass(): Promise<void> {
    isWoken = false
    hasFailed = false
    try {
      for (const subscription of subscriptions()) {
        await tellLetters(subscription)
        await tellAlert(subscription)
      }
    } catch (error) {
      logger.warn({ reason: reasonOf(error) }, 'dead letters could not be announced, retrying')
    }
  }

  async function tellLetters({ id, name, callbacks }: ToldSubscription): Promise<void> {
    const { onDeadLetter } = callbacks
    if (onDeadLetter === undefined) return
    while (!isStopped) {
      const claimed = await claimCalls(database, id)
      if (claimed.length === 0) return
      await database.faultPoint?.('dead-letter-call.claimed')
      await Promise.all(
        claimed.map(async (call) => {
          const isTold = await attempt(async () => onDeadLetter(toNotice(name, call)), {
            subscription: name,
            id: call.eventId,
          })
          await database.faultPoint?.('dead-letter-call.called')
          if (isTold) await endCall(database, id, call)
          else if (await postponeCall(database, id, call))
            logger.error({ subscription: name, id: call.eventId }, 'onDeadLetter failed for a day: given up')
        }),
      )
      await database.faultPoint?.('dead-letter-call.ended')
    }
  }

  async function tellAlert({ id, name, callbacks }: ToldSubscription): Promise<void> {
    const { deadLetterAlert } = callbacks
    if (deadLetterAlert === undefined || isStopped) return
    const { count, perSeconds, onAlert } = deadLetterAlert
    const firstAt = await claimAlert(database, id, deadLetterAlert)
    if (firstAt === undefined) return
    const alert = { subscription: name, count, perSeconds, firstAt }
    if (await attempt(async () => onAlert(alert), { subscription: name })) await endAlert(database, id)
    else await postponeAlert(database, id)
  }

  /** Whether a callback succeeded. */
  async function attempt(call: () => Promise<unknown>, fields: object): Promise<boolean> {
    let deadline: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      deadline = setTimeout(
        () => reject(new Error(`The callback took longer than ${maxCallMs} ms`)),
        maxCallMs,
      )
      deadline.unref()
    })
    try {
      await Promise.race([call(), late])
      return true
    } catch (error) {
      logger.error(
        { ...fields, reason: reasonOf(error) },
        'a callback for dead letters failed: it is called again',
      )
      hasFailed = true
      return false
    } finally {
      clearTimeout(deadline)
    }
  }

  if (subscriptions().length > 0) schedule(0)

  return {
    wake() {
      if (subscriptions().length === 0) return
      isWoken = true
      if (running === undefined) schedule(0)
    },
    async stop() {
      isStopped = true
      clearTimeout(timer)
      await running
    },
  }
}

function toNotice(
  subscription: string,
  { eventId, tenantId, state, attempts, deadAt, error }: ClaimedCall,
): Parameters<NonNullable<DeadLetterCallbacks['onDeadLetter']>>[0] {
  return { id: eventId, subscription, tenantId, state, attempts, deadAt, error }
}
