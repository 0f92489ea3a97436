/**
 * bossbus: a durable event bus for Node services on PostgreSQL.
 *
 * @module
 */
export { createBus } from './bus.ts'
export type { BossbusConfig } from './bossbus-config.ts'
export type { Bus, StartOptions, StopOptions, SubscriptionHandle } from './bus.ts'
export type { BusHealth, BusState, HealthOptions } from './bus-health.ts'
export type { ReceiverHandle } from './bus-receiving.ts'
export type {
  Quarantine,
  QuarantineChange,
  QuarantineChanged,
  QuarantineConditions,
  QuarantinedMessage,
  QuarantinedMessageDetails,
  QuarantineFilter,
  QuarantineSelection,
  QuarantineState,
} from './transports/receiving/quarantine.ts'
export type { PublishChange } from './bus-publishing.ts'
export type { KnownType, TypeDescription } from './events/contracts/catalogue-description.ts'
export type { DeclaredTypes } from './operations/stored-catalogue.ts'
export type { BusOptions, HealthOption } from './bus-options.ts'
export type { RunOption } from './run-option.ts'
export type { MetricsOption } from './telemetry/prometheus/metrics-option.ts'
export { prometheusContentType } from './telemetry/prometheus/text-format.ts'
export { defineEvents, eventTypes, mergeEvents } from './events/catalogue.ts'
export { stopOnSignals, type StopOnSignalsOptions } from './stop-on-signals.ts'
export { fromCloudEvent, toCloudEvent } from './events/cloud-events/cloud-event.ts'
export type {
  CloudEvent,
  FromCloudEventOptions,
  ReceivedCloudEvent,
  ToCloudEventOptions,
} from './events/cloud-events/cloud-event.ts'
export { fromCloudEventHeaders, toCloudEventHeaders } from './events/cloud-events/headers.ts'
export type { CloudEventHeaders, CloudEventProtocol } from './events/cloud-events/headers.ts'
export type {
  EventCatalogue,
  EventDefinition,
  EventType,
  PayloadInput,
  PayloadOutput,
} from './events/catalogue.ts'
export type {
  EventFields,
  EventMetadata,
  EventOf,
  NewEvent,
  OptionalEventFields,
  Published,
  StoredEvent,
} from './events/envelope.ts'
export {
  BusError,
  busErrorCodes,
  ConfigurationError,
  DatabaseError,
  DeliveryError,
  HttpError,
  InvalidEventError,
  NonRetryableError,
  OverloadError,
  RetryAfterError,
  StateError,
  TenantScopeError,
  TransactionError,
} from './foundation/errors.ts'
export type { BusErrorCode, BusErrorOptions, EventIssue } from './foundation/errors.ts'
export { limits } from './foundation/limits.ts'
export type { BusLogger, LogFields } from './foundation/logger.ts'
export type { EventPattern, MatchedType } from './events/pattern.ts'
export type { BlockedKey, BlockedKeys, KeyRelease } from './delivery/operator/blocked-keys.ts'
export type {
  BlockedKeyName,
  DeadLetter,
  DeadLetterGroup,
  DeadLetterReads,
  TenantDeadLetters,
} from './delivery/operator/dead-letters.ts'
export type {
  DeadLetterConditions,
  DeadLetterFilter,
  DeadLetterGroupFilter,
  DeadLetterState,
  TenantDeadLetterFilter,
  TenantDeadLetterGroupFilter,
} from './delivery/operator/dead-letter-filter.ts'
export type {
  DeadLetterAlert,
  DeadLetterAlertOptions,
  DeadLetterCallbacks,
  DeadLetterNotice,
} from './delivery/subscriptions/dead-letter-callbacks.ts'
export type {
  DeadLetters,
  DiscardOptions,
  PreviewOr,
  RedriveOptions,
} from './operations/dead-letters/dead-letters.ts'
export type { DeadLetterDetails, RedriveOutcome } from './operations/dead-letters/inspect.ts'
export type { DeadLetterPreview } from './operations/dead-letters/preview.ts'
export type { Change as PayloadChange } from './operations/dead-letters/payload-changes.ts'
export type { EditedRedrive, EditedRedriveOptions } from './operations/dead-letters/redrive-edited.ts'
export type { DeadLetterSelection } from './operations/dead-letters/selection.ts'
export type { AttemptFailure } from './delivery/attempts/failure.ts'
export type {
  ChangeableOptions,
  OptionsChange,
  PauseOptions,
  SubscriptionControls,
} from './delivery/operator/subscriptions.ts'
export type { SubscriptionInfo, SubscriptionOverrides } from './delivery/operator/subscription-info.ts'
export type { RemovedOr, RemoveOptions, RenameOptions, Subscriptions } from './operations/subscriptions.ts'
export { defineSubscription } from './delivery/subscriptions/define-subscription.ts'
export type {
  DefinedSubscription,
  SubscriptionDefinition,
} from './delivery/subscriptions/define-subscription.ts'
export type {
  EventContext,
  EventContextWithTransaction,
  ExactlyOnceContext,
  HandlerContext,
} from './delivery/subscriptions/handler-context.ts'
export type {
  CircuitBreaker,
  DurableOptions,
  RegisteredOptions,
} from './delivery/subscriptions/subscription.ts'
export type { ResolvedRetry } from './delivery/subscriptions/retry-options.ts'
export type {
  CircuitBreakerOptions,
  DeliveryMode,
  Handler,
  KeyFailureRule,
  RetryOptions,
  SubscriptionOptions,
} from './delivery/subscriptions/subscription-options.ts'
export type { Audit, AuditFilter, AuditRecord, Change } from './audit/audit.ts'
export type { Operation, OperationKind, OperationState } from './operations/operation.ts'
export type { OperationChange, OperationFilter, Operations } from './operations/operations.ts'
export type { KeyFilter, MinuteFilter, Queries, QueryFilter, RowLimit } from './operations/queries.ts'
export type {
  ActiveRow,
  BlockedKeyRow,
  DeadByErrorRow,
  DepthRow,
  EventByKeyRow,
  InstanceRow,
  LagRow,
  LatencyRow,
  RecentFailureRow,
  RetriesRow,
  ScheduledRow,
  StorageRow,
  SubscriptionStateRow,
  TenantRow,
  ThroughputRow,
} from './operations/query-rows.ts'
export type {
  ReplayCall,
  ReplayDryRun,
  ReplayOptions,
  ReplayPreview,
  ReplaySelection,
  StandingCounts,
} from './operations/replay/replay.ts'
export type { Archive, ArchiveFilter } from './retention/archive/archives.ts'
export { archiveToFolder, type ArchiveFormat, type ArchiveStore } from './retention/archive/archive-store.ts'
export type {
  ArchivedFile,
  ArchivedRows,
  ArchivedTable,
  ArchiveManifest,
} from './retention/archive/manifest.ts'
export {
  restoreArchive,
  type RestoreOptions,
  type RestoringClient,
} from './retention/archive/restore-archive.ts'
export type { PendingErasure } from './retention/archive/rewrite-archive.ts'
export type { RetentionOptions, RetentionPolicy } from './retention/policy.ts'
export type { PrunedCounts } from './retention/prune-rows.ts'
export type { PartitionSpanOptions, PruneOptions, Retention } from './retention/retention.ts'
export type { LogRange, PartitionHold, RetentionState } from './retention/retention-state.ts'
export type { RangeOutcome, RetentionReport } from './retention/round.ts'
export type { BusStats, Percentiles, StatsFigures, StatsPoint } from './operations/stats.ts'
export type { StatsGrouping, StatsOptions } from './operations/stats-options.ts'
export type { AdmissionOption } from './health/admission.ts'
export type { TelemetryOption, TelemetrySettings } from './telemetry/telemetry-option.ts'
export type { CanaryCall, CanaryOption } from './health/canary.ts'
export type { CanaryResult } from './health/canary-result.ts'
export type { SubscriptionHealth } from './health/delivery-health.ts'
export { findingCodes, type Finding, type FindingCode, type FindingSeverity } from './health/finding.ts'
export type { OutboxState } from './health/outbox-state.ts'
export type { Erased, Erasure, Erasures, EraseOptions } from './operations/erase.ts'
export type { DatabaseOption } from './database/database.ts'
export type { BusTransaction } from './outbox/transactions/bus-transaction.ts'
export type { CancelCall, CancelOptions, RecordedCancelOptions } from './outbox/publish/cancel.ts'
export type {
  DrizzleFactory,
  DrizzleOption,
  DrizzleSettings,
  HandlerTransaction,
  PlainHandlerTransaction,
} from './database/drizzle-handle.ts'
export type {
  DefaultedBy,
  DefaultsOption,
  EventDefaults,
  EventPublisher,
  Publisher,
} from './outbox/publish/publisher.ts'
export type { DrizzleTransaction } from './outbox/transactions/caller-connection.ts'
export type { AdaptedTransaction, CallerTransaction } from './outbox/transactions/caller-transaction.ts'
export { fromKnex, type KnexTransaction } from './outbox/transactions/adapters/from-knex.ts'
export { fromKysely, type KyselyTransaction } from './outbox/transactions/adapters/from-kysely.ts'
export { fromPg, type PgClient } from './outbox/transactions/adapters/from-pg.ts'
export {
  fromPostgresJs,
  type PostgresJsTransaction,
} from './outbox/transactions/adapters/from-postgres-js.ts'
export { fromPrisma, type PrismaTransaction } from './outbox/transactions/adapters/from-prisma.ts'
export { fromTypeOrm, type TypeOrmTransaction } from './outbox/transactions/adapters/from-typeorm.ts'
export type { RelayState } from './outbox/relay/relay.ts'
export type { DeliveryState, OutboxStatus, StatusFilter } from './operations/delivery-status.ts'
export type { TraceNode, TraceTree } from './operations/event-trace.ts'
export type { DeliveryReason, ExplainedInstance } from './operations/delivery-reason.ts'
export type { Explanation, SubscriptionExplanation } from './operations/explain.ts'
export type { HistoryEvent } from './operations/history-event.ts'
export type { EventState } from './operations/event-states.ts'
export type { TenantOperation, TenantOperations } from './operations/tenant-operations.ts'
export type { EventFilter, OperatorFilter, PayloadOptions, SearchLimit } from './operations/history-filter.ts'
export type { Lookup, LookupMatch } from './operations/lookup.ts'
export type {
  AttemptRecord,
  Discard,
  EventDelivery,
  LastError,
  ReplayedDelivery,
} from './operations/event-deliveries.ts'
export type {
  EventHistory,
  EventSearch,
  HistoryType,
  OperatorHistory,
  TraceOptions,
} from './operations/history.ts'
export type { Reads } from './tenancy/reads.ts'
export type { MigrateOptions } from './tenancy/roles.ts'
export type { DeliveryStats, Tenant, TenantDatabase, TenantStats } from './tenancy/tenant.ts'
