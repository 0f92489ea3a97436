/**
 * The Drizzle tables of the bus, for joins and for keeping them in a drizzle-kit history of your own.
 *
 * @module
 */
export { busSchema, cancellations, eventKeys, events, outbox, sourceRules } from './outbox/schema.ts'
export {
  declarations,
  deliveries,
  instances,
  orderedEvents,
  orderedKeys,
  subscriptionRevision,
  subscriptions,
} from './delivery/schema.ts'
export { catalogue, erasures } from './operations/schema.ts'
