/** What waits and runs for a subscription: a row of `bus.v_depth`. The columns of events are disjoint. */
export interface DepthRow {
  readonly time: Date
  /** Undefined for what is not dispatched to any subscription yet. */
  readonly subscription: string | undefined
  /** Jobs of pg-boss that may run now. One holds up to 100 events. */
  readonly readyJobs: number
  /** Events that may run now: first attempts, and later ones that are due. */
  readonly readyEvents: number
  readonly activeJobs: number
  readonly activeEvents: number
  /** They failed, and wait until their next attempt is due. */
  readonly retryingEvents: number
  /** They wait for a time, though no attempt has failed, because their tenant is at its limit for example. */
  readonly deferredEvents: number
  /** They would be ready if the subscription were not paused. */
  readonly pausedEvents: number
  /** They wait behind an event of their key that failed. */
  readonly behindEvents: number
  /** They are parked behind a dead letter of their key. */
  readonly parkedEvents: number
  readonly deadEvents: number
  /** Of the row without a subscription: published with a time that is not there yet. */
  readonly scheduledEvents: number
  /** Whether a count has reached its cap: there are at least as many. */
  readonly isPartial: boolean
}

/** How far behind a subscription is: a row of `bus.v_lag`. */
export interface LagRow {
  readonly time: Date
  /** Undefined for the relay. */
  readonly subscription: string | undefined
  /** How long ago the earliest event that may run now was due. 0 if there is none. */
  readonly lagSeconds: number
  /** The same of a paused subscription, whose `lagSeconds` are 0. */
  readonly pausedSeconds: number
  /** When that event was due. */
  readonly dueAt: Date | undefined
}

/** A count of a minute: a row of `bus.v_throughput`. */
export interface ThroughputRow {
  /** The beginning of the minute. */
  readonly time: Date
  /** Undefined for `published`, and for a subscription that was removed. */
  readonly subscription: string | undefined
  /** `failed` counts attempts, the others events. */
  readonly metric: 'published' | 'delivered' | 'failed' | 'dead' | 'expired'
  readonly value: number
}

/** Durations of a minute: a row of `bus.v_latency`. */
export interface LatencyRow {
  readonly time: Date
  /** Undefined for a subscription that was removed. */
  readonly subscription: string | undefined
  /** `wait`: from when an event was published or due to its first handler. `run`: how long a handler ran. */
  readonly metric: 'wait' | 'run'
  readonly eventCount: number
  readonly p50Ms: number
  readonly p95Ms: number
  readonly p99Ms: number
  /** Bin n, from 0, counts durations from 2^(n/2) milliseconds. Add the bins of rows to merge them: percentiles cannot be averaged. */
  readonly bins: readonly number[]
}

/** Dead letters of a subscription whose errors are alike: a row of `bus.v_dead_by_error`. */
export interface DeadByErrorRow {
  readonly subscription: string
  readonly fingerprint: string | undefined
  readonly errorName: string | undefined
  readonly errorCode: string | undefined
  /** The message of the newest one, up to 300 characters. */
  readonly errorMessage: string | undefined
  readonly deadEvents: number
  readonly tenantCount: number
  readonly firstAt: Date
  readonly lastAt: Date
  /** The newest one. */
  readonly eventId: string
  /** Whether older dead letters were not counted. */
  readonly isPartial: boolean
}

/** Events that wait for another attempt: a row of `bus.v_retries`. */
export interface RetriesRow {
  readonly subscription: string
  /** Attempts made. */
  readonly attempts: number
  readonly errorName: string | undefined
  readonly errorCode: string | undefined
  /** Not due yet, as in {@link DepthRow}. With those that are due: all that failed and are tried again. */
  readonly retryingEvents: number
  /** Due by now: they wait for a worker, or have one. The next three include them. */
  readonly dueEvents: number
  readonly dueIn1Minute: number
  readonly dueIn5Minutes: number
  readonly dueIn1Hour: number
  readonly nextAt: Date
  readonly isPartial: boolean
}

/** A job that runs: a row of `bus.v_active`. */
export interface ActiveRow {
  readonly subscription: string
  readonly jobId: string
  /** Its first event. */
  readonly eventId: string | undefined
  readonly eventCount: number
  readonly attempt: number
  readonly startedAt: Date
  readonly runningSeconds: number
  readonly heartbeatAt: Date | undefined
  readonly heartbeatSecondsAgo: number | undefined
  /** Whether its worker has not been heard of in time: the job is given to another one. */
  readonly isLost: boolean
}

/** A process of the bus: a row of `bus.v_instances`. */
export interface InstanceRow {
  readonly instanceId: string
  readonly service: string
  readonly host: string
  readonly pid: number
  /** The version of bossbus. */
  readonly version: string
  /** The state of its relay, as `relay` of `bus.health()`. */
  readonly relay: string
  readonly inFlightEvents: number
  readonly subscriptionCount: number
  /** The first hundred, by name. */
  readonly subscriptions: readonly string[]
  readonly startedAt: Date
  readonly seenAt: Date
  readonly seenSecondsAgo: number
  /** Whether it was heard of within 60 seconds. */
  readonly isLive: boolean
}

/** A subscription: a row of `bus.v_subscription_state`. */
export interface SubscriptionStateRow {
  readonly subscription: string
  readonly service: string
  readonly state: 'active' | 'paused' | 'circuit open' | 'unserved'
  /** Live processes that run it. */
  readonly instanceCount: number
  readonly patterns: readonly string[]
  readonly pausedAt: Date | undefined
  readonly pausedBy: string | undefined
  readonly pauseReason: string | undefined
  readonly circuitOpenedAt: Date | undefined
  readonly circuitReason: string | undefined
  readonly circuitProbeAt: Date | undefined
  readonly uncoveredSince: Date | undefined
  readonly registeredAt: Date
}

/** A tenant: a row of `bus.v_tenants`. */
export interface TenantRow {
  readonly tenantId: string
  /** Of the newest 5,000 events of the log. */
  readonly recentEvents: number
  /** 0 to 1. */
  readonly recentShare: number
  /** When the first of these 5,000 was published. */
  readonly recentSince: Date | undefined
  /** Events that wait for their first attempt, for another one that is due, or behind others of their key, of all subscriptions. */
  readonly waitingEvents: number
  readonly waitingShare: number
  readonly scheduledEvents: number
  /** They failed, and wait until their next attempt is due. */
  readonly retryingEvents: number
  readonly deadEvents: number
  /** Whether there is more than was counted. */
  readonly isPartial: boolean
}

/** A key that waits: a row of `bus.v_blocked_keys`. */
export interface BlockedKeyRow {
  readonly subscription: string
  readonly tenantId: string
  readonly orderingKey: string
  readonly state: 'blocked' | 'parked' | 'overrunning'
  readonly since: Date
  readonly blockedSeconds: number
  /** The event that failed. */
  readonly eventId: string
  readonly attempts: number | undefined
  readonly errorName: string | undefined
  readonly errorMessage: string | undefined
  readonly behindEvents: number
  readonly isPartial: boolean
}

/** A scheduled event: a row of `bus.v_scheduled`. */
export interface ScheduledRow {
  readonly dueAt: Date
  readonly dueInSeconds: number
  readonly eventId: string
  readonly tenantId: string
  readonly type: string
  readonly orderingKey: string | undefined
}

/** A table of the bus or of pg-boss: a row of `bus.v_storage`. */
export interface StorageRow {
  readonly name: string
  /** The table that it is a partition of. */
  readonly parent: string | undefined
  /** The queue that the table is for. */
  readonly queue: string | undefined
  /** The times of publication of the events in a partition. */
  readonly rangeFrom: Date | undefined
  readonly rangeTo: Date | undefined
  /** As of the last vacuum or analyze. Undefined if there was none. */
  readonly estimatedRows: number | undefined
  /** With its indexes. */
  readonly totalBytes: number | undefined
  readonly indexBytes: number | undefined
  readonly deadRows: number
  readonly lastVacuumAt: Date | undefined
  readonly lastAnalyzeAt: Date | undefined
  /** Transactions since its oldest row was frozen. */
  readonly frozenXidAge: number
  /** The exact number of rows of a default partition, up to 10,000. It should be 0. */
  readonly defaultRows: number | undefined
}

/** A failed attempt: a row of `bus.v_recent_failures`. */
export interface RecentFailureRow {
  /** When it failed. */
  readonly time: Date
  readonly subscription: string
  /** Undefined if the event is not in the log. */
  readonly tenantId: string | undefined
  readonly eventId: string
  readonly attempt: number
  readonly errorName: string | undefined
  readonly errorCode: string | undefined
  /** Up to 300 characters. */
  readonly errorMessage: string | undefined
  readonly fingerprint: string | undefined
  readonly durationMs: number | undefined
  readonly instanceId: string | undefined
  /** What the event is now. Undefined when it is done. */
  readonly state: 'retrying' | 'dead' | 'blocked' | 'parked' | undefined
}

/** An event that a key stands for: a row of `bus.v_events_by_key`. */
export interface EventByKeyRow {
  readonly tenantId: string
  readonly key: string
  readonly kind: 'event_id' | 'idempotency_key' | 'correlation_id' | 'subject'
  readonly eventId: string
  readonly createdAt: Date
}
