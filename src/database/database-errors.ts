import {
  BusError,
  DatabaseError,
  StateError,
  TransactionError,
  type BusErrorCode,
} from '../foundation/errors.ts'
import { withoutQuotedData } from '../foundation/error-redaction.ts'

interface Meaning {
  readonly code: BusErrorCode
  readonly retryable: boolean
  readonly message: string
}

/** What a code of the server (SQLSTATE) or of a driver means for the caller. Two-letter keys are SQLSTATE classes. */
const meanings: Readonly<Record<string, Meaning>> = {
  // The server cannot be reached, or ended the connection.
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
  // Right after a failover: the transaction may find the new primary when it is repeated.
  '25006': {
    code: 'BUS_DATABASE_ERROR',
    retryable: true,
    message: 'The database takes no writes now: it is a standby, or the transaction is read-only',
  },
  // The transaction lost against another one; the whole of it may be repeated.
  '40': {
    code: 'BUS_DATABASE_ERROR',
    retryable: true,
    message: 'The transaction lost against a concurrent one',
  },
  '55P03': { code: 'BUS_DATABASE_ERROR', retryable: true, message: 'A lock could not be taken in time' },
  // The caller's transaction failed before.
  '25P02': {
    code: 'BUS_DATABASE_ERROR',
    retryable: false,
    message: 'The transaction failed at an earlier statement',
  },
  // Raised by the functions of the bus: what was stored is not what was published.
  BUS02: {
    code: 'BUS_EVENT_NOT_STORED',
    retryable: false,
    message: 'Something else than the bus keeps rows out of its tables, or changes them',
  },
  // The role may not do it; the policy of the log says so with the same code, where a rule of bus.source_rules forbids it.
  '42501': {
    code: 'BUS_PERMISSION_DENIED',
    retryable: false,
    message: 'The role of this connection may not do that',
  },
  // Raised by bus.store_events: what it wrote would never be delivered.
  BUS03: {
    code: 'BUS_SETTING_UNSUPPORTED',
    retryable: false,
    message: 'A setting of this connection keeps events from being delivered',
  },
  // The schema of the bus is not there.
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

/** What node-postgres says of a pool that has ended. */
const poolHasEnded = 'Cannot use a pool after calling end on the pool'

/** The error of a call on a bus that asks the database for nothing any more. */
export function stoppedError(): StateError {
  return new StateError('The bus was stopped with bus.stop(): it asks the database for nothing any more')
}

/**
 * The bus's error for one that a driver or Drizzle threw. Drizzle's wrapper is taken off, because its message
 * lists every parameter, and the cause keeps the server's message and code but neither its detail, which quotes
 * rows, nor the driver's own fields; nor a value that the message quotes.
 */
export function toBusError(error: unknown): BusError {
  if (error instanceof BusError) return error
  const inner = innermost(error)
  // What a pool wrapped.
  if (inner instanceof BusError) return inner
  if (inner.message === poolHasEnded) return stoppedError()
  const { sqlState, cause } = describeCause(inner)
  if (sqlState === 'BUS01') {
    return new TransactionError(
      'Expected the `tx` of a transaction that is open: this one has ended, or its connection was lost, or it is a handle outside any. Await every publish inside db.transaction(async (tx) => …). Nothing was written',
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
 * The bus's error for a connection that could not be made. Whatever a driver, a file or a function of the caller's says
 * then is an answer that may be another one next time: a secret is replaced, a certificate renewed, a file back.
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
      : 'No connection to the database could be made')
  return new DatabaseError('BUS_DATABASE_UNAVAILABLE', `${message}: ${cause.message}`, {
    cause,
    sqlState,
    retryable: true,
  })
}

/** What a server says to somebody whom it does not let in. */
const refusals: Readonly<Record<string, string>> = {
  '3D000': 'The server has no such database (the path of the URL)',
  '28P01': 'The server refused the password',
  '28000': 'The server does not let this role in',
}

function describeCause(inner: ErrorLike): { readonly sqlState: string | undefined; readonly cause: Error } {
  const sqlState = typeof inner.code === 'string' ? inner.code : undefined
  const cause = Object.assign(
    new Error(withoutQuotedData(sqlState, messageOf(inner))),
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

/** What a server says. Everything else is a driver's word, or Node's. */
const sqlStateShape = /^(?!E[A-Z]{4}$)[0-9A-Z]{5}$/

/** Node's codes, and OpenSSL's, for a certificate that is not accepted and a handshake that fails. */
const tlsCode =
  /^(?:ERR_(?:TLS|SSL|OSSL)_.*|EPROTO|(?:.*_)?CERT(?:_.*)?|UNABLE_TO_.*|SELF_SIGNED_.*|.*CRL_.*|HOSTNAME_MISMATCH|INVALID_CA|INVALID_PURPOSE|PATH_LENGTH_EXCEEDED)$/

/** A certificate may be renewed. */
const tlsFailed: Meaning = {
  code: 'BUS_DATABASE_UNAVAILABLE',
  retryable: true,
  message: 'No secure connection to the database could be made',
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
  // A mistake in code, not an answer.
  if (['TypeError', 'RangeError', 'ReferenceError', 'SyntaxError'].includes(inner.name ?? ''))
    return undefined
  // An error without any code comes from the driver, about its connection: the server always sends a SQLSTATE.
  return meanings['ECONNRESET']
}

function messageOf(inner: ErrorLike): string {
  // Drizzle's wrapper with nothing inside: its own message lists every parameter.
  if ('params' in inner) return 'the driver gave no reason'
  return [inner, firstOf(inner.errors)].find((error) => error?.message)?.message ?? 'unknown error'
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

/** `connect` gives an AggregateError, its own message empty, when a name has several addresses. */
function firstOf(errors: unknown): ErrorLike | undefined {
  return Array.isArray(errors) ? errors.find(isErrorLike) : undefined
}

function isErrorLike(value: unknown): value is ErrorLike {
  return typeof value === 'object' && value !== null
}
