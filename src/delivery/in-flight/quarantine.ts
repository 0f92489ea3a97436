import type { Database } from '../../database/database.ts'
import { createGate } from '../concurrency/semaphore.ts'
import { type Subscription } from '../subscriptions/subscription.ts'
import type { JobClaim } from '../jobs/job-claim.ts'
import { queueName } from '../jobs/queues.ts'

/**
 * Finds out which event ends its process. Events that were in hand too often when a process died are suspects: of all
 * suspects of a process, in whatever subscription, one runs at a time. Before it does, its job is marked. If the process
 * dies then, the next one finds the mark, and it is this event that has failed an attempt; what was in hand beside it has not.
 */
export interface Quarantine {
  /** Runs a suspect when its turn has come, and everything that the last process left behind is put in order. */
  alone: (run: () => Promise<void>) => Promise<void>
  /** Puts in order what the last process left behind. */
  clearUp: (work: () => Promise<void>) => Promise<void>
}

/** One for all workers of a process. */
export function createQuarantine(): Quarantine {
  const turns = createGate(1)
  const clearing = new Set<Promise<void>>()
  return {
    async alone(run) {
      if (!turns.tryEnter()) await turns.enter()
      try {
        while (clearing.size > 0) await Promise.allSettled(clearing)
        await run()
      } finally {
        turns.leave()
      }
    },
    async clearUp(work) {
      const working = work()
      clearing.add(working)
      try {
        await working
      } finally {
        clearing.delete(working)
      }
    },
  }
}

/** Notes on a job that its event is about to run as the only suspect. False, and nothing is written, when the claim was lost. */
export async function markAlone(
  database: Database,
  { name }: Subscription,
  { id, retryCount }: JobClaim,
): Promise<boolean> {
  const { rows } = await database.query(
    `update ${database.bossSchema}.job set data = data || jsonb_build_object('aloneAt', $3::int)
     where name = $1 and id = $2 and state = 'active' and retry_count = $3 returning 1`,
    [queueName(name), id, retryCount],
  )
  return rows.length === 1
}
