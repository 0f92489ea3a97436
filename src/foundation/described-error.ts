import { isError } from './cross-realm.ts'
import { BusError, DeliveryError } from './errors.ts'
import { withoutCredentials, withoutQuotedData } from './error-redaction.ts'
import { reasonOf } from './error-reason.ts'
import { invalidTextReason } from './text.ts'

/** A thrown value as text that may be stored and shown: readable, bounded, and without what quotes data. */
export interface DescribedError {
  /** The error's class, or the type of the thrown value. */
  readonly name: string
  /** Includes the messages of its causes: `fetch failed, caused by connect ECONNREFUSED 127.0.0.1:9`. */
  readonly message: string
  /** The error's `code`, if it has one. */
  readonly code?: string
  readonly stack?: string
}

const maxMessageLength = 2000
const maxStackLength = 4000

/** Describes any thrown value. Never throws. */
export function describeError(thrown: unknown): DescribedError {
  try {
    // Drizzle's wrapper lists every parameter, which may be a payload; the wrapped error is used instead.
    if (isError(thrown) && 'params' in thrown && isError(thrown.cause)) return describeError(thrown.cause)
    if (isError(thrown)) {
      const code: unknown = (thrown as { code?: unknown }).code
      const message = withoutCredentials(withoutQuotedData(code, thrown.message))
      return {
        name: bounded(thrown.name, 100),
        message: bounded(reasonOf(thrown, message), maxMessageLength),
        ...(typeof code === 'string' || typeof code === 'number' ? { code: bounded(String(code), 100) } : {}),
        ...(typeof thrown.stack === 'string' && !(thrown instanceof BusError)
          ? {
              stack: bounded(
                withoutCredentials(thrown.stack.replace(thrown.message, () => message)),
                maxStackLength,
              ),
            }
          : {}),
        // Where the upcast threw. Its message is omitted, because it may quote the payload.
        ...(thrown instanceof DeliveryError && isError(thrown.cause)
          ? { stack: bounded(withoutCredentials(String(thrown.cause.stack)), maxStackLength) }
          : {}),
      }
    }
    return {
      name: thrown === null ? 'null' : typeof thrown,
      message: bounded(withoutCredentials(describeThrown(thrown)), maxMessageLength),
    }
  } catch {
    // A getter of the thrown object threw.
    return { name: 'unreadable', message: 'The thrown value could not be read' }
  }
}

function describeThrown(thrown: unknown): string {
  if (thrown === undefined) return 'undefined was thrown'
  if (thrown === null) return 'null was thrown'
  if (typeof thrown === 'object') {
    const message: unknown = (thrown as { message?: unknown }).message
    return typeof message === 'string'
      ? message
      : `an object was thrown: ${Object.keys(thrown).slice(0, 20).join(', ')}`
  }
  return typeof thrown === 'symbol' || typeof thrown === 'function'
    ? `a ${typeof thrown} was thrown`
    : `${thrown as string | number}`
}

function bounded(text: unknown, maxLength: number): string {
  const given = typeof text === 'string' ? text : String(text)
  const short =
    given.length > maxLength ? `${given.slice(0, maxLength)}… (${given.length} characters)` : given
  return invalidTextReason(short) === undefined ? short : short.replaceAll('\u0000', '\\0').toWellFormed()
}
