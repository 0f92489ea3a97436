import type { Contestant } from '../contestant.ts'

/** In the order of their turns. Each is loaded only in the process that runs it. */
export const contestants: readonly Contestant[] = [
  {
    name: 'bossbus',
    note: 'publishMany(500) in Drizzle transactions on postgres.js; receipts on; public API only',
    load: async () => import('./bossbus.ts'),
  },
  {
    name: 'pg-boss',
    note: 'insert(500) into one partitioned queue a subscriber, all queues at once; work with batchSize 500, burst and notify; no log, no receipts',
    load: async () => import('./pg-boss.ts'),
  },
  {
    name: 'graphile-worker',
    note: 'addJobs(500), one job a subscriber, all subscribers at once; local queue of 500, completions batched, 24 jobs at a time; done jobs are deleted: no log, no receipts',
    load: async () => import('./graphile-worker.ts'),
  },
  {
    name: 'BullMQ',
    note: 'addBulk(500) into one queue a subscriber, all queues at once; concurrency 100, done jobs removed; Redis as it is configured: not in the business transaction, and a crash of Redis loses what it has not written yet',
    load: async () => import('./bullmq.ts'),
  },
  {
    name: 'plain SQL',
    note: 'the floor: log, outbox, batch jobs and receipts written and deleted in batches of 500, nothing waited for',
    load: async () => import('./plain-sql.ts'),
  },
]
