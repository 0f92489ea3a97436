import type { BusLogger } from '../../foundation/logger.ts'
import { reasonOf } from '../../foundation/error-reason.ts'
import { failureDelayMs } from '../../foundation/retry-delay.ts'
import type { Settlement } from './settlement.ts'

/** Writes settlements one transaction at a time; what arrives meanwhile goes into the next one together. */
export interface Settler {
  /** @param onWritten - called once it is written, or given up */
  add: (settlement: Settlement, onWritten?: () => void) => void
  /** Repeats until it succeeds: what is done cannot be undone, so a database that is away is waited for. */
  untilWritten: <T>(write: () => Promise<T>) => Promise<T>
  /** From this moment of `performance.now()` on, a failed write is given up. */
  giveUpAt: (moment: number) => void
  idle: () => Promise<void>
}

/** What could not be written because of a lock is tried again after this long, and holds up nothing else. */
const lockedPauseMs = 200

/** @param write - resolves to those that could not be written now, because somebody else holds a lock */
export function createSettler(
  write: (batch: readonly Settlement[]) => Promise<readonly Settlement[]>,
  logger: BusLogger,
): Settler {
  interface Entry {
    readonly settlement: Settlement
    readonly onWritten: () => void
  }
  const waiting: Entry[] = []
  const postponed = new Set<Promise<void>>()
  let flushing: Promise<void> | undefined
  let deadline = Number.POSITIVE_INFINITY

  async function untilWritten<T>(attempt: () => Promise<T>): Promise<T> {
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
    // What else is done in this turn of the event loop goes into the same transaction.
    await new Promise((resolve) => setImmediate(resolve))
    while (waiting.length > 0) {
      let batch = waiting.splice(0)
      try {
        const left = await untilWritten(async () => write(batch.map(({ settlement }) => settlement)))
        if (left.length > 0) {
          postpone(batch.filter(({ settlement }) => left.includes(settlement)))
          batch = batch.filter(({ settlement }) => !left.includes(settlement))
        }
      } catch (error) {
        logger.error(
          { reason: reasonOf(error) },
          'deliveries could not be written before the stop: they run again',
        )
      }
      for (const { onWritten } of batch) onWritten()
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
      for (const { onWritten } of entries) onWritten()
    })
    postponed.add(pause)
  }

  return {
    add(settlement, onWritten = () => {}) {
      waiting.push({ settlement, onWritten })
      flushing ??= flush()
    },
    untilWritten,
    giveUpAt(moment) {
      deadline = moment
    },
    async idle() {
      while (flushing !== undefined || postponed.size > 0) await (flushing ?? Promise.race(postponed))
    },
  }
}
