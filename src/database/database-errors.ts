import {
  BusError,
  DatabaseError,
  StateError,
  TransactionError,
  type BusErrorCode,
} from '../foundation/errors.ts'
import { reasonOf } from '../foundation/error-reason.ts'

interface Meaning {
  readonly code: BusErrorCode
  readonly retryable: boolean
  readonly message: string
}

/** The meaning of a server's code (SQLSTATE) or a driver's code for the caller. Two-letter keys are SQLSTATE classes. */
const meanings: Readonly<Record<string, Meaning>> = {
  // The server cannot be reached, or has closed the connection.
  '08': {
    code: 'BUS_DATABASE_UNAVAILABLE',
    retryable: true,
    message: 'The connection to the database failed',
  },
  '53': {
    code: 'BUS_DATABASE_UNAVAILABLE',
    retryable: true,
    message: 'The database is out of a resource, such as connections or disk',
  },
  '57P01': {
    code: 'BUS_DATABASE_UNAVAILABLE',
    retryable: true,
    message: 'The database ended the connection',
  },
  '57P02': { code: 'BUS_DATABASE_UNAVAILABLE', retryable: true, message: 'The database crashed' },
  '57P03': {
    code: 'BUS_DATABASE_UNAVAILABLE',
    retryable: true,
    message: 'The database is not accepting connections now',
  },
  '57P05': {
    code: 'BUS_DATABASE_UNAVAILABLE',
    retryable: true,
    message: 'The database ended an idle session',
  },
  '25P03': {
    code: 'BUS_DATABASE_UNAVAILABLE',
    retryable: true,
    message: 'The database ended a transaction that was idle too long',
  },
  '25P04': {
    code: 'BUS_DATABASE_UNAVAILABLE',
    retryable: true,
    message: 'The database ended a transaction that took too long',
  },
  ...Object.fromEntries(
    [
      ...[
        'ECONNREFUSED',
        'ECONNRESET',
        'ECONNABORTED',
        'ENOTFOUND',
        'EAI_AGAIN',
        'EADDRNOTAVAIL',
        'ETIMEDOUT',
        'EPIPE',
        'EHOSTDOWN',
        'EHOSTUNREACH',
        'ENETDOWN',
        'ENETUNREACH',
        'ENOENT',
      ],
      ...['CONNECTION_CLOSED', 'CONNECTION_ENDED', 'CONNECTION_DESTROYED', 'CONNECT_TIMEOUT'],
    ].map((code) => [
      code,
      {
        code: 'BUS_DATABASE_UNAVAILABLE',
        retryable: true,
        message: 'The database cannot be reached',
      } as const,
    ]),
  ),
  // Occurs just after a failover: a retried transaction may reach the new primary.
  '25006': {
    code: 'BUS_DATABASE_ERROR',
    retryable: true,
    message: 'The database does not accept writes now: it is a standby, or the transaction is read-only',
  },
  // The transaction lost against another one; it can be retried as a whole.
  '40': {
    code: 'BUS_DATABASE_ERROR',
    retryable: true,
    message: 'The transaction conflicted with a concurrent one',
  },
  '55P03': { code: 'BUS_DATABASE_ERROR', retryable: true, message: 'A lock could not be acquired in time' },
  // The caller's transaction had failed before.
  '25P02': {
    code: 'BUS_DATABASE_ERROR',
    retryable: false,
    message: 'The transaction failed at an earlier statement',
  },
  // Raised by functions of the bus: what was stored is not what was published.
  BUS02: {
    code: 'BUS_EVENT_NOT_STORED',
    retryable: false,
    message: 'Something other than the bus removes or changes rows of its tables',
  },
  // The role lacks a privilege; the policy of the log raises the same code if bus.source_rules forbids the event.
  '42501': {
    code: 'BUS_PERMISSION_DENIED',
    retryable: false,
    message: 'The role of this connection lacks a privilege',
  },
  // Raised by bus.store_events: the event would never be delivered.
  BUS03: {
    code: 'BUS_SETTING_UNSUPPORTED',
    retryable: false,
    message: 'A setting of this connection prevents events from being delivered',
  },
  // The schema of the bus does not exist.
  '3F000': {
    code: 'BUS_SCHEMA_MISSING',
    retryable: false,
    message: 'The schema `bus` is missing: run bus.migrate()',
  },
  '42P01': {
    code: 'BUS_SCHEMA_MISSING',
    retryable: false,
    message: 'A table of the bus is missing: run bus.migrate()',
  },
  '42883': {
    code: 'BUS_SCHEMA_MISSING',
    retryable: false,
    message: 'A function of the bus is missing: run bus.migrate()',
  },
}

/** The message of node-postgres for a pool that has ended. */
const poolHasEnded = 'Cannot use a pool after calling end on the pool'

/** The error of a call on a stopped bus, which no longer uses the database. */
export function stoppedError(): StateError {
  return new StateError('The bus was stopped with bus.stop(): it no longer uses the database')
}

/**
 * Converts an error of a driver or of Drizzle to an error of the bus. Drizzle's wrapper is removed, because its message
 * lists every parameter. The cause keeps the server's message and code, but not its detail, which quotes rows, not the
 * driver's own fields, and not a value that the message quotes.
 */
export function toBusError(error: unknown): BusError {
  if (error instanceof BusError) return error
  const inner = innermost(error)
  // Wrapped by a pool.
  if (inner instanceof BusError) return inner
  if (inner.message === poolHasEnded) return stoppedError()
  const { sqlState, cause } = describeCause(inner)
  if (sqlState === 'BUS01') {
    return new TransactionError(
      'Expected the `tx` of an open transaction: this one has ended, its connection was lost, or it is not a transaction. Await every publish inside db.transaction(async (tx) => …). Nothing was written',
      {
        cause,
      },
    )
  }
  const meaning = meaningOf(inner, sqlState)
  return new DatabaseError(
    meaning?.code ?? 'BUS_DATABASE_ERROR',
    `${meaning?.message ?? 'The database refused a statement'}: ${cause.message}`,
    {
      cause,
      sqlState,
      retryable: meaning?.retryable ?? false,
    },
  )
}

/**
 * The bus's error for a connection that could not be opened. Any error of a driver, a file or a caller's function is
 * retryable here, because it may succeed next time: a secret is replaced, a certificate renewed, a file restored.
 */
export function toConnectError(error: unknown): BusError {
  if (error instanceof BusError) return error
  const inner = innermost(error)
  if (inner instanceof BusError) return inner
  const { sqlState, cause } = describeCause(inner)
  const meaning = meaningOf(inner, sqlState)
  const message =
    refusals[sqlState ?? ''] ??
    (sqlState !== undefined && meaning?.code === 'BUS_DATABASE_UNAVAILABLE'
      ? meaning.message
      : 'No connection to the database could be opened')
  return new DatabaseError('BUS_DATABASE_UNAVAILABLE', `${message}: ${cause.message}`, {
    cause,
    sqlState,
    retryable: true,
  })
}

/** The server's refusals of a login. */
const refusals: Readonly<Record<string, string>> = {
  '3D000': 'The server does not have this database (the path of the URL)',
  '28P01': 'The server refused the password',
  '28000': 'The server refused the login of this role',
}

function describeCause(inner: ErrorLike): { readonly sqlState: string | undefined; readonly cause: Error } {
  const sqlState = typeof inner.code === 'string' ? inner.code : undefined
  const cause = Object.assign(
    new Error(reasonOf(inner) || 'unknown error'),
    sqlState === undefined ? {} : { code: sqlState },
  )
  return { sqlState, cause }
}

interface ErrorLike {
  readonly name?: string
  readonly message?: string
  readonly code?: unknown
  readonly cause?: unknown
  readonly errors?: unknown
}

/** The shape of a SQLSTATE. Other codes are those of a driver or of Node. */
const sqlStateShape = /^(?!E[A-Z]{4}$)[0-9A-Z]{5}$/

/** Codes of Node and OpenSSL for a certificate that is not accepted and for a failed handshake. */
const tlsCode =
  /^(?:ERR_(?:TLS|SSL|OSSL)_.*|EPROTO|(?:.*_)?CERT(?:_.*)?|UNABLE_TO_.*|SELF_SIGNED_.*|.*CRL_.*|HOSTNAME_MISMATCH|INVALID_CA|INVALID_PURPOSE|PATH_LENGTH_EXCEEDED)$/

/** Retryable, because a certificate may be renewed. */
const tlsFailed: Meaning = {
  code: 'BUS_DATABASE_UNAVAILABLE',
  retryable: true,
  message: 'No secure connection to the database could be opened',
}

const driverFailed: Meaning = {
  code: 'BUS_DATABASE_ERROR',
  retryable: false,
  message: 'The database driver could not run a statement',
}

function meaningOf(inner: ErrorLike, code: string | undefined): Meaning | undefined {
  if (code !== undefined)
    return (
      meanings[code] ??
      (sqlStateShape.test(code) ? meanings[code.slice(0, 2)] : tlsCode.test(code) ? tlsFailed : driverFailed)
    )
  // A programming error, not an answer of the server.
  if (['TypeError', 'RangeError', 'ReferenceError', 'SyntaxError'].includes(inner.name ?? ''))
    return undefined
  // An error without a code comes from the driver and concerns its connection: the server always sends a SQLSTATE.
  return meanings['ECONNRESET']
}

function innermost(error: unknown): ErrorLike {
  let current: ErrorLike = isErrorLike(error) ? error : { message: String(error) }
  for (let depth = 0; depth < 5 && typeof current.code !== 'string'; depth += 1) {
    const next = isErrorLike(current.cause) ? current.cause : firstOf(current.errors)
    if (next === undefined) break
    current = next
  }
  return current
}

/** `connect` throws an AggregateError with an empty message if a name has several addresses. */
function firstOf(errors: unknown): ErrorLike | undefined {
  return Array.isArray(errors) ? errors.find(isErrorLike) : undefined
}

function isErrorLike(value: unknown): value is ErrorLike {
  return typeof value === 'object' && value !== null
}

/** Whether the error says that another transaction held a lock for too long. */
export function isLockTimeout(error: unknown): boolean {
  const { sqlState, code } = error as { readonly sqlState?: unknown; readonly code?: unknown }
  return sqlState === '55P03' || code === '55P03'
}
