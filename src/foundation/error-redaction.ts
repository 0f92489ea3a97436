import type { StandardIssue } from './standard-schema.ts'
import { isError } from './cross-realm.ts'

/** Beyond any of these limits the whole message is replaced, not searched for values. */
const maxValues = 1000
const maxVisits = 10_000
const maxMessageLength = 20_000

/**
 * The reason that a schema reported, with quoted payload values replaced by `…`: valibot and arktype quote the value
 * they received, and reasons are logged. Texts of up to three letters are replaced only between quotes, so that the
 * words of the sentence remain. Words that schema libraries use in their messages, and options that the schema itself
 * names, also remain.
 */
export function redactIssue(issue: StandardIssue, payload: unknown): string {
  const { message } = issue
  const values = message.length > maxMessageLength ? undefined : valuesIn(valueAt(issue.path ?? [], payload))
  if (values === undefined) return 'refused by the schema'
  const texts = [...seenValues(issue), ...values].toSorted((a, b) => b.length - a.length)
  const options = namedOptions(issue)
  let redacted = message
  for (const text of texts) redacted = withoutText(redacted, text)
  // Parts that a library trimmed, shortened or split before quoting them.
  return redacted.replaceAll(/(["'`])((?:(?!\1).)*)\1/gs, (quoted, _quote, inner: string) =>
    inner.length > 3 && !options.includes(inner) && texts.some((text) => text.includes(inner))
      ? '"…"'
      : quoted,
  )
}

/** The message of the error that {@link redactThrown} returns. */
export const leftOut = 'omitted because it may quote the payload'

/**
 * An error that a schema or a getter threw, with its name and stack but without its message: `JSON.parse` and others
 * quote their input.
 */
export function redactThrown(thrown: unknown): Error {
  const redacted = new Error(leftOut)
  redacted.stack = `Error: ${redacted.message}`
  try {
    if (!isError(thrown)) return redacted
    redacted.name = thrown.name.slice(0, 100)
    redacted.stack = [`${redacted.name}: ${redacted.message}`, ...framesOf(thrown)].join('\n')
  } catch {
    // A hostile error: its getters throw, or return something other than text.
  }
  return redacted
}

/** Where an error was created: the lines of its stack behind its message, which a stack begins with. */
export function framesOf({ message, stack }: Error): readonly string[] {
  if (typeof stack !== 'string' || typeof message !== 'string') return []
  // A message that was changed later is still the old one in the stack.
  const start = Math.max(0, stack.indexOf(message))
  return stack
    .slice(start + (stack.startsWith(message, start) ? message.length : 0))
    .split('\n')
    .filter((line) => /^\s+at /.test(line))
}

/** The value an issue is about, or the whole payload if the path does not exist. */
function valueAt(path: NonNullable<StandardIssue['path']>, payload: unknown): unknown {
  let value = payload
  for (const part of path) {
    const key = typeof part === 'object' ? part.key : part
    if (value === null || typeof value !== 'object' || !Object.hasOwn(value, key)) return payload
    value = (value as Record<PropertyKey, unknown>)[key]
  }
  return value
}

/** Every text and number in a value, as a message would show it. Undefined if there are too many. */
function valuesIn(root: unknown): string[] | undefined {
  const values = new Set<string>()
  const seen = new Set<object>()
  const left: unknown[] = [root]
  for (let visits = 0; left.length > 0; visits += 1) {
    if (visits > maxVisits || values.size > maxValues) return undefined
    const value = left.pop()
    if (typeof value === 'string') {
      for (const text of [value, value.trim(), JSON.stringify(value).slice(1, -1)]) values.add(text)
    } else if (typeof value === 'number' || typeof value === 'bigint') {
      values.add(String(value))
    } else if (typeof value === 'object' && value !== null && !seen.has(value)) {
      seen.add(value)
      const items = Object.values(value) as unknown[]
      if (items.length > maxVisits) return undefined
      left.push(...items)
    }
  }
  return [...values]
}

/** The values that valibot and arktype report as received, except type names such as `Object` or `a string`. */
function seenValues(issue: StandardIssue): string[] {
  const { received, actual } = issue as { received?: unknown; actual?: unknown }
  return [received, actual].filter(
    (seen): seen is string => typeof seen === 'string' && !/^(?:[A-Za-z ]*|\d+)$/.test(seen),
  )
}

/** The options of a choice that zod reports as expected: they come from the schema, not from the payload. */
function namedOptions(issue: StandardIssue): readonly string[] {
  const { values } = issue as { values?: unknown }
  return Array.isArray(values) ? values.filter((value) => typeof value === 'string') : []
}

/** Words that schema libraries use in their messages. If a payload contains one of them, it is not replaced in the sentence. */
const wording = new Set(
  [
    'invalid input type value values expected received but and or of one at least most more less than must be a an was is not to have has',
    'string number boolean bigint symbol undefined null object array date map set record tuple function promise file integer int float',
    'nan never void unknown any union intersection literal enum option discriminator key keys property element entry entries item items',
    'too big small large long short length size characters character bytes unrecognized missing required optional unexpected exactly',
    'email uuid url uri iso datetime time duration address format pattern regex base64 json start starts end ends with include includes',
    'including match matches multiple greater smaller equal positive negative nonnegative finite safe empty non valid in the',
  ].flatMap((line) => line.split(' ')),
)

/** Whether a match, extended to whole words, consists of library words and is not quoted. */
function isWording(message: string, at: number, found: string): boolean {
  const before = /[A-Za-z]*$/.exec(message.slice(Math.max(0, at - 30), at))?.[0] ?? ''
  const after = /^[A-Za-z]*/.exec(message.slice(at + found.length, at + found.length + 30))?.[0] ?? ''
  const start = at - before.length
  const end = at + found.length + after.length
  const isQuoted = /["'`]/.test(message[start - 1] ?? '') && message[start - 1] === message[end]
  if (isQuoted) return false
  return `${before}${found}${after}`
    .split(/[ :,]+/)
    .every((word) => word === '' || wording.has(word.toLowerCase()))
}

function withoutText(message: string, text: string): string {
  if (text.length > 3)
    return message.replaceAll(text, (found, at: number) => (isWording(message, at, found) ? found : '…'))
  if (/^-?[\d.]+$/.test(text))
    return message.replaceAll(new RegExp(`(?<![\\w.])${text.replaceAll('.', '\\.')}(?![\\w.])`, 'g'), '…')
  return ['"', "'", '`'].reduce(
    (shown, quote) => shown.replaceAll(`${quote}${text}${quote}`, `${quote}…${quote}`),
    message,
  )
}

/**
 * A message for people: of a thrown value, without what may be a payload or a secret. Handlers' own messages are kept otherwise:
 * docs/guide/sensitive-data.md says so.
 */
export function messageOf(thrown: unknown): string {
  if (typeof thrown !== 'object' || thrown === null) return withoutCredentials(String(thrown))
  // Drizzle's wrapper with no cause.
  if (isWrapper(thrown)) return 'the driver reported no reason'
  const { message, code } = thrown as { readonly message?: unknown; readonly code?: unknown }
  if (typeof message !== 'string') return 'an object without a message'
  return withoutCredentials(withoutQuotedData(code, message))
}

/** The error inside Drizzle's wrapper, whose own message lists every parameter. */
export function withoutWrapper(thrown: unknown): unknown {
  return isWrapper(thrown) && isError(thrown.cause) ? withoutWrapper(thrown.cause) : thrown
}

function isWrapper(thrown: unknown): thrown is Error {
  return isError(thrown) && 'params' in thrown
}

/**
 * PostgreSQL's message about an invalid value (SQLSTATE class 22), without the value that it quotes: `invalid input
 * syntax for type integer: "…"`. The quotation marks depend on the language of the server. Other messages name tables, columns and
 * constraints, and are kept, except where they repeat such a message, as those of Prisma do.
 */
function withoutQuotedData(code: unknown, message: string): string {
  // From the first quotation mark to the last: the value may contain some.
  if (typeof code === 'string' && /^22[0-9A-Z]{3}$/.test(code))
    return message.replace(/["„“”«»「」『』].*["„“”«»「」『』]/s, '"…"')
  return message.replace(/(?<=invalid input (?:syntax|value) for [^"\n]{1,100}: )".*"/s, '"…"')
}

/** `https://user:password@host` without the credentials. */
export function withoutCredentials(text: string): string {
  return text.replaceAll(/(?<=:\/\/)[^\s/?#@]{1,1000}@/g, '…@')
}
