import { withAnswerLimit } from './foundation/with-timeout.ts'
import type { Delivery } from './delivery/delivery.ts'
import { readUnserved } from './delivery/registry/instance-heartbeat.ts'
import type { Database } from './database/database.ts'
import { readPartitions, type DefaultPartition } from './outbox/schema/partitions.ts'
import type { RelayState } from './outbox/relay/relay.ts'

export type BusState = 'created' | 'starting' | 'started' | 'stopping' | 'stopped'

/** The state of the bus, for a readiness probe. */
export interface BusHealth {
  /** True if the bus has started, the database answers, and the relay is not failing. */
  readonly ok: boolean
  readonly state: BusState
  readonly database: 'up' | 'down'
  readonly relay: RelayState
  /**
   * Whether notifications arrive. False behind a pooler in transaction mode, where the bus polls, and while a lost
   * connection is being replaced. Events are then delivered up to a second later.
   */
  readonly listening: boolean
  /**
   * Handlers of this process that are still running although their attempt timed out or was taken over. Each occupies
   * one of the `concurrency` of its subscription until it ends. If this number stays above 0, handlers ignore
   * `ctx.signal`.
   */
  readonly overrunningHandlerCount: number
  /** `tryPublish` calls of this process that failed to publish. */
  readonly failedTryPublishCount: number
  /**
   * The part of the log that is in the default partition because its month began without a partition, and the remedy.
   * Undefined if the default partition is empty, as it should be, and if the database does not answer or the role may
   * not read it.
   */
  readonly defaultPartition: DefaultPartition | undefined
  /**
   * Subscriptions, of all services, that no process runs: their service is down, or they were renamed or removed and
   * their events accumulate. Empty if the database does not answer or the role may not read them.
   */
  readonly unservedSubscriptions: readonly string[]
}

/** What a bus knows about itself. */
interface OwnState {
  readonly state: BusState
  readonly delivery: Delivery | undefined
  readonly failedTryPublishCount: number
}

export async function readHealth(
  database: Database,
  { state, delivery, failedTryPublishCount }: OwnState,
): Promise<BusHealth> {
  const relay = delivery?.relayState ?? 'stopped'
  const up = await withAnswerLimit(database.query('select 1')).then(
    () => true,
    () => false,
  )
  const ifUp = async <T>(read: () => Promise<T>, otherwise: T): Promise<T> =>
    up ? withAnswerLimit(read()).catch(() => otherwise) : otherwise
  const partitions = await ifUp(async () => readPartitions(database), undefined)
  const unservedSubscriptions = await ifUp<readonly string[]>(async () => readUnserved(database), [])
  return {
    ok: up && state === 'started' && relay !== 'failing',
    state,
    database: up ? 'up' : 'down',
    relay,
    listening: delivery?.isListening ?? false,
    overrunningHandlerCount: delivery?.overrunningHandlerCount ?? 0,
    failedTryPublishCount,
    defaultPartition: partitions?.defaultPartition,
    unservedSubscriptions,
  }
}
