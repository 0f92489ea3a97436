/**
 * The steps of the bus's protocols, by the name of what has just been done: the places where a process may die and the
 * next one must find what it needs. docs/guarantees.md says for each what is true there; test/chaos kills a process at each.
 */
export const faultPoints = [
  // Publishing: in the transaction of the caller, or committed with tryPublish and ctx.publish.
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
  // The same for scheduled events that are due, for those that were held because of a lock, and for those with an ordering key.
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
  // What has become of jobs, in one transaction up to `committed`.
  'settle.later-jobs-inserted',
  'settle.receipts-inserted',
  'settle.completed',
  'settle.failed',
  'settle.requeued',
  'settle.committed',
  // A batch whose worker died, in one transaction up to `committed`.
  'recover-job.jobs-inserted',
  'recover-job.completed',
  'recover-job.committed',
  // What has become of the jobs of keys, in one transaction up to `committed`.
  'settle-ordered.receipts-inserted',
  'settle-ordered.completed',
  'settle-ordered.held',
  'settle-ordered.advanced',
  'settle-ordered.next-inserted',
  'settle-ordered.committed',
  'recover-ordered-job.completed',
  'recover-ordered-job.committed',
  'recover-key.locked',
  'recover-key.committed',
  'release-key.locked',
  'release-key.job-inserted',
  'release-key.committed',
  // The mode exactly-once, in one transaction up to `committed`.
  'exactly-once.begun',
  'exactly-once.handler-begins',
  'exactly-once.handler-done',
  'exactly-once.savepoint-released',
  'exactly-once.savepoint-rolled-back',
  'exactly-once.receipts-inserted',
  'exactly-once.completed',
  'exactly-once.committed',
  // The same of an ordered subscription, where the job of a key ends with it.
  'exactly-once-ordered.receipts-inserted',
  'exactly-once-ordered.completed',
  'exactly-once-ordered.held',
  'exactly-once-ordered.advanced',
  'exactly-once-ordered.next-inserted',
  'exactly-once-ordered.committed',
  // Starting, looking after the queues, stopping.
  'migrate.applied',
  'migrate.partitions-created',
  'start.queues-created',
  'start.registered',
  'maintenance.expired',
  'stop.began',
  'stop.aborted',
  'stop.requeued',
  'stop.workers-stopped',
] as const

export type FaultPoint = (typeof faultPoints)[number]

/**
 * Called where a step is done; what comes next waits for it. To be used by whoever tries what a crash there does: it ends
 * the process, or never resolves.
 */
export type FaultHook = (point: FaultPoint) => Promise<void> | void

let hookOfNewBuses: FaultHook | undefined

/** What is made meanwhile calls the hook for as long as it lives; all else calls none, and loses no time. */
export function withFaultHook<T>(hook: FaultHook, make: () => T): T {
  const before = hookOfNewBuses
  hookOfNewBuses = hook
  try {
    return make()
  } finally {
    hookOfNewBuses = before
  }
}

/** The hook for what is being made, if any. */
export function currentFaultHook(): FaultHook | undefined {
  return hookOfNewBuses
}
