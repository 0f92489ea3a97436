import type { busRoles } from './role-names.ts'

/** Functions that publish or cancel: `bus_operator` may not call them, as drizzle/roles.sql says. */
const publishing = [
  ...['publish', 'publish_in_transaction', 'store_events', 'claim_event_keys', 'confirm_stored'],
  ...['name_transaction', 'cancel_in_transaction'],
]

/** What neither `bus_publisher` nor `bus_operator` may use. */
const working = [
  ...['repair_sequences', 'remove_canary', 'enqueue_replayed', 'enqueue_ordered', 'lock_ordered_keys'],
  ...['take_held_events', 'record_failures', 'record_recoveries', 'pack_receipts', 'record_known_failures'],
  ...['is_single_event', 'outbox_position_seq'],
]

/**
 * The role of the bus that has what the server has denied, by the server's message. Undefined for another refusal: that of a policy, or of a
 * change of the schema.
 */
export function neededRole(message: string): (typeof busRoles)[number] | undefined {
  const [, kind, name = ''] =
    /permission denied for (function|procedure|table|view|sequence|schema) (\S+)/.exec(message) ?? []
  if (kind === undefined) return undefined
  if (publishing.includes(name)) return 'bus_publisher'
  return working.includes(name) ? 'bus_worker' : 'bus_operator'
}
