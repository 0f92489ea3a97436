/** Every code of a {@link Finding}. Stable: a code is never renamed or reused. Explained in docs/guide/health.md. */
export const findingCodes = [
  'database-down',
  'not-started',
  'loop-hangs',
  'relay-failing',
  'relay-behind',
  'notifications-lost',
  'handlers-overrunning',
  'clock-differs',
  'subscription-behind',
  'subscription-paused',
  'circuit-open',
  'subscription-unserved',
  'events-not-covered',
  'keys-blocked',
  'dead-letters-growing',
  'messages-quarantined',
  'operation-stopped',
  'instance-lost',
  'versions-differ',
  'schema-differs',
  'partitions-missing',
  'default-partition-used',
  'old-transaction',
  'prepared-transaction',
  'replication-slot-inactive',
  'canary-failing',
  'check-failed',
] as const

export type FindingCode = (typeof findingCodes)[number]

/** `error`: events are not delivered, or will not be. `warning`: a person should look. `info`: it may be intended, as in a deployment. */
export type FindingSeverity = 'error' | 'warning' | 'info'

/** Something that is not as it should be. */
export interface Finding {
  readonly code: FindingCode
  readonly severity: FindingSeverity
  /** What it means. */
  readonly message: string
  /** What mends it. */
  readonly remedy: string
  /** The figures and names. */
  readonly data: Readonly<Record<string, unknown>>
}

/** What each code says, whatever the figures. */
const remedies: Readonly<Record<FindingCode, readonly [FindingSeverity, string]>> = {
  'database-down': [
    'error',
    'Check the server, the network and the database URL. The bus reconnects by itself.',
  ],
  'not-started': ['warning', 'Wait until bus.start() has resolved, or see why it was rejected.'],
  'loop-hangs': [
    'error',
    'Look for a lock that its statement waits for (pg_locks, pg_blocking_pids). If there is none, restart the process.',
  ],
  'relay-failing': ['error', 'Read its errors in the log: `the relay failed to dispatch events, retrying`.'],
  'relay-behind': [
    'error',
    'Start a process whose bus is not run with `nothing`, or look at the relays of those that run.',
  ],
  'notifications-lost': [
    'warning',
    'Give the bus a direct database URL, not a pooler in transaction mode (docs/drivers.md).',
  ],
  'handlers-overrunning': ['warning', 'Pass `ctx.signal` on to whatever the handlers wait for.'],
  'clock-differs': [
    'warning',
    'Synchronise the clocks of both machines (NTP). Delivery does not depend on it; times in logs and statistics do.',
  ],
  'subscription-behind': ['error', 'Run more processes, raise `concurrency`, or make its handler faster.'],
  'subscription-paused': ['warning', 'bus.subscriptions.resume(name), when the reason is gone.'],
  'circuit-open': [
    'error',
    'Repair what its handler depends on: the bus tries single events and goes on after the first success.',
  ],
  'subscription-unserved': [
    'error',
    'Start its service, or remove the subscription if it was renamed or given up.',
  ],
  'events-not-covered': ['warning', 'Deploy the version of the code that handles these events.'],
  'keys-blocked': [
    'warning',
    'bus.blockedKeys.list(), or `bossbus keys list`, shows the errors. Mend the cause, then release each key: its failed event is tried again, or skipped.',
  ],
  'dead-letters-growing': [
    'warning',
    'bus.deadLetters.groups() shows the errors. Mend the cause, then redrive or discard.',
  ],
  'messages-quarantined': [
    'warning',
    'bus.quarantine.list() shows them. Mend `map` or the sender, then retry or discard them.',
  ],
  'operation-stopped': ['warning', 'bus.operations.get(id) says why. Resume it or cancel it.'],
  'instance-lost': [
    'warning',
    'See whether the process has crashed or hangs. Its events run again elsewhere, and its row goes after some minutes.',
  ],
  'versions-differ': ['info', 'Finish the deployment.'],
  'schema-differs': ['warning', 'Deploy the version of bossbus that has migrated the database.'],
  'partitions-missing': [
    'warning',
    'Run bus.migrate(), or `select bus.create_partitions()`, as the owner of the schema `bus`.',
  ],
  'default-partition-used': [
    'warning',
    'Nothing has to be done: the events are delivered and read like all others, and the coming months get partitions.',
  ],
  'old-transaction': [
    'warning',
    'End it: pg_terminate_backend(pid). Dead rows are kept until then, and claims of ordered events get slower.',
  ],
  'prepared-transaction': ['warning', 'Commit or roll it back: COMMIT PREPARED, ROLLBACK PREPARED.'],
  'replication-slot-inactive': [
    'warning',
    'Start its consumer, or drop it: pg_drop_replication_slot(name). Until then the server keeps write-ahead log, and dead rows if it holds a snapshot.',
  ],
  'canary-failing': ['error', 'Look at the step that did not come: the relay, the workers, or the receipts.'],
  'check-failed': [
    'info',
    'If a privilege is missing, grant the role bus_worker or bus_operator. If it took too long, look at the database.',
  ],
}

/** @param given - its severity, where it is not the usual one of the code */
export function createFinding(
  code: FindingCode,
  message: string,
  data: Readonly<Record<string, unknown>> = {},
  given?: FindingSeverity,
): Finding {
  const [usual, remedy] = remedies[code]
  const severity = given ?? usual
  return { code, severity, message, remedy, data }
}

/** Names for a message: the first three, and how many more. */
export function namesOf(names: readonly string[]): string {
  return someOf(names.map((name) => `\`${name}\``))
}

/** Texts for a message: the first three, and how many more. */
export function someOf(texts: readonly string[]): string {
  const shown = texts.slice(0, 3).join(', ')
  return texts.length > 3 ? `${shown} and ${texts.length - 3} more` : shown
}

/** At most so many items are in the data of one finding. */
export const maxItems = 100
