import type { PgBoss } from 'pg-boss'
import { type RegisteredSubscription } from './registry.ts'
import { queueName, ensureQueues } from '../jobs/queues.ts'

/**
 * The queues that pg-boss has read. Of any other it reads the options when jobs are inserted, on another connection than the one that
 * inserts: a claim that has the only one would wait for itself.
 */
export interface KnownQueues {
  /** Whether jobs of a subscription can be inserted in an open claim. Where not, its queue is read meanwhile. */
  canTakeJobs: (subscription: RegisteredSubscription) => boolean
}

const noJob = '00000000-0000-0000-0000-000000000000'

/** @param hasOneConnection - whether claims have the only connection there is */
export function createKnownQueues(boss: PgBoss, hasOneConnection: () => boolean): KnownQueues {
  const known = new Set<string>()

  async function read(subscription: RegisteredSubscription): Promise<void> {
    const name = queueName(subscription.name)
    // Looking for a job makes pg-boss read the queue and keep what it has read.
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
