import type { StandardIssue } from './standard-schema.ts'
import { isError } from './cross-realm.ts'

/** Past any of these a message is not searched for values but given up. */
const maxValues = 1000
const maxVisits = 10_000
const maxMessageLength = 20_000

/**
 * The reason a schema gave, with what it quotes of the payload replaced by `…`: valibot and arktype name the value they
 * saw, and reasons end up in logs. Texts of up to three letters are found only between quotes, so that the words
 * of the sentence stay; so do the words that schema libraries make their sentences of, and the options that the schema itself names.
 */
export function redactIssue(issue: StandardIssue, payload: unknown): string {
  const { message } = issue
  const values = message.length > maxMessageLength ? undefined : valuesIn(valueAt(issue.path ?? [], payload))
  if (values === undefined) return 'refused by the schema'
  const texts = [...seenValues(issue), ...values].toSorted((a, b) => b.length - a.length)
  const options = namedOptions(issue)
  let redacted = message
  for (const text of texts) redacted = withoutText(redacted, text)
  // What a library trimmed, cut short or took apart before it quoted it.
  return redacted.replaceAll(/(["'`])((?:(?!\1).)*)\1/gs, (quoted, _quote, inner: string) =>
    inner.length > 3 && !options.includes(inner) && texts.some((text) => text.includes(inner))
      ? '"…"'
      : quoted,
  )
}

/** The message of what {@link redactThrown} gives. */
export const leftOut = 'left out, as it may quote the payload'

/**
 * What a schema or a getter threw, with its name and stack and without its message: `JSON.parse` and others quote
 * what they were given.
 */
export function redactThrown(thrown: unknown): Error {
  const redacted = new Error(leftOut)
  redacted.stack = `Error: ${redacted.message}`
  try {
    if (!isError(thrown)) return redacted
    redacted.name = thrown.name.slice(0, 100)
    const { message, stack = '' } = thrown
    const start = stack.indexOf(message)
    const frames = start === -1 ? [] : stack.slice(start + message.length).split('\n')
    redacted.stack = [
      `${redacted.name}: ${redacted.message}`,
      ...frames.filter((line) => /^\s+at /.test(line)),
    ].join('\n')
  } catch {
    // A hostile error: its getters throw, or give something else than text.
  }
  return redacted
}

/** The value an issue is about. The whole payload, where the path leads nowhere. */
function valueAt(path: NonNullable<StandardIssue['path']>, payload: unknown): unknown {
  let value = payload
  for (const part of path) {
    const key = typeof part === 'object' ? part.key : part
    if (value === null || typeof value !== 'object' || !Object.hasOwn(value, key)) return payload
    value = (value as Record<PropertyKey, unknown>)[key]
  }
  return value
}

/** Every text and number in a value, as a message would show it. Undefined when there are too many. */
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

/** What valibot and arktype say they saw, unless it is the name of a type, such as `Object` or `a string`. */
function seenValues(issue: StandardIssue): string[] {
  const { received, actual } = issue as { received?: unknown; actual?: unknown }
  return [received, actual].filter(
    (seen): seen is string => typeof seen === 'string' && !/^(?:[A-Za-z ]*|\d+)$/.test(seen),
  )
}

/** The options of a choice that zod says it expected: the schema's, whatever the payload has. */
function namedOptions(issue: StandardIssue): readonly string[] {
  const { values } = issue as { values?: unknown }
  return Array.isArray(values) ? values.filter((value) => typeof value === 'string') : []
}

/** What the sentences of schema libraries are made of: a payload that has such a word does not spoil them. */
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

/** Whether a text in a message is, with the letters around it, words of the library and not between quotes. */
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
 * What PostgreSQL says of a value that it cannot take (SQLSTATE class 22), without the value, which it quotes: `invalid input
 * syntax for type integer: "…"`. What else it says names tables, columns and constraints, and stays.
 */
export function withoutQuotedData(code: unknown, message: string): string {
  // From the first quotation mark to the last: the value may have some of its own.
  return typeof code === 'string' && /^22[0-9A-Z]{3}$/.test(code) ? message.replace(/".*"/s, '"…"') : message
}
