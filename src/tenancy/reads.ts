import type { EventCatalogue } from '../events/catalogue.ts'
import { readDeliveries, type EventDelivery } from '../operations/event-deliveries.ts'
import { createHistory, type OperatorHistory, type ShowPayload } from '../operations/history.ts'
import type { Database } from '../database/database.ts'
import { createTenant, type Tenant, type TenantDatabase } from './tenant.ts'

/**
 * The reads of a bus: for operators, and for tenants. What a tenant may read is decided in the database, by the policies and functions
 * of drizzle/0003_tenancy_and_source_rules.sql, for receipts, attempts and dead letters of drizzle/0005_ledger.sql, and by the grants of
 * drizzle/roles.sql.
 */
export interface Reads<C extends EventCatalogue, Tx = TenantDatabase> {
  /** The log of all tenants: for operators. {@link Reads.tenant} shows what one tenant may see. */
  readonly events: OperatorHistory<C>
  /**
   * The state of an event for each subscription. Empty while it is still in the outbox.
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`; {@link DatabaseError}
   */
  deliveries: (id: string) => Promise<EventDelivery[]>
  /**
   * What one tenant may see, read under row-level security: a statement without a WHERE still returns only this
   * tenant's rows.
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` if `id` is not a valid tenant id
   */
  tenant: (id: string) => Tenant<C, Tx>
}

/** @param show - decides which part of a payload these reads return */
export function createReads<C extends EventCatalogue, Tx>(
  database: Database,
  show: ShowPayload,
): Reads<C, Tx> {
  return {
    events: createHistory<C>(database, show, 'operator'),
    deliveries: async (id) => readDeliveries(database, 'event', id),
    tenant: (id) => createTenant<C, Tx>(database, id, show),
  }
}
