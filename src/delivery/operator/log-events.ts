import type { Executor } from '../../database/database.ts'

/** What the log says about the event of a dead letter. */
export interface LogEvent {
  readonly id: string
  readonly tenantId: string
  readonly type: string
  readonly orderingKey: string | undefined
  readonly isErased: boolean
  readonly isExpired: boolean
  readonly payloadBytes: number
}

interface LogRow extends Record<string, unknown> {
  readonly id: string
  readonly tenant_id: string
  readonly type: string
  readonly ordering_key: string | null
  readonly is_erased: boolean
  readonly is_expired: boolean
  readonly payload_bytes: number
}

/** Those of some events that are in the log. Only the partitions of these events are read. */
export async function readLogEvents(
  executor: Executor,
  ids: readonly string[],
): Promise<ReadonlyMap<string, LogEvent>> {
  if (ids.length === 0) return new Map()
  const { rows } = await executor.query<LogRow>(
    `select e.id, e.tenant_id, e.type, e.ordering_key, e.erased_at is not null as is_erased,
       coalesce(e.expires_at <= now(), false) as is_expired, octet_length(e.payload::text) as payload_bytes
     from bus.events e where e.id = any($1::uuid[])`,
    [[...new Set(ids)]],
  )
  return new Map(
    rows.map((row) => [
      row.id,
      {
        id: row.id,
        tenantId: row.tenant_id,
        type: row.type,
        orderingKey: row.ordering_key ?? undefined,
        isErased: row.is_erased,
        isExpired: row.is_expired,
        payloadBytes: row.payload_bytes,
      },
    ]),
  )
}
