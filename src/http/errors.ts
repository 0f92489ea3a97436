import { BusError, DatabaseError, HttpError, type BusErrorCode } from '../foundation/errors.ts'

/** How an error is answered. */
export interface ErrorAnswer {
  readonly statusCode: number
  readonly code: BusErrorCode
  readonly message: string
  /** The parameter that is wrong, where it is one. */
  readonly option?: string | undefined
}

/** The status of errors that say something about the request. The others have that of the error. */
const statuses: Readonly<Partial<Record<BusErrorCode, number>>> = {
  BUS_INVALID_EVENT: 400,
  BUS_UNKNOWN_EVENT_TYPE: 400,
  BUS_TENANT_REQUIRED: 400,
  BUS_PAYLOAD_NOT_JSON: 400,
  BUS_PAYLOAD_TOO_LARGE: 413,
  BUS_SOURCE_NOT_ALLOWED: 403,
  BUS_OVERLOADED: 503,
  BUS_INVALID_OPTION: 400,
  BUS_INVALID_PATTERN: 400,
  BUS_INVALID_WHERE: 400,
  BUS_SUBSCRIPTION_NOT_FOUND: 404,
  BUS_OPERATION_NOT_FOUND: 404,
  BUS_DEAD_LETTER_NOT_FOUND: 404,
  BUS_EVENT_NOT_FOUND: 404,
  BUS_MESSAGE_NOT_FOUND: 404,
  BUS_SUBSCRIPTION_SERVED: 409,
  BUS_SUBSCRIPTION_NOT_EMPTY: 409,
  BUS_SUBSCRIPTION_NOT_COVERING: 409,
  BUS_SUBSCRIPTION_TAKEN: 409,
  BUS_RETENTION_RUNNING: 409,
  // It was stopped, or no process takes the canary.
  BUS_INVALID_STATE: 503,
}

/** The codes for statuses of other errors: of Fastify, and of what the app puts in front of the routes. */
const codes: Readonly<Record<number, BusErrorCode>> = {
  400: 'BUS_HTTP_BAD_REQUEST',
  401: 'BUS_HTTP_UNAUTHORIZED',
  403: 'BUS_HTTP_FORBIDDEN',
  404: 'BUS_HTTP_NOT_FOUND',
  405: 'BUS_HTTP_METHOD_NOT_ALLOWED',
  413: 'BUS_HTTP_BODY_TOO_LARGE',
  415: 'BUS_HTTP_UNSUPPORTED_MEDIA_TYPE',
  429: 'BUS_HTTP_TOO_MANY_REQUESTS',
  503: 'BUS_HTTP_UNAVAILABLE',
}

/** The status that a code of an error is answered with, where the code alone decides. */
export const statusOf = (code: BusErrorCode): number => statuses[code] ?? 500

/** The message of errors that are not the client's business. */
export const unsaid = 'The request failed; the log says why'

/**
 * Every error has one form, whoever has thrown it. What is not the client's business is not said, and the log has it: what the database says
 * names hosts, roles, tables and values.
 */
export function toErrorAnswer(error: unknown): ErrorAnswer {
  if (error instanceof BusError) {
    const { code, message, option } = error
    const statusCode = statuses[code] ?? error.statusCode
    const isSaid = maySay(statusCode) && !(error instanceof DatabaseError)
    return { statusCode, code, message: isSaid ? message : unsaid, option }
  }
  const { statusCode: given, message } = (error ?? {}) as { statusCode?: unknown; message?: unknown }
  const isStatus = typeof given === 'number' && Number.isInteger(given) && given >= 400 && given <= 599
  const statusCode = isStatus ? given : 500
  const code = codes[statusCode] ?? (statusCode < 500 ? 'BUS_HTTP_BAD_REQUEST' : 'BUS_HTTP_ERROR')
  const isSaid = typeof message === 'string' && message !== '' && maySay(statusCode)
  return { statusCode, code, message: isSaid ? message : unsaid }
}

const maySay = (statusCode: number): boolean => statusCode < 500 || statusCode === 503

export const forbidden = (message: string): HttpError => new HttpError(403, 'BUS_HTTP_FORBIDDEN', message)

export const notFound = (message: string): HttpError => new HttpError(404, 'BUS_HTTP_NOT_FOUND', message)

/** No event has this id. */
export const eventNotFound = (id: string): HttpError =>
  new HttpError(404, 'BUS_EVENT_NOT_FOUND', `There is no event ${id} in the log`)
