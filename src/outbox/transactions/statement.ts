import { createHash } from 'node:crypto'
import { DatabaseError } from '../../foundation/errors.ts'

/** A statement as a template literal: texts, and the values between them. It returns one row with one text. */
export interface Statement {
  readonly strings: TemplateStringsArray
  readonly values: readonly (string | null)[]
}

/** Creates a statement from a template literal. */
export function statement(strings: TemplateStringsArray, ...values: readonly (string | null)[]): Statement {
  return { strings, values }
}

const texts = new WeakMap<TemplateStringsArray, string>()

/** The SQL text, with `$1`, `$2` … for the values. */
export function textOf({ strings }: Statement): string {
  let text = texts.get(strings)
  if (text === undefined) {
    text = strings.reduce((before, part, index) => `${before}$${index}${part}`)
    texts.set(strings, text)
  }
  return text
}

/** Maximum number of prepared statements per connection: a few for each set of fields that a service's events have. */
const maxKeptStatements = 50
const keptNames = new Map<string, string>()

/** The name under which connections keep a statement. */
export function keptName(text: string): string | undefined {
  let name = keptNames.get(text)
  if (name === undefined && keptNames.size < maxKeptStatements) {
    name = `bus_${createHash('sha256').update(text).digest('hex').slice(0, 24)}`
    keptNames.set(text, name)
  }
  return name
}

/** @throws if a driver returns something else: the caller's transaction must not continue as if nothing had happened */
export function replyOf(value: unknown): string {
  if (typeof value === 'string') return value
  if (value instanceof Uint8Array) return Buffer.from(value).toString('utf8')
  throw new DatabaseError(
    'BUS_DATABASE_ERROR',
    'Expected the driver to return text as a string: a custom parser converts it',
  )
}

/** The reply in rows that are objects. */
export function replyIn(rows: unknown): string {
  return replyOf((rows as readonly ({ readonly reply?: unknown } | undefined)[] | undefined)?.[0]?.reply)
}
