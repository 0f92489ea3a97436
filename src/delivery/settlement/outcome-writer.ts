import type pg from 'pg'
import type { JobClaim } from '../jobs/job-claim.ts'
import { isOfKey } from '../jobs/job.ts'
import { ledgerContext, type SubscriptionContext } from '../jobs/subscription-context.ts'
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

/** The writers of one id in the ledger. */
interface Writers {
  readonly ofJobs: SettlementWriter
  readonly ofKeys: SettlementWriter
}

function writersIn(context: SubscriptionContext): Writers {
  return { ofJobs: createJobSettlementWriter(context), ofKeys: createKeySettlementWriter(context) }
}

interface WrittenBatch {
  /** Jobs that are ready now. */
  readonly readyCount: number
  /** The settlements of keys whose row another session holds: they are to be written later. */
  readonly postponed: readonly Settlement[]
}

export function createOutcomeWriter(context: SubscriptionContext): OutcomeWriter {
  const live = writersIn(context)
  const writersOf = ({ data }: JobClaim): Writers =>
    data.replay === undefined ? live : writersIn(ledgerContext(context, data))
  function writerOf(claim: JobClaim): SettlementWriter {
    const { ofJobs, ofKeys } = writersOf(claim)
    return isOfKey(claim.data) ? ofKeys : ofJobs
  }
  function logWritten({ deadLetters }: Written): void {
    logDeadLetters(context, deadLetters)
    context.rollups.dead(context.subscriptionId, deadLetters)
    if (deadLetters.length === 0) return
    context.telemetry.recorder.dead(context.subscription.name, deadLetters.length)
    context.onDeadLetters?.()
  }

  async function writeAll(writer: SettlementWriter, settlements: readonly Settlement[]): Promise<number> {
    if (settlements.length === 0) return 0
    const written = await writer.write(settlements)
    logWritten(written)
    return written.readyCount
  }

  async function writeGroup(
    { ofJobs, ofKeys }: Writers,
    settlements: readonly Settlement[],
  ): Promise<WrittenBatch> {
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
  }

  return {
    /** Live events first; then each replay by itself, because its outcomes are recorded under another id. */
    async write(settlements) {
      const byReplay = Map.groupBy(settlements, ({ claim }) => claim.data.replay?.ledgerId ?? 0)
      let readyCount = 0
      const postponed: Settlement[] = []
      for (const [, group] of [...byReplay].toSorted(([a], [b]) => b - a)) {
        const [first] = group
        if (first === undefined) continue
        const written = await writeGroup(writersOf(first.claim), group)
        readyCount += written.readyCount
        postponed.push(...written.postponed)
      }
      return { readyCount, postponed }
    },
    writeInto: async (client, settlement) => writerOf(settlement.claim).writeInto(client, settlement),
    async recover(claim) {
      logWritten(await writerOf(claim).recover(claim))
    },
    logWritten,
  }
}
