import type pg from 'pg'

/** A row of the outbox that was claimed. */
export interface ClaimRow {
  readonly position: string
  readonly event_id: string
  readonly tenant_id: string
  readonly type: string
  readonly ordering_key: string | null
  readonly payload_bytes: number | null
  readonly routed_through: number | null
}

/** Puts rows back that were claimed, in their places, for the subscriptions that have not got the events yet. */
export async function putBack(
  client: pg.ClientBase,
  rows: readonly ClaimRow[],
  routedThrough: ReadonlyMap<string, number>,
): Promise<void> {
  const left = rows
    .filter(({ event_id }) => routedThrough.has(event_id))
    .map((row) => ({ ...row, routed_through: routedThrough.get(row.event_id) }))
  await client.query(
    `insert into bus.outbox (position, event_id, tenant_id, type, payload_bytes, ordering_key, routed_through)
     overriding system value
     select position, event_id, tenant_id, type, payload_bytes, ordering_key, routed_through
     from jsonb_to_recordset($1::jsonb) as r (position bigint, event_id uuid, tenant_id text, type text,
       payload_bytes integer, ordering_key text, routed_through integer)`,
    [JSON.stringify(left)],
  )
}
