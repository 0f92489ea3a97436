import { randomUUID } from 'node:crypto'
import type { BusClient } from '../../database/bus-client.ts'
import type { Database } from '../../database/database.ts'
import { createListenTest } from '../../outbox/relay/listen-test.ts'
import { outboxChannel } from '../../outbox/relay/notifier.ts'

/** Tells when it is worth to look at the log again. */
export interface WakeUps {
  /** Resolves at the next notification, when the time is over, or when the signal is aborted. */
  readonly wait: (ms: number, signal: AbortSignal) => Promise<void>
  /** Whether notifications arrive. */
  readonly isListening: () => boolean
  readonly close: () => Promise<void>
}

/** How long until a lost session is opened again. */
const reopenMs = 5000

/**
 * Listens to what publishers tell a relay that sleeps. They tell nothing to one that is awake, or if there is none, and nothing arrives through
 * a pooler in transaction mode: so it only makes waiting shorter.
 */
export function openWakeUps(database: Database): WakeUps {
  let session: BusClient | undefined
  let isPooled = false
  let isClosed = false
  let isMissed = false
  let triedAt = Number.NEGATIVE_INFINITY
  let opening: Promise<void> | undefined
  let wake: () => void = () => {}

  function notice(): void {
    isMissed = true
    wake()
  }

  async function open(): Promise<void> {
    const next = await database.openSession()
    const lose = (): void => {
      if (session === next) session = undefined
    }
    next.on('end', lose)
    next.on('error', lose)
    // Behind a pooler a LISTEN would stay with whoever comes next.
    const hears = await createListenTest(database, next, randomUUID()).start()
    if (hears) {
      next.on('notification', ({ channel }) => {
        if (channel === outboxChannel) notice()
      })
      await next.query(`listen ${outboxChannel}`)
    }
    isPooled = !hears
    if (isPooled || isClosed) await next.end()
    else session = next
  }

  function openIfDue(): void {
    if (session !== undefined || isPooled || isClosed || performance.now() - triedAt < reopenMs) return
    triedAt = performance.now()
    // A standby cannot notify, for example.
    opening = open().catch(() => {})
  }

  openIfDue()
  return {
    isListening: () => session !== undefined,
    async wait(ms, signal) {
      openIfDue()
      if (!isMissed && !signal.aborted) {
        await new Promise<void>((resolve) => {
          const timer = setTimeout(end, ms)
          function end(): void {
            clearTimeout(timer)
            signal.removeEventListener('abort', end)
            wake = () => {}
            resolve()
          }
          wake = end
          signal.addEventListener('abort', end)
        })
      }
      isMissed = false
    },
    async close() {
      isClosed = true
      await opening
      await session?.end().catch(() => {})
    },
  }
}
