import { reasonOf } from '../../foundation/error-reason.ts'
import type { BusLogger } from '../../foundation/logger.ts'
import { failureDelayMs } from '../../foundation/retry-delay.ts'
import type { Settlement } from './settlement.ts'

/** Writes settlements one transaction at a time. Those that arrive meanwhile go into the next transaction together. */
export interface SettlementQueue {
  /** Resolves once the settlement is written, or given up. */
  add: (settlement: Settlement) => Promise<void>
  /**
   * Repeats a read or a write until it succeeds, or the stop's deadline has passed: the handler has run, so its outcome must not be
   * dropped while the database is away.
   */
  retryUntilDone: <T>(attempt: () => Promise<T>) => Promise<T>
  /** From this moment of `performance.now()` on, a write that failed is given up. */
  giveUpAt: (moment: number) => void
  idle: () => Promise<void>
}

/** What could not be written because of a lock is tried again after this long, and does not hold up the rest. */
const lockedPauseMs = 200

/** @param write - resolves to the settlements that could not be written now, because another session holds a lock */
export function createSettlementQueue(
  write: (batch: readonly Settlement[]) => Promise<readonly Settlement[]>,
  logger: BusLogger,
): SettlementQueue {
  interface Entry {
    readonly settlement: Settlement
    readonly onOver: () => void
  }
  const waiting: Entry[] = []
  const postponed = new Set<Promise<void>>()
  let flushing: Promise<void> | undefined
  let deadline = Number.POSITIVE_INFINITY

  async function retryUntilDone<T>(attempt: () => Promise<T>): Promise<T> {
    for (let failures = 0; ; failures += 1) {
      try {
        return await attempt()
      } catch (error) {
        const delayMs = failureDelayMs(failures)
        logger.warn({ reason: reasonOf(error), delayMs }, 'a delivery could not be read or written, retrying')
        if (performance.now() + delayMs > deadline) throw error
        await new Promise((resolve) => setTimeout(resolve, delayMs).unref())
      }
    }
  }

  async function flush(): Promise<void> {
    // Whatever else ends in this turn of the event loop goes into the same transaction.
    await new Promise((resolve) => setImmediate(resolve))
    while (waiting.length > 0) {
      let batch = waiting.splice(0)
      try {
        const locked = await retryUntilDone(async () => write(batch.map(({ settlement }) => settlement)))
        if (locked.length > 0) {
          postpone(batch.filter(({ settlement }) => locked.includes(settlement)))
          batch = batch.filter(({ settlement }) => !locked.includes(settlement))
        }
      } catch (error) {
        logger.error(
          { reason: reasonOf(error) },
          'deliveries could not be written before the stop: they run again',
        )
      }
      for (const { onOver } of batch) onOver()
    }
    flushing = undefined
  }

  function postpone(entries: readonly Entry[]): void {
    const pause = new Promise<void>((resolve) => setTimeout(resolve, lockedPauseMs).unref()).then(() => {
      postponed.delete(pause)
      if (performance.now() < deadline) {
        waiting.push(...entries)
        flushing ??= flush()
        return
      }
      logger.error({}, 'a lock kept deliveries from being written before the stop: they run again')
      for (const { onOver } of entries) onOver()
    })
    postponed.add(pause)
  }

  return {
    async add(settlement) {
      return new Promise((resolve) => {
        waiting.push({ settlement, onOver: resolve })
        flushing ??= flush()
      })
    },
    retryUntilDone,
    giveUpAt(moment) {
      deadline = moment
    },
    async idle() {
      while (flushing !== undefined || postponed.size > 0) await (flushing ?? Promise.race(postponed))
    },
  }
}
