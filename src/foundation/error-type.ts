import { isError } from './cross-realm.ts'
import { withoutWrapper } from './error-redaction.ts'

/** What stands for errors that have no type of their own, by the conventions of OpenTelemetry. */
export const otherErrorType = '_OTHER'

/** Codes of this package, of Node and its libraries, and SQLSTATEs. */
const codeShape = /^[A-Z0-9][A-Z0-9_]{2,59}$/

const nameShape = /^[A-Za-z_$][\w$.]{0,99}$/

/** Names of errors by which a handler says what is to happen, not what went wrong. */
const verdicts: readonly string[] = ['NonRetryableError', 'RetryAfterError']

/** How many errors are looked into for the one that says more. */
const maxDepth = 8

/**
 * What kind of error was thrown, as metrics and spans name it: the code of an error of this package, such as `BUS_HANDLER_TIMEOUT`; otherwise
 * the name of its class, or the code of an error that is plainly an `Error`, such as `ECONNREFUSED` or `23505`. Of Drizzle's wrapper, and of
 * `NonRetryableError` and `RetryAfterError`, the type of their cause. Never a message. Never throws.
 */
export function errorTypeOf(thrown: unknown, depth = 0): string {
  try {
    const error = withoutWrapper(thrown)
    if (!isError(error)) return otherErrorType
    const isVerdict = verdicts.includes(error.name)
    if (isVerdict && isError(error.cause) && depth < maxDepth) return errorTypeOf(error.cause, depth + 1)
    const { code } = error as { readonly code?: unknown }
    const hasCode = typeof code === 'string' && codeShape.test(code)
    // A class of the service's own says more than the verdict that it extends.
    const extendsVerdict = !isVerdict && (code === 'BUS_NON_RETRYABLE' || code === 'BUS_RETRY_AFTER')
    if (hasCode && code.startsWith('BUS_') && !extendsVerdict) return code
    // Most classes do not set their name. node-postgres calls its errors `error`.
    const name: unknown = error.name === 'Error' ? error.constructor.name : error.name
    if (hasCode && (name === 'Error' || name === 'error')) return code
    return typeof name === 'string' && nameShape.test(name) ? name : otherErrorType
  } catch {
    // A getter of the error threw.
    return otherErrorType
  }
}
