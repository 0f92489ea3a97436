/**
 * The Drizzle tables of the bus, for reads and joins. Import them, but do not export them from a file that drizzle-kit
 * reads: it would plan to create, change or drop what `bus.migrate()` has created. See docs/drizzle.md.
 *
 * @module
 */
export { busSchema, cancellations, eventKeys, events, outbox, sourceRules } from './outbox/schema/schema.ts'
export { busRoles } from './database/role-names.ts'
export {
  catchUpDispatched,
  declarations,
  instances,
  orderedEvents,
  orderedKeys,
  removedSubscriptions,
  subscriptionRevision,
  subscriptions,
} from './delivery/schema.ts'
export {
  attempts,
  deadLetterAlerts,
  deadLetterCalls,
  deliveries,
  eventCopies,
  failing,
  hourlyRollups,
  receiptBatches,
  receipts,
  replayOutcomes,
  replays,
  rollups,
  tenantRollups,
} from './delivery/ledger/schema.ts'
export { audit } from './audit/schema.ts'
export { canaries, catalogue, erasures, operations } from './operations/schema.ts'
export {
  archiveErasures,
  archiveFiles,
  archives,
  partitionSpans,
  retentionPolicies,
  retentionState,
} from './retention/schema.ts'
export { quarantinedMessages } from './transports/receiving/schema.ts'
