import { isError } from './cross-realm.ts'
import { BusError, DeliveryError } from './errors.ts'
import { withoutWrapper } from './error-redaction.ts'
import { reasonOf } from './error-reason.ts'
import { stackOf } from './error-stack.ts'
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
    const error = withoutWrapper(thrown)
    if (!isError(error))
      return { name: error === null ? 'null' : typeof error, message: storable(describeThrown(error)) }
    const code: unknown = (error as { code?: unknown }).code
    // Where the upcast threw. Its message is omitted, because it may quote the payload.
    const origin = error instanceof DeliveryError && isError(error.cause) ? error.cause : error
    const stack = origin instanceof BusError ? undefined : stackOf(origin, maxStackLength)
    return {
      name: bounded(error.name, 100),
      message: storable(reasonOf(error)),
      ...(typeof code === 'string' || typeof code === 'number' ? { code: bounded(String(code), 100) } : {}),
      ...(stack === undefined ? {} : { stack: storable(stack) }),
    }
  } catch {
    // A getter of the thrown object threw.
    return { name: 'unreadable', message: 'The thrown value could not be read' }
  }
}

function describeThrown(thrown: unknown): string {
  if (thrown === undefined) return 'undefined was thrown'
  if (thrown === null) return 'null was thrown'
  if (typeof thrown === 'symbol' || typeof thrown === 'function') return `a ${typeof thrown} was thrown`
  if (typeof thrown !== 'object' || typeof (thrown as { message?: unknown }).message === 'string')
    return reasonOf(thrown)
  return bounded(`an object was thrown: ${Object.keys(thrown).slice(0, 20).join(', ')}`, maxMessageLength)
}

function bounded(text: unknown, maxLength: number): string {
  const given = typeof text === 'string' ? text : String(text)
  return storable(
    given.length > maxLength ? `${given.slice(0, maxLength)}… (${given.length} characters)` : given,
  )
}

/** As PostgreSQL can store it. */
function storable(text: string): string {
  return invalidTextReason(text) === undefined ? text : text.replaceAll('\u0000', '\\0').toWellFormed()
}
