import type { Database } from '../../database/database.ts'
import { reasonOf } from '../../foundation/error-reason.ts'
import type { BusLogger } from '../../foundation/logger.ts'
import {
  claimAlerts,
  claimCalls,
  endAlerts,
  endCalls,
  postponeAlerts,
  postponeCalls,
  type ClaimedCall,
} from '../ledger/dead-letter-calls.ts'
import { runOutside } from '../../telemetry/guarded-span.ts'
import type { DeadLetterCallbacks } from '../subscriptions/dead-letter-callbacks.ts'

/** Tells the callbacks of this process of dead letters. */
export interface DeadLetterCalls {
  /** Events have become dead letters. */
  readonly wake: () => void
  /**
   * Begins no further call. Resolves when those under way have ended, or at the deadline, in terms of `performance.now()`: what has not
   * answered by then is called again by another process.
   */
  readonly stop: (deadline: number) => Promise<void>
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

/** What came of a call. `left`: it was not made, or was under way, when the process stopped. */
type Answer = 'told' | 'failed' | 'left'

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
  /** Leaves the calls under way. */
  const underWay = new Set<() => void>()

  function schedule(delayMs: number): void {
    if (isStopped) return
    clearTimeout(timer)
    // Woken in the trace of one dead letter, and goes on for others.
    timer = runOutside(() =>
      setTimeout(() => {
        running ??= pass().finally(() => {
          running = undefined
          schedule(isWoken ? 0 : hasFailed ? retryMs : lookMs)
        })
      }, delayMs),
    )
    timer.unref()
  }

  async function pass(): Promise<void> {
    isWoken = false
    hasFailed = false
    const told = subscriptions()
    await Promise.all(
      [tellLetters(told), tellAlerts(told)].map(async (telling) => telling.catch(reportFailure)),
    )
  }

  function reportFailure(error: unknown): void {
    if (!isStopped) logger.warn({ reason: reasonOf(error) }, 'dead letters could not be announced, retrying')
  }

  async function tellLetters(told: readonly ToldSubscription[]): Promise<void> {
    const byId = new Map(
      told.flatMap(({ id, name, callbacks: { onDeadLetter } }) =>
        onDeadLetter === undefined ? [] : [[id, { name, onDeadLetter }] as const],
      ),
    )
    while (!isStopped) {
      const claimed = await claimCalls(database, [...byId.keys()])
      if (claimed.length === 0) return
      await database.faultPoint?.('dead-letter-call.claimed')
      const { told: ended, failed } = await callEach(claimed, async (call) => {
        const subscription = byId.get(call.subscriptionId)
        if (subscription === undefined) return 'left'
        const { name, onDeadLetter } = subscription
        const answer = await attempt(async () => onDeadLetter(toNotice(name, call)), {
          subscription: name,
          id: call.eventId,
        })
        await database.faultPoint?.('dead-letter-call.called')
        return answer
      })
      await endCalls(database, ended)
      for (const { subscriptionId, eventId } of await postponeCalls(database, failed))
        logger.error(
          { subscription: byId.get(subscriptionId)?.name, id: eventId },
          'onDeadLetter failed for a day: given up',
        )
      await database.faultPoint?.('dead-letter-call.ended')
    }
  }

  async function tellAlerts(told: readonly ToldSubscription[]): Promise<void> {
    const byId = new Map(
      told.flatMap(({ id, name, callbacks: { deadLetterAlert } }) =>
        deadLetterAlert === undefined ? [] : [[id, { name, ...deadLetterAlert }] as const],
      ),
    )
    const claimed = await claimAlerts(
      database,
      [...byId].map(([subscriptionId, { count, perSeconds }]) => ({ subscriptionId, count, perSeconds })),
    )
    const { told: ended, failed } = await callEach(claimed, async ({ subscriptionId, firstAt }) => {
      const wanted = byId.get(subscriptionId)
      if (wanted === undefined) return 'left'
      const { name: subscription, count, perSeconds, onAlert } = wanted
      return attempt(async () => onAlert({ subscription, count, perSeconds, firstAt }), { subscription })
    })
    const idOf = ({ subscriptionId }: (typeof claimed)[number]): number => subscriptionId
    await endAlerts(database, ended.map(idOf))
    await postponeAlerts(database, failed.map(idOf))
  }

  async function attempt(call: () => Promise<unknown>, fields: object): Promise<Answer> {
    if (isStopped) return 'left'
    const answer = Promise.withResolvers<Answer>()
    const leave = (): void => answer.resolve('left')
    const deadline = setTimeout(
      () => answer.reject(new Error(`The callback took longer than ${maxCallMs} ms`)),
      maxCallMs,
    ).unref()
    underWay.add(leave)
    call().then(() => answer.resolve('told'), answer.reject)
    try {
      return await answer.promise
    } catch (error) {
      logger.error(
        { ...fields, reason: reasonOf(error) },
        'a callback for dead letters failed: it is called again',
      )
      hasFailed = true
      return 'failed'
    } finally {
      clearTimeout(deadline)
      underWay.delete(leave)
    }
  }

  if (subscriptions().length > 0) schedule(0)

  return {
    wake() {
      if (subscriptions().length === 0) return
      isWoken = true
      if (running === undefined) schedule(0)
    },
    async stop(deadline) {
      isStopped = true
      clearTimeout(timer)
      const leaving = setTimeout(
        () => {
          for (const leave of underWay) leave()
        },
        Math.max(0, deadline - performance.now()),
      )
      await running
      clearTimeout(leaving)
    },
  }
}

/** Makes calls at the same time. Those that were left are in neither list: their claims end by themselves. */
async function callEach<C>(
  claimed: readonly C[],
  call: (one: C) => Promise<Answer>,
): Promise<{ readonly told: readonly C[]; readonly failed: readonly C[] }> {
  const answers = await Promise.all(claimed.map(call))
  const withAnswer = (answer: Answer): readonly C[] => claimed.filter((_, index) => answers[index] === answer)
  return { told: withAnswer('told'), failed: withAnswer('failed') }
}

function toNotice(
  subscription: string,
  { eventId, tenantId, state, attempts, deadAt, error }: ClaimedCall,
): Parameters<NonNullable<DeadLetterCallbacks['onDeadLetter']>>[0] {
  return { id: eventId, subscription, tenantId, state, attempts, deadAt, error }
}
