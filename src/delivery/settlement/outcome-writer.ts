import type pg from 'pg'
import type { JobClaim } from '../jobs/job-claim.ts'
import { isOfKey } from '../jobs/job.ts'
import type { SubscriptionContext } from '../jobs/subscription-context.ts'
import { createJobSettlementWriter } from './job-settlement.ts'
import { createKeySettlementWriter, withLockedKeys } from './key-settlement.ts'
import type { Settlement, SettlementWriter, Written } from './settlement.ts'
import { logDeadLetters } from '../jobs/job-writer.ts'
import { isLockTimeout } from '../../database/database-errors.ts'

/** The one place that writes what happened to a subscription's jobs. */
export interface OutcomeWriter {
  /** Writes settlements: those of keys' jobs in a transaction of their own. */
  write: (settlements: readonly Settlement[]) => Promise<WrittenBatch>
  /** As {@link SettlementWriter.writeInto}. What it returns is for `logWritten`, after the commit. */
  writeInto: (client: pg.ClientBase, settlement: Settlement) => Promise<Written>
  /** As {@link SettlementWriter.recover}. */
  recover: (claim: JobClaim) => Promise<void>
  /** Logs the dead letters of a transaction that has committed. */
  logWritten: (written: Written) => void
}

interface WrittenBatch {
  /** Jobs that are ready now. */
  readonly readyCount: number
  /** The settlements of keys whose row another session holds: they are to be written later. */
  readonly postponed: readonly Settlement[]
}

export function createOutcomeWriter(context: SubscriptionContext): OutcomeWriter {
  const ofJobs = createJobSettlementWriter(context)
  const ofKeys = createKeySettlementWriter(context)
  const writerOf = (claim: JobClaim): SettlementWriter => (isOfKey(claim.data) ? ofKeys : ofJobs)
  function logWritten({ deadLetters }: Written): void {
    logDeadLetters(context, deadLetters)
    context.rollups.dead(context.subscriptionId, deadLetters)
  }

  async function writeAll(writer: SettlementWriter, settlements: readonly Settlement[]): Promise<number> {
    if (settlements.length === 0) return 0
    const written = await writer.write(settlements)
    logWritten(written)
    return written.readyCount
  }

  return {
    async write(settlements) {
      const keys = settlements.filter(({ claim }) => isOfKey(claim.data))
      await writeAll(
        ofJobs,
        settlements.filter(({ claim }) => !isOfKey(claim.data)),
      )
      try {
        return { readyCount: await writeAll(ofKeys, keys), postponed: [] }
      } catch (error) {
        if (!isLockTimeout(error)) throw error
        // A worker that was stopped, or an operator, holds a key: the other keys do not wait for it.
        const postponed = await withLockedKeys(context.database, keys)
        if (postponed.length === 0) throw error
        const free = keys.filter((settlement) => !postponed.includes(settlement))
        return { readyCount: await writeAll(ofKeys, free), postponed }
      }
    },
    writeInto: async (client, settlement) => writerOf(settlement.claim).writeInto(client, settlement),
    async recover(claim) {
      logWritten(await writerOf(claim).recover(claim))
    },
    logWritten,
  }
}
