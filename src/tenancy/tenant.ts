import type { EventCatalogue } from '../events/catalogue.ts'
import { limits } from '../foundation/limits.ts'
import { textOption } from '../foundation/options.ts'
import { checkFilter, checkGroupFilter } from '../delivery/operator/dead-letter-filter.ts'
import { refuseUnknownToTenant } from '../delivery/registry/find-subscription.ts'
import { readDeadLetters, readGroups, type TenantDeadLetters } from '../delivery/operator/dead-letters.ts'
import { readDeliveries, type EventDelivery } from '../operations/event-deliveries.ts'
import { explainEvent, type Explanation } from '../operations/explain.ts'
import { createHistory, type EventHistory } from '../operations/history.ts'
import { lookUpForTenant, type Lookup } from '../operations/lookup.ts'
import type { PayloadView } from '../operations/payload-view.ts'
import { checkSpan } from '../operations/history-filter.ts'
import { createTenantOperations, type TenantOperations } from '../operations/tenant-operations.ts'
import type { Database, Executor } from '../database/database.ts'
import { runTenantQuery, type TenantDatabase } from './query.ts'
import { scopedExecutor } from './scope.ts'

export type { TenantDatabase } from './query.ts'

/** The number of events of a tenant, and their states. */
export interface TenantStats {
  readonly eventCount: number
  /** Most frequent first. */
  readonly types: readonly { readonly type: string; readonly count: number }[]
  /** One entry for each subscription that received some of the events. */
  readonly deliveries: readonly DeliveryStats[]
}

/** The states of a tenant's events for one subscription. */
export interface DeliveryStats {
  readonly subscription: string
  readonly deliveredCount: number
  readonly expiredCount: number
  /** Waiting, being delivered, or waiting for another attempt. */
  readonly waitingCount: number
  readonly deadCount: number
}

/**
 * What one tenant may see. Each call runs in its own read-only transaction, as the role `bus_tenant` and with the
 * tenant set, so that the database returns only this tenant's rows, whatever the statement selects. Throws
 * `BUS_ROLE_MISSING` if that role does not exist.
 */
export interface Tenant<C extends EventCatalogue, Tx = TenantDatabase> {
  readonly id: string
  readonly events: EventHistory<C>
  /** Counts events and their states, optionally in a time span. It reads all of these events, so long spans take time. */
  stats: (span?: { readonly from?: Date | undefined; readonly to?: Date | undefined }) => Promise<TenantStats>
  /** The state of an event for each subscription. Empty for an event of another tenant, as for one that does not exist. */
  deliveries: (id: string) => Promise<EventDelivery[]>
  /**
   * Why an event is where it is, as `bus.explain` says it, without what is not the tenant's own: subscriptions that its type does not concern,
   * predicates, processes, who paused a subscription and why, and counts of other tenants' events.
   */
  explain: (id: string, subscription?: string) => Promise<Explanation>
  /** What a text is among what the tenant may see: its events, and their business ids, keys, correlations and subjects. */
  lookup: (text: string) => Promise<Lookup>
  /** The dead letters of this tenant's events, without stack traces. */
  readonly deadLetters: TenantDeadLetters
  /** The redrives, discards and replays over this tenant's events alone. */
  readonly operations: TenantOperations
  /**
   * Runs your own reads in the tenant's scope, in one read-only transaction. `db` is Drizzle on node-postgres, with the
   * settings passed to `createBus`. Only reading statements are accepted; SECURITY.md states which attacks that
   * resists, and which it does not.
   *
   * @example
   * ```ts
   * import { events as log } from 'bossbus/schema'
   *
   * const all = await bus.tenant('acme').query((db) => db.select().from(log)) // acme's, without a WHERE
   * ```
   * @throws a {@link TenantScopeError}
   */
  query: <T>(work: (db: Tx) => Promise<T>) => Promise<T>
}

interface StatsRow extends Record<string, unknown> {
  readonly subscription: string
  readonly delivered: string
  readonly expired: string
  readonly waiting: string
  readonly dead: string
}

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
export function createTenant<C extends EventCatalogue, Tx>(
  database: Database,
  tenantId: unknown,
  view: PayloadView,
): Tenant<C, Tx> {
  const id = textOption('id', tenantId, { max: limits.keyLength })
  const executor = scopedExecutor(database, id)
  return {
    id,
    events: createHistory<C>(executor, view, id),
    stats: async (span = {}) => readStats(executor, checkSpan(span, 'tenant.stats')),
    deliveries: async (id) => readDeliveries(executor, 'tenant', id),
    explain: async (eventId, subscription) => explainEvent(executor, 'tenant', eventId, subscription),
    lookup: async (text) => lookUpForTenant(executor, id, text),
    deadLetters: {
      async list(filter = {}) {
        const { stored, limit } = checkFilter(filter, 'deadLetters.list', true)
        const letters = await readDeadLetters(executor, 'bus.tenant_dead_letters', stored, limit)
        if (letters.length === 0) await refuseUnknownToTenant(executor, stored.subscription)
        return letters
      },
      async groups(filter = {}) {
        const { stored, limit } = checkGroupFilter(filter, true)
        const groups = await readGroups(executor, 'bus.tenant_dead_letter_groups', stored, limit)
        if (groups.length === 0) await refuseUnknownToTenant(executor, stored.subscription)
        return groups
      },
    },
    operations: createTenantOperations(executor),
    query: async (work) => runTenantQuery(database, id, work),
  }
}

async function readStats(
  executor: Executor,
  { from, to }: { readonly from: string; readonly to: string },
): Promise<TenantStats> {
  const [{ rows: types }, { rows: deliveries }] = await Promise.all([
    executor.query<{ type: string; count: string }>(
      `select e.type, count(*) from bus.events e where e.id >= $1::uuid and e.id < $2::uuid
       group by e.type order by count(*) desc, e.type collate "C"`,
      [from, to],
    ),
    executor.query<StatsRow>('select * from bus.tenant_delivery_stats($1::uuid, $2::uuid)', [from, to]),
  ])
  return {
    eventCount: types.reduce((sum, { count }) => sum + Number(count), 0),
    types: types.map(({ type, count }) => ({ type, count: Number(count) })),
    deliveries: deliveries.map(({ subscription, delivered, expired, waiting, dead }) => ({
      subscription,
      deliveredCount: Number(delivered),
      expiredCount: Number(expired),
      waitingCount: Number(waiting),
      deadCount: Number(dead),
    })),
  }
}
