import type { LastError } from './event-deliveries.ts'

/** A running process, as `bus.instances` knows it. */
export interface ExplainedInstance {
  readonly id: string
  readonly service: string
  readonly host: string
  readonly pid: number
  readonly version: string
}

/**
 * Why an event is where it is for a subscription. `reason` is stable; its data say from when, until when, by whom and how many. Counts stop at
 * 10,000 or so, and `isPartial` says that there are more. What only operators may know is undefined in a tenant's scope.
 */
export type DeliveryReason =
  /** It is in the outbox: no relay has dispatched it yet. With no relay running, none will. */
  | { readonly reason: 'not-dispatched'; readonly relayCount: number | undefined }
  /** It is not due yet. */
  | { readonly reason: 'scheduled'; readonly until: Date | undefined }
  | { readonly reason: 'cancelled'; readonly at: Date }
  /** None of the subscription's patterns matches its type. */
  | { readonly reason: 'no-pattern-matches'; readonly type: string; readonly patterns: readonly string[] }
  /** `where` is not true of its payload. */
  | { readonly reason: 'predicate-false'; readonly where: readonly string[] }
  /** `where` cannot judge its payload, which counts as false. */
  | {
      readonly reason: 'predicate-error'
      readonly where: readonly string[]
      readonly problem: string | undefined
    }
  /**
   * It was dispatched, and not to this subscription, which would receive it now: it was registered, or declared so, later. Or the event is
   * erased, and `where` can no longer be tried.
   */
  | { readonly reason: 'not-routed'; readonly registeredAt: Date | undefined }
  /** A lock that its jobs need is taken: the relay keeps it for this subscription, and tries again. */
  | { readonly reason: 'held' }
  | {
      readonly reason: 'paused'
      readonly since: Date
      readonly by: string | undefined
      readonly why: string | undefined
    }
  /** Every attempt failed; a single event is tried at `until`. */
  | {
      readonly reason: 'circuit-open'
      readonly since: Date
      readonly until: Date | undefined
      readonly error: string | undefined
    }
  /** An earlier event of its key has failed for good, or its handler ignores its signal. The key waits for a person, or for that handler. */
  | {
      readonly reason: 'key-blocked' | 'key-parked' | 'key-overrunning'
      readonly orderingKey: string
      readonly byEventId: string | undefined
      readonly since: Date | undefined
    }
  /** Earlier events of its key come first. */
  | {
      readonly reason: 'behind-key'
      readonly orderingKey: string
      readonly firstEventId: string | undefined
      readonly aheadCount: number
      readonly isPartial: boolean
    }
  /** No running process has this subscription. */
  | { readonly reason: 'no-instance'; readonly service: string | undefined }
  /** The running code does not cover it: it needs another version. */
  | { readonly reason: 'not-covered'; readonly since: Date | undefined; readonly versions: readonly string[] }
  /**
   * Its tenant has as many events in flight as it may, and this one was put off until about its turn. Which process holds the others is known
   * to the processes alone.
   */
  | { readonly reason: 'tenant-limit'; readonly limit: number; readonly until: Date }
  /** Events of its tenant were published before it and wait too. Their tenants take turns. */
  | { readonly reason: 'behind-tenant'; readonly aheadCount: number; readonly isPartial: boolean }
  /** It is in the queue, and nothing is in its way. `aheadCount` are events of several tenants before it. */
  | { readonly reason: 'waiting'; readonly aheadCount: number | undefined; readonly isPartial: boolean }
  /**
   * A process has it. Which one is not recorded: `instances` are those that may. The heartbeat is overdue if that process has died, and the
   * event is then tried again.
   */
  | {
      readonly reason: 'delivering'
      readonly since: Date | undefined
      readonly heartbeatAt: Date | undefined
      readonly isOverdue: boolean
      readonly instances: readonly ExplainedInstance[]
      /** The events of its job, which are delivered together. */
      readonly eventCount: number | undefined
    }
  | {
      readonly reason: 'retrying'
      readonly attempts: number
      readonly until: Date | undefined
      readonly error: LastError | undefined
    }
  | {
      readonly reason: 'dead'
      readonly attempts: number
      readonly since: Date | undefined
      readonly error: LastError | undefined
    }
  | { readonly reason: 'expired' | 'erased'; readonly at: Date | undefined }
  | {
      readonly reason: 'discarded'
      readonly at: Date | undefined
      /** Who discarded the dead letter, and why; and the id of the edited copy that is delivered in its place. */
      readonly by: string | undefined
      readonly because: string | undefined
      readonly replacedBy: string | undefined
    }
  | {
      readonly reason: 'delivered'
      readonly at: Date | undefined
      readonly attempt: number
      readonly durationMs: number | undefined
      /** The process that did it, where it is recorded: for attempts after a failed one. */
      readonly instanceId: string | undefined
    }
