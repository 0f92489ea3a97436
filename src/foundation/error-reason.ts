import { isError } from './cross-realm.ts'
import { leftOut, withoutQuotedData } from './error-redaction.ts'

/** Causes of an error that are told, and the length of each message. */
const maxCauses = 8
const maxCauseLength = 500

/** Errors of an AggregateError that are told: `connect` has one for each address of a name. */
const maxErrors = 4

/**
 * Why something failed: the message of whatever was thrown, and those of its causes, `fetch failed, caused by connect
 * ECONNREFUSED 127.0.0.1:9`. What a message says already is not said again. Bounded, whatever the chain is like.
 *
 * Left out are what Drizzle's wrapper lists (every parameter, which may be a payload), what PostgreSQL quotes of a value, and
 * names and passwords in URLs.
 *
 * @param message - how the error itself is told, where that is known already
 */
export function reasonOf(thrown: unknown, message?: string): string {
  try {
    const said = [message ?? messageOf(withoutWrapper(thrown))]
    for (const { told, text } of causesOf(thrown))
      if (!said.some((before) => before.includes(text))) said.push(told)
    return said.join(', caused by ')
  } catch {
    // A getter of it threw in its turn.
    return message ?? 'What was thrown could not be read'
  }
}

interface Cause {
  readonly text: string
  /** With the code, where the message does not name it. */
  readonly told: string
}

/** The causes, outermost first; an AggregateError's errors are causes of it. */
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

/** What Drizzle's wrapper is around: its own message lists every parameter. */
function withoutWrapper(thrown: unknown): unknown {
  return isError(thrown) && 'params' in thrown && isError(thrown.cause) ? thrown.cause : thrown
}

function messageOf(thrown: unknown): string {
  if (!isObject(thrown)) return String(thrown)
  // Drizzle's wrapper with nothing inside.
  if (isError(thrown) && 'params' in thrown) return 'the driver gave no reason'
  const { message, code }: Thrown = thrown
  if (typeof message !== 'string') return 'an object without a message'
  return withoutCredentials(withoutQuotedData(code, message))
}

/** `https://user:password@host` without the two. */
function withoutCredentials(text: string): string {
  return text.replaceAll(/(?<=:\/\/)[^\s/?#@]{1,1000}@/g, '…@')
}
