import type { EventCatalogue } from '../events/catalogue.ts'
import { readDeliveries, type EventDelivery } from '../operations/event-deliveries.ts'
import { createHistory, type OperatorHistory, type ShowPayload } from '../operations/history.ts'
import type { Database } from '../database/database.ts'
import { createTenant, type Tenant, type TenantDatabase } from './tenant.ts'

/** What a bus shows of its log: to operators, and to tenants. */
export interface Reads<C extends EventCatalogue, Tx = TenantDatabase> {
  /** The log of all tenants: for operators. What one tenant may see is {@link Reads.tenant}. */
  readonly events: OperatorHistory<C>
  /**
   * What became of an event, by subscription. Empty while it is still in the outbox.
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`; {@link DatabaseError}
   */
  deliveries: (id: string) => Promise<EventDelivery[]>
  /**
   * What one tenant may see, read under row-level security: a statement that forgets its WHERE sees this tenant alone.
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` when `id` is not the name of a tenant
   */
  tenant: (id: string) => Tenant<C, Tx>
}

/** @param show - the one place where what they show of payloads is decided */
export function createReads<C extends EventCatalogue, Tx>(
  database: Database,
  show: ShowPayload,
): Reads<C, Tx> {
  return {
    events: createHistory<C>(database, show, 'operator'),
    deliveries: async (id) => readDeliveries(database, 'bus.event_deliveries', id),
    tenant: (id) => createTenant<C, Tx>(database, id, show),
  }
}
