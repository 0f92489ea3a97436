import { beforeTimeout } from './foundation/with-timeout.ts'
import type { Delivery } from './delivery/delivery.ts'
import { readUnserved } from './delivery/registry/instance-heartbeat.ts'
import type { Database } from './database/database.ts'
import { readPartitions, type DefaultPartition } from './outbox/schema/partitions.ts'
import type { RelayState } from './outbox/relay/relay.ts'

export type BusState = 'created' | 'starting' | 'started' | 'stopping' | 'stopped'

/** The bus's state, for a readiness probe. */
export interface BusHealth {
  /** True when the bus is started, the database answers, and the relay is not failing. */
  readonly ok: boolean
  readonly state: BusState
  readonly database: 'up' | 'down'
  readonly relay: RelayState
  /**
   * Whether notifications arrive. False behind a pooler in transaction mode, where the bus polls, and while a lost
   * connection is being replaced: events are then delivered later, by up to a second.
   */
  readonly listening: boolean
  /**
   * Handlers of this process that run on although their attempt has timed out or was taken over. Each keeps its place among the
   * `concurrency` of its subscription until it ends: a number that stays means handlers that ignore `ctx.signal`.
   */
  readonly overrunningHandlerCount: number
  /** `tryPublish` calls of this process that did not publish. */
  readonly failedTryPublishCount: number
  /**
   * What of the log lies in the default partition, because its month had begun without a partition of its own, and what to do.
   * Undefined where that is empty, as it should be, and where the database does not answer or the role may not look.
   */
  readonly defaultPartition: DefaultPartition | undefined
  /**
   * Subscriptions, of all services, that no process runs: a service that is down, or one that was renamed or removed and whose events
   * pile up. Empty where the database does not answer or the role may not look.
   */
  readonly unservedSubscriptions: readonly string[]
}

/** What a bus knows of itself. */
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
  const up = await beforeTimeout(database.query('select 1')).then(
    () => true,
    () => false,
  )
  const ifUp = async <T>(read: () => Promise<T>, otherwise: T): Promise<T> =>
    up ? beforeTimeout(read()).catch(() => otherwise) : otherwise
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
