/**
 * bossbus: a durable event bus for Node services on PostgreSQL.
 *
 * @module
 */
export { createBus } from './bus.ts'
export type { BossbusConfig } from './cli/config.ts'
export type { Bus, StartOptions, StopOptions } from './bus.ts'
export type { BusHealth, BusState } from './bus-health.ts'
export type { BusOptions } from './bus-options.ts'
export type { RunOption } from './run-option.ts'
export { defineEvents, eventTypes, mergeEvents } from './events/catalogue.ts'
export { fromCloudEvent, toCloudEvent } from './events/cloud-event.ts'
export type {
  CloudEvent,
  FromCloudEventOptions,
  ReceivedCloudEvent,
  ToCloudEventOptions,
} from './events/cloud-event.ts'
export { fromCloudEventHeaders, toCloudEventHeaders } from './events/cloud-event-headers.ts'
export type { CloudEventHeaders, CloudEventProtocol } from './events/cloud-event-headers.ts'
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
  InvalidEventError,
  NonRetryableError,
  RetryAfterError,
  StateError,
  TenantScopeError,
  TransactionError,
} from './events/errors.ts'
export type { BusErrorCode, BusErrorOptions, EventIssue } from './events/errors.ts'
export { limits } from './events/limits.ts'
export type { BusLogger, LogFields } from './events/logger.ts'
export type { EventPattern, MatchedType } from './events/pattern.ts'
export type { BlockedKey, BlockedKeys, KeyRelease } from './delivery/blocked-keys.ts'
export type { BlockedKeyName, DeadLetter, DeadLetters } from './delivery/dead-letters.ts'
export type { AttemptFailure } from './delivery/failure.ts'
export type { PauseOptions, SubscriptionInfo, Subscriptions } from './delivery/subscriptions.ts'
export { defineSubscription } from './delivery/define-subscription.ts'
export type { DefinedSubscription, SubscriptionDefinition } from './delivery/define-subscription.ts'
export type {
  EventContext,
  EventContextWithTransaction,
  ExactlyOnceContext,
  HandlerContext,
} from './delivery/handler-context.ts'
export type {
  CircuitBreaker,
  DurableOptions,
  RegisteredOptions,
  ResolvedRetry,
} from './delivery/subscription.ts'
export type {
  CircuitBreakerOptions,
  DeliveryMode,
  KeyFailureRule,
  RetryOptions,
  SubscriptionOptions,
} from './delivery/subscription-options.ts'
export type { Erased, Erasure, Erasures, EraseOptions } from './operations/erase.ts'
export type { DatabaseOption } from './outbox/database.ts'
export type { BusTransaction } from './outbox/bus-transaction.ts'
export type { CancelCall, CancelOptions } from './outbox/cancel.ts'
export type {
  DrizzleFactory,
  DrizzleOption,
  DrizzleSettings,
  HandlerTransaction,
  PlainHandlerTransaction,
} from './outbox/drizzle-handle.ts'
export type {
  DefaultedBy,
  DefaultsOption,
  EventDefaults,
  EventPublisher,
  Publisher,
} from './outbox/publisher.ts'
export type { CallerTransaction, DrizzleTransaction } from './outbox/caller-transaction.ts'
export type { AdaptedTransaction } from './outbox/transactions/adapted-transaction.ts'
export { fromKnex, type KnexTransaction } from './outbox/transactions/from-knex.ts'
export { fromKysely, type KyselyTransaction } from './outbox/transactions/from-kysely.ts'
export { fromPg, type PgClient } from './outbox/transactions/from-pg.ts'
export { fromPostgresJs, type PostgresJsTransaction } from './outbox/transactions/from-postgres-js.ts'
export { fromPrisma, type PrismaTransaction } from './outbox/transactions/from-prisma.ts'
export { fromTypeOrm, type TypeOrmTransaction } from './outbox/transactions/from-typeorm.ts'
export type { RelayState } from './outbox/relay.ts'
export type { EventDelivery, LastError } from './operations/event-deliveries.ts'
export type { EventFilter, OperatorFilter } from './operations/history-filter.ts'
export type {
  EventHistory,
  HistoryEvent,
  HistoryType,
  OperatorHistory,
  TraceOptions,
} from './operations/history.ts'
export type { Reads } from './tenancy/reads.ts'
export type { MigrateOptions } from './tenancy/roles.ts'
export type { DeliveryStats, Tenant, TenantDatabase, TenantStats } from './tenancy/tenant.ts'
