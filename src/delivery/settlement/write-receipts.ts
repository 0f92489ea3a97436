import type pg from 'pg'
import { canary } from '../../events/event-type.ts'
import { countReplayed } from '../ledger/replay-outcomes.ts'
import { recordRecoveries, type RecoveryRecord } from '../ledger/failures.ts'
import {
  byEventId,
  insertPacked,
  insertReceipts,
  packReceipts,
  uniqueViolation,
  type Receipt,
} from '../ledger/receipts.ts'
import type { JobClaim } from '../jobs/job-claim.ts'
import { JobWriter } from '../jobs/job-writer.ts'
import type { SubscriptionContext } from '../jobs/subscription-context.ts'
import { AlreadyDelivered, type JobReceipts } from './settlement.ts'

/**
 * Writes the receipts of settled jobs, in the transaction that has settled them. Those of first attempts are packed where it has ended their
 * job: nobody else can do that, and neither can this worker again, should the answer to the commit be lost. All others are written where
 * there are none yet: of a job that runs on, or whose claim was lost. They are not written if the job is gone: a server crash may have
 * undone the claim that inserted it, and then another first attempt at its events writes them. Those of canaries are never packed: they are
 * removed one by one.
 *
 * @param isEnded - whether the transaction has ended the job of a claim
 * @param mayExist - else a receipt with a row of its own that is there already is a unique violation
 */
export async function writeReceipts(
  client: pg.ClientBase,
  context: SubscriptionContext,
  jobs: readonly JobReceipts[],
  isEnded: (claim: JobClaim) => boolean,
  mayExist: boolean,
): Promise<void> {
  const { subscriptionId } = context
  const mayPack = context.subscription.name !== canary.subscription
  const first: Receipt[] = []
  const later: Receipt[] = []
  const others = jobs.filter(({ claim }) => !isEnded(claim))
  const existing = await new JobWriter(client, context).findExisting(others.map(({ claim }) => claim))
  const unfenced = others.flatMap(({ claim, receipts }) => (existing.has(claim.id) ? receipts : []))
  for (const { claim, receipts } of jobs) {
    if (!isEnded(claim)) continue
    if (!isFirstAttempt(claim) || !mayPack) later.push(...receipts)
    else for (const receipt of receipts) (isPlain(receipt) ? first : later).push(receipt)
  }
  const { packed, single } = packReceipts(first)
  await insertPacked(client, subscriptionId, packed)
  const written = [
    ...packed.flat(),
    ...(await insertReceipts(client, subscriptionId, [...single, ...later], mayExist)),
    ...(await insertReceipts(client, subscriptionId, unfenced, true)),
  ]
  if (context.replay !== undefined) await countReceipts(client, subscriptionId, written)
  await recordRecoveries(client, context, recoveriesOf([...later, ...unfenced]))
}

/**
 * Inserts the receipts of a transaction of handlers. Their primary key lets one of several concurrent transactions through.
 *
 * @returns whether there were any
 * @throws an {@link AlreadyDelivered} where one is there already
 */
export async function insertNewReceipts(
  client: pg.ClientBase,
  context: Pick<SubscriptionContext, 'subscriptionId' | 'instanceId' | 'replay'>,
  jobs: readonly JobReceipts[],
): Promise<boolean> {
  const receipts = jobs.flatMap((job) => job.receipts)
  if (receipts.length === 0) return false
  // In the same order for all, so that workers with the same events wait for each other and never deadlock.
  const sorted = receipts.toSorted(byEventId)
  await insertReceipts(client, context.subscriptionId, sorted, false).catch((error: unknown) => {
    throw (error as { code?: string }).code === uniqueViolation ? new AlreadyDelivered() : error
  })
  await recordRecoveries(client, context, recoveriesOf(sorted))
  if (context.replay !== undefined) await countReceipts(client, context.subscriptionId, sorted)
  return true
}

/** Counts the events of a replay that have got these receipts now. */
async function countReceipts(
  client: pg.ClientBase,
  ledgerId: number,
  receipts: readonly Receipt[],
): Promise<void> {
  const expired = receipts.filter((receipt) => receipt.expired).length
  await countReplayed(client, ledgerId, { delivered: receipts.length - expired, expired })
}

function isFirstAttempt({ retryCount, data }: JobClaim): boolean {
  return retryCount === 0 && (data.attempts ?? 0) === 0
}

function isPlain({ attempts, expired, erased }: Receipt): boolean {
  return attempts === 1 && !expired && !erased
}

/** Those that had failed before. */
function recoveriesOf(receipts: readonly Receipt[]): RecoveryRecord[] {
  return receipts.flatMap(({ eventId, attempts, durationMs, expired, erased }) => {
    const succeeded = !expired && !erased
    return attempts > (succeeded ? 1 : 0) ? [{ eventId, attempt: attempts, durationMs, succeeded }] : []
  })
}
