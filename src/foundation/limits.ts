/** The bounds of a configurable number. */
export interface Range {
  readonly min: number
  readonly max: number
  readonly default: number
}

/**
 * Every limit of the bus by name: a number if it is fixed, a range if an option configures it. Text lengths are in
 * characters as PostgreSQL counts them (Unicode code points); bytes are UTF-8 bytes. docs/limits.md states the cost of
 * raising a limit, and the error for exceeding it.
 *
 * @example
 * ```ts
 * const orderingKey = z.string().max(limits.keyLength)
 * ```
 */
export const limits = Object.freeze({
  // An event.
  /** `tenantId`, `eventId`, `idempotencyKey`, `correlationId`, `orderingKey`. */
  keyLength: 255,
  subjectLength: 1024,
  /** `availableIn.seconds`: ten years. */
  availableInSeconds: 315_576_000,
  /** As JSON text. */
  metadataBytes: 16_384,
  metadataEntryCount: 256,
  /** The option `maxPayloadBytes`: as JSON text, with each number as PostgreSQL writes it. */
  payloadBytes: range(1, 16_777_216, 262_144),
  /**
   * As PostgreSQL writes it, for every way of publishing: four times the maximum of the option, to allow for spaces and
   * digits.
   */
  storedPayloadBytes: 67_108_864,
  /** Nesting levels of arrays and objects. */
  payloadDepth: 512,

  // A call of publishMany.
  callEventCount: 10_000,
  /** Payloads and metadata together. PostgreSQL accepts 1 GB, but memory is used several times over. */
  callBytes: 67_108_864,

  // A catalogue.
  typeLength: 255,
  sourceLength: 255,
  /** Names in the `sources` of one type. */
  sourceCount: 1000,
  schemaVersion: 32_767,
  /** Paths in the `redact` of one type. */
  redactPathCount: 200,
  redactPathLength: 1024,

  // A bus.
  subscriptionCount: 1000,
  /** Of all subscriptions of a bus together. */
  busPatternCount: 10_000,

  'health.loopLimitSeconds': range(1, 3600, 120),
  'health.transactionLimitSeconds': range(1, 86_400, 300),
  'canary.everySeconds': range(2, 86_400, 60),
  /** Tenants with series of their own in `bus.metrics()`. */
  'metrics.tenants': range(0, 100, 0),
  /** `timeoutMs` of `bus.canary`. */
  canaryTimeoutMs: range(100, 600_000, 10_000),
  /** Without the option there is no limit; so for `admission.maxLagSeconds` and `lagLimitSeconds`. */
  'admission.maxOutboxDepth': range(1, 1_000_000, 1_000_000),
  'admission.maxLagSeconds': range(1, 604_800, 604_800),
  'admission.maxDelayMs': range(1, 60_000, 1000),

  // A subscription.
  subscriptionNameLength: 100,
  patternCount: 100,
  patternLength: 255,
  whereLength: 2000,
  concurrency: range(1, 1000, 10),
  batchSize: range(1, 100, 100),
  timeoutSeconds: range(1, 3600, 60),
  heartbeatSeconds: range(10, 3600, 30),
  lagLimitSeconds: range(1, 604_800, 604_800),
  /** The defaults retry for 67 to 77 minutes: longer than an outage of an hour. */
  'retry.maxAttempts': range(1, 100, 16),
  'retry.delaySeconds': range(0, 86_400, 1),
  'retry.maxDelaySeconds': range(1, 604_800, 600),
  /** Entries of `retry.delays`; each is at most the maximum of `retry.maxDelaySeconds`. */
  retryDelayCount: 99,
  /** The argument of `RetryAfterError`. */
  retryAfterSeconds: 604_800,

  // Retention.
  /** The times of the option `retention`, in days, at least 1: a hundred years. */
  retentionDays: 36_500,

  // Methods of a bus.
  /** `expiresInSeconds` of `subscriptions.setOptions`: up to 30 days. */
  overrideSeconds: 2_592_000,
  /**
   * `limit` of `deadLetters.list`, `deadLetters.groups`, `blockedKeys.list`, `erasures.list`, `operations.list`, `audit.list`,
   * `bus.stats`, `events.find` and `events.search`.
   */
  listLimit: range(1, 1000, 100),
  /** `ids` of `deadLetters.redrive` and `deadLetters.discard`. */
  letterIdCount: 1000,
  /** `probe` of `deadLetters.redrive`. */
  probeCount: range(0, 100, 5),
  /** `rate` of `deadLetters.redrive` and `bus.replay`: events a second. */
  operationRate: 100_000,
  /** `limit` of `events.trace` and `events.traceTree`. */
  traceLimit: range(1, 10_000, 1000),
  /** `limit` of the methods of `bus.queries`. */
  queryLimit: range(1, 10_000, 1000),
  /** Types, or patterns, in the filter of `events.find` and `events.search`. */
  filterTypeCount: 100,
  /** `payload` in the filter of `events.find` and `events.search`, as JSON. */
  payloadFilterLength: 10_000,
  /** `readLimit` of `events.search`: events of the log that are read at most where no index answers. */
  readLimit: range(1, 1_000_000, 10_000),
  /** `ids` of `events.states`. */
  stateIdCount: 200,
  /** The text of `lookup`. */
  lookupLength: 1024,
  /** `ids` of `bus.replay`. */
  replayIdCount: 10_000,
  /** `graceMs` of `stop`, `stopOnSignals` and the Fastify plugin. */
  graceMs: range(0, 3_600_000, 30_000),
})

function range(min: number, max: number, value: number): Range {
  return Object.freeze({ min, max, default: value })
}
