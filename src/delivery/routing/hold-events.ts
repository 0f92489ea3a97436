import type pg from 'pg'
import type { ClaimedEvent } from '../../outbox/relay/claim.ts'
import type { RegisteredSubscription } from '../registry/registry.ts'

/** In SQL: the position of one more event that is held for a subscription. They ascend below 0, where no claim reads. */
export const heldPositionSql = `nextval('bus.outbox_position_seq') - 4611686018427387904`

/**
 * Holds events back in the outbox for one subscription, because its jobs need a locked resource, in the transaction
 * that claims them for all. They keep their order, after events that are already held: their positions ascend below 0,
 * where no claim reads.
 */
export async function holdEvents(
  client: pg.ClientBase,
  { id, ordered }: Pick<RegisteredSubscription, 'id' | 'ordered'>,
  events: readonly ClaimedEvent[],
): Promise<void> {
  await client.query(
    `insert into bus.outbox (position, event_id, tenant_id, type, payload_bytes, ordering_key, subscription_id)
     overriding system value
     select ${heldPositionSql}, e.event_id, e.tenant_id, e.type, e.payload_bytes, e.ordering_key, $1
     from (
       select * from unnest($2::uuid[], $3::text[], $4::text[], $5::int[], $6::text[])
         with ordinality as u (event_id, tenant_id, type, payload_bytes, ordering_key, ordinal)
       order by u.ordinal
     ) e`,
    [
      id,
      events.map((event) => event.id),
      events.map((event) => event.tenantId),
      events.map((event) => event.type),
      events.map((event) => event.payloadBytes),
      // Without order there is no key to wait for.
      events.map((event) => (ordered === true ? event.orderingKey : undefined)),
    ],
  )
}
