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
  'BUS_SUBSCRIPTION_SERVED',
  'BUS_SUBSCRIPTION_NOT_EMPTY',
  'BUS_SUBSCRIPTION_NOT_COVERING',
  'BUS_OPERATION_NOT_FOUND',
  'BUS_DEAD_LETTER_NOT_FOUND',
  'BUS_RETENTION_RUNNING',
  'BUS_INVALID_STATE',
  'BUS_OVERLOADED',
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
  'BUS_TRANSPORT_FAILED',
  'BUS_TRANSPORT_CLOSED',
  'BUS_TRANSPORT_CLIENT_MISSING',
  'BUS_INVALID_TRANSPORT_URL',
  'BUS_MESSAGE_TOO_LARGE',
  'BUS_URL_NOT_ALLOWED',
  'BUS_DUPLICATE_RECEIVER',
  'BUS_MAP_FAILED',
  'BUS_MESSAGE_WITHOUT_ID',
  'BUS_MESSAGE_NOT_FOUND',
  'BUS_HTTP_BAD_REQUEST',
  'BUS_HTTP_UNAUTHORIZED',
  'BUS_HTTP_FORBIDDEN',
  'BUS_HTTP_CROSS_ORIGIN',
  'BUS_HTTP_NOT_FOUND',
  'BUS_HTTP_METHOD_NOT_ALLOWED',
  'BUS_HTTP_BODY_TOO_LARGE',
  'BUS_HTTP_UNSUPPORTED_MEDIA_TYPE',
  'BUS_HTTP_TOO_MANY_REQUESTS',
  'BUS_HTTP_UNAVAILABLE',
  'BUS_HTTP_ERROR',
] as const

/** A stable code of docs/errors.md. */
export type BusErrorCode = (typeof busErrorCodes)[number]

/** Options of the constructor of a bus error. */
export interface BusErrorOptions {
  /** The invalid option, or the invalid field of an event. */
  readonly option?: string | undefined
  /** The underlying error, if there is one. Never contains query parameters or payloads. */
  readonly cause?: unknown
  /** Whether the same call may succeed later, unchanged. @defaultValue `false` */
  readonly retryable?: boolean | undefined
}

/**
 * Fixes the class name of the instances, even after minification, and makes `instanceof` recognise instances by a
 * registered symbol. Errors of another copy of this package (a monorepo, a bundle, two versions) are then instances
 * too. Subclasses defined elsewhere use the normal prototype check.
 */
function recogniseAcrossCopies(errorClass: abstract new (...args: never) => Error, name: string): void {
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
 * The base class of every error that the bus throws deliberately. `instanceof`, for this class and its subclasses, also
 * recognises the errors of another copy of this package in the same process.
 *
 * `code` is stable and documented in docs/errors.md; the message is for people and may change. `retryable` states
 * whether the same call may succeed later: for a failed publish, whether it is worth repeating the whole transaction.
 */
export abstract class BusError extends Error {
  readonly code: BusErrorCode
  readonly retryable: boolean
  /**
   * The invalid option, or the invalid field of an event, such as `retry.maxAttempts`. Undefined if the error concerns
   * none or several.
   */
  readonly option: string | undefined

  constructor(code: BusErrorCode, message: string, options: BusErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.name = new.target.name
    this.code = code
    this.retryable = options.retryable ?? false
    this.option = options.option
  }

  /**
   * The HTTP status that this error should produce; Fastify and others read it from here. 4xx for invalid input: 413
   * for `BUS_PAYLOAD_TOO_LARGE`, 403 for `BUS_SOURCE_NOT_ALLOWED`, 400 for every other {@link InvalidEventError}; 503
   * if the same request may succeed later; 500 otherwise.
   */
  get statusCode(): number {
    return this.retryable ? 503 : 500
  }

  static {
    recogniseAcrossCopies(this, 'BusError')
  }
}

/** The bus cannot store the event passed to publish. Nothing was written. */
export class InvalidEventError extends BusError {
  /** The problems field by field, if a schema reported them. Paths and reasons, never values. */
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
    recogniseAcrossCopies(this, 'InvalidEventError')
  }
}

/** One finding of a schema. */
export interface EventIssue {
  /** Dotted path inside the payload, empty for the payload itself. */
  readonly path: string
  readonly message: string
}

/** Publish was called with a handle that is not, or no longer, inside an open transaction. Nothing was written. */
export class TransactionError extends BusError {
  constructor(message: string, options?: BusErrorOptions) {
    super('BUS_NOT_IN_TRANSACTION', message, options)
  }

  static {
    recogniseAcrossCopies(this, 'TransactionError')
  }
}

/** An option, pattern, predicate or name is invalid. Thrown before anything is written. */
export class ConfigurationError extends BusError {
  static {
    recogniseAcrossCopies(this, 'ConfigurationError')
  }
}

/** Code inside `bus.tenant(id).query` tried to leave the tenant's scope, or ran after it had ended. */
export class TenantScopeError extends BusError {
  constructor(message: string, options?: BusErrorOptions) {
    super('BUS_OUTSIDE_TENANT_SCOPE', message, options)
  }

  static {
    recogniseAcrossCopies(this, 'TenantScopeError')
  }
}

/** A method was called in the wrong state, such as `start` after `stop`. */
export class StateError extends BusError {
  constructor(message: string, options?: BusErrorOptions) {
    super('BUS_INVALID_STATE', message, options)
  }

  static {
    recogniseAcrossCopies(this, 'StateError')
  }
}

/** Publish was refused, because more events wait than the option `admission` allows. Nothing was written. */
export class OverloadError extends BusError {
  constructor(message: string) {
    super('BUS_OVERLOADED', message, { retryable: true })
  }

  static {
    recogniseAcrossCopies(this, 'OverloadError')
  }
}

/** The database refused a statement or could not be reached, or its schema does not fit this version of the bus. */
export class DatabaseError extends BusError {
  /** The SQLSTATE that the server returned, such as `40001`, or the driver's own code, such as `ECONNREFUSED`. */
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
    recogniseAcrossCopies(this, 'DatabaseError')
  }
}

/** The HTTP API refused a request before it asked the bus, or something around it failed. */
export class HttpError extends BusError {
  readonly #statusCode: number

  constructor(statusCode: number, code: BusErrorCode, message: string, options?: BusErrorOptions) {
    super(code, message, options)
    this.#statusCode = statusCode
  }

  override get statusCode(): number {
    return this.#statusCode
  }

  static {
    recogniseAcrossCopies(this, 'HttpError')
  }
}

/** An attempt to handle an event ended by a decision of the bus, such as a timeout. */
export class DeliveryError extends BusError {
  static {
    recogniseAcrossCopies(this, 'DeliveryError')
  }
}

/**
 * Thrown by a handler if further attempts cannot succeed. The event becomes a dead letter of the subscription
 * immediately, even if attempts are left.
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
    recogniseAcrossCopies(this, 'NonRetryableError')
  }
}

/**
 * Thrown by a handler to set the time of the next attempt, for example from the `Retry-After` header of a service that
 * it called. The attempt has failed and counts like any other. The next attempt starts no earlier than that time, and
 * the delays of `retry` do not apply. After the last attempt the event still becomes a dead letter.
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
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` for any other value. Thrown inside a handler, that error
   *   fails the attempt, and the next attempt follows `retry`
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
    recogniseAcrossCopies(this, 'RetryAfterError')
  }
}
