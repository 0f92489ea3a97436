/**
 * The steps of the bus's protocols. Each is named after what has just been done. A process may die at any of them, and
 * the next process must be able to continue. docs/guarantees.md states what a crash at each of them leaves behind;
 * test/chaos kills a process at each.
 */
export const faultPoints = [
  // Publishing: inside the caller's transaction, or committed by tryPublish and ctx.publish.
  'publish.written',
  'publish.committed',
  // The relay's claim, in one transaction up to `committed`.
  'relay.claimed',
  'relay.routed',
  'relay.fetched-for-worker',
  'relay.jobs-inserted',
  'relay.committed',
  'relay.workers-woken',
  'relay.asleep',
  // The same claims for scheduled events that are due, for events held back by a lock, and for events with an ordering
  // key.
  'relay-due.claimed',
  'relay-due.jobs-inserted',
  'relay-due.committed',
  'relay-held.claimed',
  'relay-held.jobs-inserted',
  'relay-held.committed',
  'relay-ordered.claimed',
  'relay-ordered.jobs-inserted',
  'relay-ordered.committed',
  // A worker.
  'worker.fetched',
  'worker.loaded',
  'worker.handler-begins',
  'worker.handler-done',
  // Settling jobs, in one transaction up to `committed`.
  'settle.retries-inserted',
  'settle.receipts-inserted',
  'settle.completed',
  'settle.failed',
  'settle.requeued',
  'settle.failures-recorded',
  'settle.committed',
  // Recovering a batch whose worker died, in one transaction up to `committed`.
  'recover-job.jobs-inserted',
  'recover-job.completed',
  'recover-job.committed',
  // Settling the jobs of ordered keys, in one transaction up to `committed`.
  'settle-ordered.receipts-inserted',
  'settle-ordered.completed',
  'settle-ordered.keys-failed',
  'settle-ordered.keys-advanced',
  'settle-ordered.next-inserted',
  'settle-ordered.failures-recorded',
  'settle-ordered.committed',
  'recover-ordered-job.completed',
  'recover-ordered-job.committed',
  'recover-key.locked',
  'recover-key.committed',
  'release-key.locked',
  'release-key.job-inserted',
  'release-key.committed',
  // Exactly-once mode, in one transaction up to `committed`.
  'exactly-once.begun',
  'exactly-once.handler-begins',
  'exactly-once.handler-done',
  'exactly-once.savepoint-released',
  'exactly-once.savepoint-rolled-back',
  'exactly-once.receipts-inserted',
  'exactly-once.completed',
  'exactly-once.committed',
  // Exactly-once mode of an ordered subscription, in the transaction that completes the job of a key.
  'exactly-once-ordered.receipts-inserted',
  'exactly-once-ordered.completed',
  'exactly-once-ordered.keys-failed',
  'exactly-once-ordered.keys-advanced',
  'exactly-once-ordered.next-inserted',
  'exactly-once-ordered.failures-recorded',
  'exactly-once-ordered.committed',
  // A part of an operation, in one transaction up to `part-committed`.
  'operation.locked',
  'operation.part-written',
  'operation.part-committed',
  // Telling a callback of dead letters.
  'dead-letter-call.claimed',
  'dead-letter-call.called',
  'dead-letter-call.ended',
  // Removing a subscription, in one transaction; the rest is an operation. Renaming one, in one transaction after its queues were created.
  'remove-subscription.operation-inserted',
  'remove-subscription.committed',
  'rename-subscription.queues-created',
  'rename-subscription.jobs-moved',
  'rename-subscription.committed',
  // Receiving messages of other systems, in one transaction up to `committed`; and one of the quarantine that is tried again.
  'receive.written',
  'receive.committed',
  'receive.retry-written',
  'receive.retry-committed',
  // Retention.
  'retention.archive-begun',
  'retention.file-written',
  'retention.archive-verified',
  'retention.archived',
  'retention.dropped',
  'retention.slice-deleted',
  'retention.default-adopted',
  // Starting, maintenance, stopping.
  'migrate.applied',
  'migrate.partitions-created',
  'start.queues-created',
  'start.catch-up-begun',
  'start.registered',
  'maintenance.expired',
  'stop.began',
  'stop.aborted',
  'stop.requeued',
  'stop.workers-stopped',
] as const

export type FaultPoint = (typeof faultPoints)[number]

/** Called after each step; the next step waits for it. A crash test uses it to end the process, or to block forever. */
export type FaultHook = (point: FaultPoint) => Promise<void> | void

let hookOfNewBuses: FaultHook | undefined

/** A bus created by `make` calls the hook for its whole life. Other buses have no hook and pay nothing for it. */
export function withFaultHook<T>(hook: FaultHook, make: () => T): T {
  const before = hookOfNewBuses
  hookOfNewBuses = hook
  try {
    return make()
  } finally {
    hookOfNewBuses = before
  }
}

/** The hook for the bus that is being created, if any. */
export function currentFaultHook(): FaultHook | undefined {
  return hookOfNewBuses
}
