import { isError } from './cross-realm.ts'
import { leftOut, withoutCredentials, withoutQuotedData } from './error-redaction.ts'

/** Maximum number of causes in a reason, and the maximum length of each message. */
const maxCauses = 8
const maxCauseLength = 500

/** Maximum number of errors of an AggregateError in a reason: `connect` has one for each address of a name. */
const maxErrors = 4

/**
 * Why something failed: the message of the thrown value and of its causes, such as `fetch failed, caused by connect
 * ECONNREFUSED 127.0.0.1:9`. A text that an earlier message contains is not repeated. The length is bounded for any
 * chain of causes.
 *
 * Omitted are the parameters that Drizzle's wrapper lists (they may hold a payload), the values that PostgreSQL quotes,
 * and user names and passwords in URLs.
 *
 * @param message - the description of the error itself, if already known
 */
export function reasonOf(thrown: unknown, message?: string): string {
  try {
    const said = [message ?? messageOf(withoutWrapper(thrown))]
    for (const { told, text } of causesOf(thrown))
      if (!said.some((before) => before.includes(text))) said.push(told)
    return said.join(', caused by ')
  } catch {
    // A getter of the error threw.
    return message ?? 'The thrown value could not be read'
  }
}

interface Cause {
  readonly text: string
  /** Includes the code if the message does not contain it. */
  readonly told: string
}

/** The causes, outermost first; the errors of an AggregateError count as its causes. */
function causesOf(thrown: unknown): readonly Cause[] {
  const causes: Cause[] = []
  const seen = new Set<unknown>()
  let current = withoutWrapper(thrown)
  while (causes.length < maxCauses && isObject(current) && !seen.has(current)) {
    seen.add(current)
    const next = withoutWrapper(current.cause)
    const several = Array.isArray(current.errors) ? current.errors.slice(0, maxErrors) : []
    if (next === undefined || next === null) {
      for (const each of several) note(withoutWrapper(each))
      break
    }
    note(next)
    current = next
  }
  return causes

  function note(cause: unknown): void {
    const text = messageOf(cause).slice(0, maxCauseLength).trim()
    const code = isObject(cause) ? codeOf(cause) : undefined
    // An AggregateError has no message of its own.
    if (text === leftOut) return
    if (text === '') {
      if (code !== undefined) causes.push({ text: code, told: code })
      return
    }
    causes.push({ text, told: code === undefined || text.includes(code) ? text : `${text} (${code})` })
  }
}

interface Thrown {
  readonly message?: unknown
  readonly code?: unknown
  readonly cause?: unknown
  readonly errors?: unknown
}

function isObject(value: unknown): value is Thrown {
  return typeof value === 'object' && value !== null
}

function codeOf({ code }: Thrown): string | undefined {
  return typeof code === 'string' && code.length <= 100 ? code : undefined
}

/** The error inside Drizzle's wrapper, whose own message lists every parameter. */
function withoutWrapper(thrown: unknown): unknown {
  return isError(thrown) && 'params' in thrown && isError(thrown.cause) ? thrown.cause : thrown
}

function messageOf(thrown: unknown): string {
  if (!isObject(thrown)) return withoutCredentials(String(thrown))
  // Drizzle's wrapper with no cause.
  if (isError(thrown) && 'params' in thrown) return 'the driver reported no reason'
  const { message, code }: Thrown = thrown
  if (typeof message !== 'string') return 'an object without a message'
  return withoutCredentials(withoutQuotedData(code, message))
}
