import type { ExplainedInstance } from './delivery-reason.ts'
import type { DeliveryState } from './delivery-status.ts'

/** As `bus.event_facts` returns it. */
export interface EventFacts {
  readonly now: string
  readonly type: string
  readonly tenantId: string
  readonly availableAt: string | null
  readonly erasedAt: string | null
  readonly cancelledAt: string | null
  readonly outbox: { readonly availableAt: string | null } | null
  /** Not in a tenant's scope. */
  readonly relayCount?: number
  readonly subscriptions: readonly SubscriptionFacts[]
}

export interface SubscriptionFacts {
  readonly name: string
  readonly service?: string
  readonly tenantConcurrency: number | null
  readonly pausedAt: string | null
  readonly pausedBy?: string | null
  readonly pauseReason?: string | null
  readonly circuitOpenedAt: string | null
  readonly circuitReason?: string | null
  readonly circuitProbeAt: string | null
  readonly uncoveredSince: string | null
  readonly registeredAt?: string
  readonly instances: readonly Partial<ExplainedInstance & { readonly inFlightCount: number }>[]
  readonly declarations: readonly {
    readonly patterns: readonly string[]
    /** Not in a tenant's scope. */
    readonly where?: string | null
    readonly hasWhere: boolean
    readonly isActive: boolean
    readonly matches: boolean
    readonly result: boolean | null
    readonly problem?: string | null
  }[]
  readonly key: {
    readonly state: 'active' | 'blocked' | 'parked' | 'overrunning'
    readonly orderingKey: string
    readonly failedEventId: string | null
    readonly failedAt: string | null
    readonly aheadCount: number
    readonly firstEventId: string | null
  } | null
  readonly isHeld: boolean
  readonly job?: {
    readonly state: string
    readonly startAfter: string
    readonly startedAt: string | null
    readonly heartbeatAt: string | null
    readonly heartbeatSeconds: number | null
    readonly flowKey?: string | null
    readonly isDeclined: boolean
    readonly eventCount?: number
    readonly jobsAhead?: number
    readonly eventsAhead?: number
  } | null
  readonly delivery: {
    readonly state: DeliveryState
    readonly attempts: number
    readonly failure: {
      readonly name?: string
      readonly message?: string
      readonly code?: string
      readonly at?: string
      /** Of a discarded dead letter. */
      readonly discardedBy?: string
      readonly reason?: string
      readonly replacedBy?: string
    } | null
    readonly dueAt: string | null
    readonly settledAt: string | null
    readonly durationMs: number | null
    readonly timeline: readonly { readonly at: string }[]
    readonly instanceId?: string | null
  } | null
}
