import type pg from 'pg'
import { upcastPayload, type EventCatalogue } from '../events/catalogue.ts'
import type { EventMetadata, StoredEvent } from '../events/envelope.ts'
import type { Executor } from '../outbox/database.ts'

interface EventRow extends pg.QueryResultRow {
  readonly id: string
  readonly tenant_id: string
  readonly type: string
  readonly source: string
  readonly subject: string | null
  readonly schema_version: number
  readonly payload: unknown
  readonly event_id: string | null
  readonly idempotency_key: string | null
  readonly correlation_id: string | null
  readonly causation_id: string | null
  readonly ordering_key: string | null
  readonly metadata: EventMetadata
  readonly created_at: Date
}

/** Events of the log by id, as they were stored, in no order. Ids that are not in the log are left out. */
export async function loadEvents(executor: Executor, ids: readonly string[]): Promise<StoredEvent[]> {
  const { rows } = await executor.query<EventRow>(
    `select id, tenant_id, type, source, subject, schema_version, payload, event_id, idempotency_key,
       correlation_id, causation_id, ordering_key, metadata, created_at
     from bus.events where id = any($1::uuid[])`,
    [ids],
  )
  return rows.map((row) => ({
    id: row.id,
    type: row.type,
    source: row.source,
    subject: row.subject ?? undefined,
    tenantId: row.tenant_id,
    payload: row.payload,
    schemaVersion: row.schema_version,
    eventId: row.event_id ?? undefined,
    idempotencyKey: row.idempotency_key ?? undefined,
    correlationId: row.correlation_id ?? undefined,
    causationId: row.causation_id ?? undefined,
    orderingKey: row.ordering_key ?? undefined,
    metadata: row.metadata,
    createdAt: row.created_at,
  }))
}

/** The event in the shape its handler knows: older payloads are brought up to the catalogue's version. */
export function inNewestShape(catalogue: EventCatalogue, event: StoredEvent): StoredEvent {
  const definition = Object.hasOwn(catalogue, event.type) ? catalogue[event.type] : undefined
  const newest = definition?.version ?? event.schemaVersion
  if (newest <= event.schemaVersion) return event
  return {
    ...event,
    schemaVersion: newest,
    payload: upcastPayload(definition, event.schemaVersion, event.payload),
  }
}
