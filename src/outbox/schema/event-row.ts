import type { EventMetadata, StoredEvent } from '../../events/envelope.ts'
import { parseJson } from '../../events/json/parse-json.ts'

/** A row of `bus.events` as `eventColumns` selects it. */
export interface EventRow extends Record<string, unknown> {
  readonly id: string
  readonly tenant_id: string
  readonly type: string
  readonly source: string
  readonly subject: string | null
  readonly schema_version: number
  readonly payload: string
  readonly event_id: string | null
  readonly idempotency_key: string | null
  readonly correlation_id: string | null
  readonly causation_id: string | null
  readonly ordering_key: string | null
  readonly metadata: string
  readonly created_ms: string
  readonly expires_ms: string | null
}

/**
 * The columns that make an event, for a select. Payload and metadata are text, because drivers convert JSON according to their
 * settings, and times are numeric, because how a float is written depends on a setting.
 *
 * @param table - the name of `bus.events` in the statement
 */
export function eventColumns(table: string): string {
  const names = [
    'id',
    'tenant_id',
    'type',
    'source',
    'subject',
    'schema_version',
    'event_id',
    'idempotency_key',
  ]
  const more = ['correlation_id', 'causation_id', 'ordering_key']
  return [
    ...[...names, ...more].map((name) => `${table}.${name}`),
    ...['payload', 'metadata'].map((name) => `${table}.${name}::text as ${name}`),
    `${milliseconds(`${table}.created_at`)} as created_ms`,
    `${milliseconds(`${table}.expires_at`)} as expires_ms`,
  ].join(', ')
}

/** SQL for a time in milliseconds since 1970. */
export function milliseconds(expression: string): string {
  return `extract(epoch from ${expression}) * 1000`
}

/**
 * The event of a row, a new object with each call.
 *
 * @param parse - parses the payload
 */
export function toStoredEvent(row: EventRow, parse: (text: string) => unknown = parseJson): StoredEvent {
  return {
    id: row.id,
    type: row.type,
    source: row.source,
    subject: row.subject ?? undefined,
    tenantId: row.tenant_id,
    payload: parse(row.payload),
    schemaVersion: row.schema_version,
    eventId: row.event_id ?? undefined,
    idempotencyKey: row.idempotency_key ?? undefined,
    correlationId: row.correlation_id ?? undefined,
    causationId: row.causation_id ?? undefined,
    orderingKey: row.ordering_key ?? undefined,
    metadata: row.metadata === '{}' ? {} : (parseJson(row.metadata) as EventMetadata),
    createdAt: new Date(Number(row.created_ms)),
    expiresAt: toDate(row.expires_ms),
  }
}

/** A time in milliseconds. Plain SQL may have stored infinity, for which there is no `Date`. */
export function toDate(ms: string | null): Date | undefined {
  return ms === null || !Number.isFinite(Number(ms)) ? undefined : new Date(Number(ms))
}
