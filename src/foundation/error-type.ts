import { isError } from './cross-realm.ts'

/** What stands for errors that have no type of their own, by the conventions of OpenTelemetry. */
export const otherErrorType = '_OTHER'

/** Codes of this package, of Node and its libraries, and SQLSTATEs. */
const codeShape = /^[A-Z0-9][A-Z0-9_]{2,59}$/

const nameShape = /^[A-Za-z_$][\w$.]{0,99}$/

/**
 * What kind of error was thrown, as metrics and spans name it: the code of an error of this package, such as `BUS_HANDLER_TIMEOUT`; otherwise
 * the name of its class, or the code of an error that is plainly an `Error`, such as `ECONNREFUSED` or `23505`. Never a message. Never throws.
 */
export function errorTypeOf(thrown: unknown): string {
  try {
    if (!isError(thrown)) return otherErrorType
    // Drizzle's wrapper says nothing.
    if ('params' in thrown && isError(thrown.cause)) return errorTypeOf(thrown.cause)
    const { code } = thrown as { readonly code?: unknown }
    const hasCode = typeof code === 'string' && codeShape.test(code)
    if (hasCode && code.startsWith('BUS_')) return code
    // node-postgres calls its errors `error`.
    const isPlain = thrown.name.toLowerCase() === 'error'
    if (isPlain && hasCode) return code
    const name: unknown = isPlain ? thrown.constructor.name : thrown.name
    return typeof name === 'string' && nameShape.test(name) ? name : otherErrorType
  } catch {
    // A getter of the error threw.
    return otherErrorType
  }
}
