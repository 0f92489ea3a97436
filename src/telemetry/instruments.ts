/** What is measured under a name. */
export interface Instrument {
  /**
   * By the rules of OpenTelemetry. Prometheus has dots as `_`, the unit `s` as `_seconds`, no unit in braces, and `_total` behind a counter:
   * `messaging_process_duration_seconds`, `bossbus_dead_total`.
   */
  readonly name: string
  readonly kind: 'counter' | 'histogram'
  readonly unit: string
  readonly description: string
  /** The attributes that it may have beside `messaging.system`. */
  readonly attributes: readonly (keyof typeof attributeNames)[]
}

/**
 * The attributes of spans and metrics: those of the messaging conventions 1.44 of OpenTelemetry. The names are copied, because the package
 * of the conventions keeps them in an entry that changes without notice.
 */
export const attributeNames = {
  system: 'messaging.system',
  operationName: 'messaging.operation.name',
  operationType: 'messaging.operation.type',
  /** The type of the event. */
  destination: 'messaging.destination.name',
  subscription: 'messaging.destination.subscription.name',
  errorType: 'error.type',
} as const

/** What `messaging.system` says: the conventions leave the name to systems that they do not list. */
export const messagingSystem = 'bossbus'

/** The buckets of durations that the messaging conventions recommend, in seconds. */
export const durationBuckets: readonly number[] = [
  0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10,
]

/** What this process measures. The recorder's functions say when. */
export const instruments = {
  /** `operation`: `publish` is of the type `send`, `settle` of the type `settle`, `cancel` of none. */
  operationDuration: {
    name: 'messaging.client.operation.duration',
    kind: 'histogram',
    unit: 's',
    description: 'Duration of publishing and cancelling events, and of writing what became of them.',
    attributes: ['operationName', 'operationType', 'destination', 'subscription', 'errorType'],
  },
  /** `sent`, as the operation `publish`. */
  sentMessages: {
    name: 'messaging.client.sent.messages',
    kind: 'counter',
    unit: '{message}',
    description: 'Events that were sent to the database, duplicates among them.',
    attributes: ['operationName', 'destination', 'errorType'],
  },
  /** `attempt` with a duration, as the operation `process`. */
  consumedMessages: {
    name: 'messaging.client.consumed.messages',
    kind: 'counter',
    unit: '{message}',
    description: 'Events that handlers were called with, once for each attempt.',
    attributes: ['operationName', 'destination', 'subscription', 'errorType'],
  },
  /** `attempt` with a duration, as the operation `process` of type `process`. */
  processDuration: {
    name: 'messaging.process.duration',
    kind: 'histogram',
    unit: 's',
    description: 'Duration of handlers.',
    attributes: ['operationName', 'operationType', 'destination', 'subscription', 'errorType'],
  },
  /** `attempt` with a wait. */
  commitToHandler: {
    name: 'bossbus.commit_to_handler.duration',
    kind: 'histogram',
    unit: 's',
    description: 'How long events waited from when they were published or due to their first handler call.',
    attributes: ['destination', 'subscription'],
  },
  /** `attempt` without an error. */
  delivered: {
    name: 'bossbus.delivered',
    kind: 'counter',
    unit: '{event}',
    description: 'Events that were delivered.',
    attributes: ['subscription'],
  },
  /** `attempt` with an error. */
  failedAttempts: {
    name: 'bossbus.attempts.failed',
    kind: 'counter',
    unit: '{attempt}',
    description: 'Attempts that failed.',
    attributes: ['subscription', 'errorType'],
  },
  dead: {
    name: 'bossbus.dead',
    kind: 'counter',
    unit: '{event}',
    description: 'Events that became dead letters.',
    attributes: ['subscription'],
  },
  expired: {
    name: 'bossbus.expired',
    kind: 'counter',
    unit: '{event}',
    description: 'Events that expired before they were delivered.',
    attributes: ['subscription'],
  },
  redriven: {
    name: 'bossbus.redriven',
    kind: 'counter',
    unit: '{event}',
    description: 'Dead letters that were put back for another round of attempts.',
    attributes: ['subscription'],
  },
} as const satisfies Readonly<Record<string, Instrument>>
