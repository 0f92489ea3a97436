import { limits } from './limits.ts'

/** Every code a {@link BusError} can carry. Stable: a code is never renamed or reused. Explained in docs/errors.md. */
export const busErrorCodes = [
  'BUS_INVALID_EVENT',
  'BUS_UNKNOWN_EVENT_TYPE',
  'BUS_TENANT_REQUIRED',
  'BUS_PAYLOAD_NOT_JSON',
  'BUS_PAYLOAD_TOO_LARGE',
  'BUS_SOURCE_NOT_ALLOWED',
  'BUS_INVALID_BATCH',
  'BUS_INVALID_CLOUD_EVENT',
  'BUS_NOT_IN_TRANSACTION',
  'BUS_NODE_UNSUPPORTED',
  'BUS_INVALID_OPTION',
  'BUS_INVALID_PATTERN',
  'BUS_INVALID_WHERE',
  'BUS_DUPLICATE_SUBSCRIPTION',
  'BUS_SUBSCRIPTION_TAKEN',
  'BUS_SUBSCRIPTION_ORDER_CHANGED',
  'BUS_SUBSCRIPTION_NOT_FOUND',
  'BUS_INVALID_STATE',
  'BUS_DATABASE_UNAVAILABLE',
  'BUS_DATABASE_ERROR',
  'BUS_DATABASE_UNSUPPORTED',
  'BUS_SETTING_UNSUPPORTED',
  'BUS_SCHEMA_MISSING',
  'BUS_SCHEMA_OUTDATED',
  'BUS_SCHEMA_TOO_NEW',
  'BUS_SCHEMA_UNKNOWN',
  'BUS_REGISTRY_INCOMPLETE',
  'BUS_BOSS_SCHEMA_MISMATCH',
  'BUS_BOSS_SCHEMA_IN_USE',
  'BUS_BOSS_SCHEMA_TOO_OLD',
  'BUS_BOSS_SCHEMA_OUTDATED',
  'BUS_BOSS_SCHEMA_TOO_NEW',
  'BUS_BOSS_SCHEMA_UNSUPPORTED',
  'BUS_EVENT_NOT_STORED',
  'BUS_ROLE_MISSING',
  'BUS_PERMISSION_DENIED',
  'BUS_OUTSIDE_TENANT_SCOPE',
  'BUS_HANDLER_TIMEOUT',
  'BUS_EVENT_NOT_FOUND',
  'BUS_EVENT_NOT_COVERED',
  'BUS_EVENT_TOO_NEW',
  'BUS_UPCAST_FAILED',
  'BUS_NON_RETRYABLE',
  'BUS_RETRY_AFTER',
  'BUS_HANDLER_TRANSACTION_ABORTED',
  'BUS_HANDLER_TRANSACTION_ENDED',
  'BUS_HANDLER_TRANSACTION_CONFLICT',
] as const

/** A stable code of docs/errors.md. */
export type BusErrorCode = (typeof busErrorCodes)[number]

/** What an error is constructed from. */
export interface BusErrorOptions {
  /** The option, or the field of an event, that is wrong. */
  readonly option?: string | undefined
  /** The error underneath, when there is one. Never carries query parameters or payloads. */
  readonly cause?: unknown
  /** Whether the same call may succeed later without a change to it. @defaultValue `false` */
  readonly retryable?: boolean | undefined
}

/**
 * Gives a class the name that its instances carry whatever a bundler makes of it, and lets `instanceof` know instances by a
 * registered symbol: those of another copy of this package (a monorepo, a bundle, two versions) are instances too. Classes
 * derived from it by others go by their prototypes, as ever.
 */
function knowAcrossCopies(errorClass: abstract new (...args: never) => Error, name: string): void {
  const brand = Symbol.for(`bossbus.${name}`)
  Object.defineProperty(errorClass, 'name', { value: name, configurable: true })
  Object.defineProperty(errorClass.prototype, brand, { value: true })
  Object.defineProperty(errorClass, Symbol.hasInstance, {
    value(this: unknown, value: unknown): boolean {
      if (this !== errorClass) return Function.prototype[Symbol.hasInstance].call(this, value)
      try {
        return typeof value === 'object' && value !== null && brand in value
      } catch {
        // A proxy whose traps throw, thrown by a handler.
        return false
      }
    },
  })
}

/**
 * The base of every error the bus throws on purpose. `instanceof`, here and for the classes below, also knows the errors of
 * another copy of this package in the same process.
 *
 * `code` is stable and documented in docs/errors.md; the message is for people and may change.
 * `retryable` says whether the same call may succeed later: for a failed publish, whether repeating the
 * whole transaction is worth it.
 */
export abstract class BusError extends Error {
  readonly code: BusErrorCode
  readonly retryable: boolean
  /** The option, or the field of an event, that is wrong, such as `retry.maxAttempts`. Undefined where it is about none, or several. */
  readonly option: string | undefined

  constructor(code: BusErrorCode, message: string, options: BusErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = new.target.name
    this.code = code
    this.retryable = options.retryable ?? false
    this.option = options.option
  }

  /**
   * The status of an HTTP answer that this error ends in; Fastify and others take it from here. 4xx for what the caller gave: 413
   * for `BUS_PAYLOAD_TOO_LARGE`, 403 for `BUS_SOURCE_NOT_ALLOWED`, 400 for every other {@link InvalidEventError}; 503 where
   * the same request may succeed later; 500 for the rest.
   */
  get statusCode(): number {
    return this.retryable ? 503 : 500
  }

  static {
    knowAcrossCopies(this, 'BusError')
  }
}

/** The event given to publish is not one the bus can store. Nothing was written. */
export class InvalidEventError extends BusError {
  /** What is wrong, field by field, where a schema reported it. Paths and reasons, never values. */
  readonly issues: readonly EventIssue[]

  constructor(
    code: BusErrorCode,
    message: string,
    issues: readonly EventIssue[] = [],
    options?: BusErrorOptions,
  ) {
    super(code, message, options)
    this.issues = issues
  }

  override get statusCode(): number {
    if (this.code === 'BUS_PAYLOAD_TOO_LARGE') return 413
    return this.code === 'BUS_SOURCE_NOT_ALLOWED' ? 403 : 400
  }

  static {
    knowAcrossCopies(this, 'InvalidEventError')
  }
}

/** One finding of a schema. */
export interface EventIssue {
  /** Dotted path inside the payload, empty for the payload itself. */
  readonly path: string
  readonly message: string
}

/** Publish was given a handle that is not, or is no longer, inside the transaction it stands for. */
export class TransactionError extends BusError {
  constructor(message: string, options?: BusErrorOptions) {
    super('BUS_NOT_IN_TRANSACTION', message, options)
  }

  static {
    knowAcrossCopies(this, 'TransactionError')
  }
}

/** An option, pattern, predicate or name is out of its range. Thrown before anything is written. */
export class ConfigurationError extends BusError {
  static {
    knowAcrossCopies(this, 'ConfigurationError')
  }
}

/** What ran inside `bus.tenant(id).query` would have left the tenant's scope, or came after it. */
export class TenantScopeError extends BusError {
  constructor(message: string, options?: BusErrorOptions) {
    super('BUS_OUTSIDE_TENANT_SCOPE', message, options)
  }

  static {
    knowAcrossCopies(this, 'TenantScopeError')
  }
}

/** A call came in the wrong order, such as subscribing after the start. */
export class StateError extends BusError {
  constructor(message: string, options?: BusErrorOptions) {
    super('BUS_INVALID_STATE', message, options)
  }

  static {
    knowAcrossCopies(this, 'StateError')
  }
}

/** The database refused or could not be reached, or its schema does not fit this version of the bus. */
export class DatabaseError extends BusError {
  /** The SQLSTATE the server gave, such as `40001`, or the driver's own code, such as `ECONNREFUSED`. */
  readonly sqlState: string | undefined

  constructor(
    code: BusErrorCode,
    message: string,
    options: BusErrorOptions & { sqlState?: string | undefined } = {},
  ) {
    super(code, message, options)
    this.sqlState = options.sqlState
  }

  static {
    knowAcrossCopies(this, 'DatabaseError')
  }
}

/** An attempt to handle an event ended in a way the bus itself decided, such as its timeout. */
export class DeliveryError extends BusError {
  static {
    knowAcrossCopies(this, 'DeliveryError')
  }
}

/**
 * Thrown by a handler to say that no further attempt can help. The event goes to the dead letters of the
 * subscription at once, whatever attempts are left.
 *
 * @example
 * ```ts
 * handler: async (event) => {
 *   if (event.payload.amountCents < 0) throw new NonRetryableError('negative amount')
 * }
 * ```
 */
export class NonRetryableError extends BusError {
  constructor(message: string, options?: { readonly cause?: unknown }) {
    super('BUS_NON_RETRYABLE', message, options)
  }

  static {
    knowAcrossCopies(this, 'NonRetryableError')
  }
}

/**
 * Thrown by a handler to say when the next attempt makes sense, such as the `Retry-After` of a service it called. The
 * attempt has failed and counts as any other; the next one is not before that time, whatever `retry` says about delays.
 * After the last attempt the event goes to the dead letters all the same.
 *
 * @example
 * ```ts
 * handler: async (event) => {
 *   const response = await fetch(url, { method: 'POST', body: JSON.stringify(event.payload) })
 *   if (response.status === 429) throw new RetryAfterError(Number(response.headers.get('retry-after') ?? 30))
 * }
 * ```
 */
export class RetryAfterError extends BusError {
  /** Seconds from the failure to the next attempt. */
  readonly seconds: number

  /**
   * @param seconds - 0 to 604,800 (7 days), fractions allowed
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` for anything else: then that is how the attempt failed, and
   *   the next one comes as `retry` says
   */
  constructor(seconds: number, message?: string, options?: { readonly cause?: unknown }) {
    if (typeof seconds !== 'number' || !(seconds >= 0 && seconds <= limits.retryAfterSeconds)) {
      throw new ConfigurationError(
        'BUS_INVALID_OPTION',
        `Expected \`seconds\` of RetryAfterError to be a number from 0 to ${limits.retryAfterSeconds}, got ${typeof seconds === 'number' ? seconds : typeof seconds}`,
      )
    }
    super('BUS_RETRY_AFTER', message ?? `Not before ${seconds} s from now`, { ...options, retryable: true })
    this.seconds = seconds
  }

  static {
    knowAcrossCopies(this, 'RetryAfterError')
  }
}
