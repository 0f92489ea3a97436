import type { EventCatalogue } from '../events/catalogue.ts'
import { readDeliveries, type EventDelivery } from '../operations/event-deliveries.ts'
import { explainEvent, type Explanation } from '../operations/explain.ts'
import { createHistory, type OperatorHistory } from '../operations/history.ts'
import { lookUp, type Lookup } from '../operations/lookup.ts'
import type { PayloadView } from '../operations/payload-view.ts'
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
   * Why an event is where it is, for each subscription or for one: not routed and why, paused by whom, behind what, retrying until when, and so
   * on. For each a sentence, and a `reason` with its data. Everything is looked up by index.
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`, `BUS_SUBSCRIPTION_NOT_FOUND`; {@link DatabaseError}
   */
  explain: (id: string, subscription?: string) => Promise<Explanation>
  /**
   * What a text is that somebody has in hand: the id of an event, job, operation, process or audit record; a business id, idempotency key,
   * correlation, subject or ordering key; a tenant, a subscription or an event type. Each by index, up to ten of a kind. Empty if it is none
   * of these.
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`; {@link DatabaseError}
   */
  lookup: (text: string) => Promise<Lookup>
  /**
   * What one tenant may see, read under row-level security: a statement without a WHERE still returns only this
   * tenant's rows.
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` if `id` is not a valid tenant id
   */
  tenant: (id: string) => Tenant<C, Tx>
}

/** @param view - decides which part of a payload these reads return, and compare */
export function createReads<C extends EventCatalogue, Tx>(
  database: Database,
  view: PayloadView,
): Reads<C, Tx> {
  return {
    events: createHistory<C>(database, view, undefined),
    deliveries: async (id) => readDeliveries(database, 'event', id),
    explain: async (id, subscription) => explainEvent(database, 'event', id, subscription),
    lookup: async (text) => lookUp(database, text),
    tenant: (id) => createTenant<C, Tx>(database, id, view),
  }
}
