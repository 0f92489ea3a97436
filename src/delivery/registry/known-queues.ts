import type { PgBoss } from 'pg-boss'
import { type RegisteredSubscription } from './registry.ts'
import { queueName, ensureQueues } from '../jobs/queues.ts'

/**
 * The queues that pg-boss has cached. It reads the options of any other queue when jobs are inserted, on another
 * connection: a claim that holds the only connection would wait for itself.
 */
export interface KnownQueues {
  /** Whether jobs of a subscription can be inserted during a claim. If not, its queue is read in the background. */
  canTakeJobs: (subscription: RegisteredSubscription) => boolean
}

const noJob = '00000000-0000-0000-0000-000000000000'

/** @param hasOneConnection - whether claims use the only connection */
export function createKnownQueues(boss: PgBoss, hasOneConnection: () => boolean): KnownQueues {
  const known = new Set<string>()

  async function read(subscription: RegisteredSubscription): Promise<void> {
    const name = queueName(subscription.name)
    // Searching for a job makes pg-boss read and cache the queue.
    const look = async (): Promise<unknown> => boss.findJobs(name, { id: noJob })
    await look().catch(async () => ensureQueues(boss, subscription).then(look))
    known.add(name)
  }

  return {
    canTakeJobs(subscription) {
      if (!hasOneConnection() || known.has(queueName(subscription.name))) return true
      void read(subscription).catch(() => {})
      return false
    },
  }
}
