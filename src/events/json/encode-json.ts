import { InvalidEventError } from '../../foundation/errors.ts'
import { limits } from '../../foundation/limits.ts'
import { redactThrown } from '../../foundation/error-redaction.ts'
import { invalidTextReason, printablePath } from '../../foundation/text.ts'

/** A walk over a value: the current path, the enclosing objects, and the remaining budget of JSON text. */
interface Walk {
  readonly what: string
  readonly path: (string | number)[]
  readonly open: Set<object>
  readonly maxBytes: number
  bytesLeft: number
}

/**
 * The JSON text of a value that JSON can represent exactly.
 *
 * Values that JSON would change silently (a Date, NaN, a Map, `undefined` in an array) or that jsonb refuses (NUL, a
 * lone surrogate) are refused here, so that a handler receives exactly what was published and its types are true.
 * Properties that are `undefined` or keyed by a symbol are left out, as JSON does.
 *
 * The work is bounded by the limit, not by the value: a few objects that reference each other repeatedly can represent
 * a text of any length.
 *
 * Negative zero becomes zero, as in JSON. Every other finite number is preserved.
 *
 * @param what - how errors name the value: `payload`, `metadata`
 * @param maxBytes - maximum bytes of the text as UTF-8, and of the text with numbers as PostgreSQL writes them
 * @throws an {@link InvalidEventError} `BUS_PAYLOAD_NOT_JSON`, naming the path and never the value, or
 *   `BUS_PAYLOAD_TOO_LARGE`
 */
export function encodeJson(value: unknown, what: string, maxBytes: number): string {
  const walk: Walk = { what, path: [], open: new Set(), maxBytes, bytesLeft: maxBytes }
  let text: unknown
  try {
    assertJson(value, walk)
    text = JSON.stringify(value)
  } catch (error) {
    if (error instanceof InvalidEventError) throw error
    throw unreadable(walk, redactThrown(error))
  }
  // A proxy may answer differently the second time.
  if (typeof text !== 'string') throw unreadable(walk)
  const size = Buffer.byteLength(text)
  if (size > maxBytes) throw tooLarge(walk, String(size))
  return text
}

function assertJson(value: unknown, walk: Walk): void {
  switch (typeof value) {
    case 'string':
      spend(walk, value.length + 2)
      assertText(value, walk)
      return
    case 'boolean':
      spend(walk, 4)
      return
    case 'number':
      if (!Number.isFinite(value)) refuse(walk, `is ${String(value)}, which JSON cannot hold`)
      spend(walk, storedLength(value))
      return
    case 'object':
      if (value === null) spend(walk, 4)
      else assertObject(value, walk)
      return
    case 'undefined':
      return refuse(walk, 'is undefined, which JSON cannot hold')
    default:
      refuse(walk, `is ${article(typeof value)}, which JSON cannot hold`)
  }
}

function assertObject(value: object, walk: Walk): void {
  const { path, open } = walk
  if (open.has(value)) refuse(walk, 'refers to an object that contains it, which JSON cannot hold')
  if (path.length >= limits.payloadDepth) refuse(walk, `is nested deeper than ${limits.payloadDepth} levels`)
  assertPlain(value, walk)
  open.add(value)
  spend(walk, 1)
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i += 1) {
      path.push(i)
      spend(walk, 1)
      assertJson(value[i], walk)
      path.pop()
    }
  } else {
    for (const [key, item] of Object.entries(value)) {
      assertText(key, walk)
      if (item === undefined) continue
      path.push(key)
      spend(walk, key.length + 4)
      assertJson(item, walk)
      path.pop()
    }
  }
  open.delete(value)
}

/**
 * Refuses objects whose content JSON drops or changes silently: objects with a `toJSON`, and built-in ones. These are
 * recognised by their tag, because `instanceof` fails across realms.
 */
function assertPlain(value: object, walk: Walk): void {
  const prototype: unknown = Object.getPrototypeOf(value)
  const isPlain =
    prototype === Object.prototype ||
    prototype === null ||
    Array.isArray(value) ||
    tagOf(value) === '[object Object]'
  if (isPlain && typeof (value as { toJSON?: unknown }).toJSON !== 'function') return
  const { constructor } = value
  const name = (typeof constructor === 'function' && constructor.name) || tagOf(value).slice(8, -1)
  refuse(
    walk,
    `is ${article(name.slice(0, 60))}, which JSON would change: pass a plain value, such as an ISO string`,
  )
}

function tagOf(value: object): string {
  return Object.prototype.toString.call(value)
}

/**
 * The approximate number of digits of a number as PostgreSQL writes it, without an exponent: `1e300` has 301, and every
 * subscriber reads them. A number that JSON writes without an exponent counts as one.
 */
function storedLength(value: number): number {
  const magnitude = Math.abs(value)
  if (magnitude === 0 || (magnitude >= 1e-6 && magnitude < 1e21)) return 1
  return Math.floor(Math.abs(Math.log10(magnitude))) + 1
}

/** Adds the minimum length of the JSON text, so that a far too large value is refused early. */
function spend(walk: Walk, byteCount: number): void {
  walk.bytesLeft -= byteCount
  if (walk.bytesLeft < 0) throw tooLarge(walk, 'more')
}

function assertText(text: string, walk: Walk): void {
  const problem = invalidTextReason(text)
  if (problem !== undefined) refuse(walk, `contains ${problem}, which PostgreSQL cannot store`)
}

function refuse({ what, path }: Walk, problem: string): never {
  throw new InvalidEventError(
    'BUS_PAYLOAD_NOT_JSON',
    `Expected \`${at(what, path)}\` to be JSON, but it ${problem}`,
  )
}

function unreadable({ what, path }: Walk, cause?: Error): InvalidEventError {
  const message = `Expected \`${at(what, path)}\` to be JSON, but reading it failed`
  return new InvalidEventError('BUS_PAYLOAD_NOT_JSON', message, [], { cause })
}

function tooLarge({ what, maxBytes }: Walk, size: string): InvalidEventError {
  return new InvalidEventError(
    'BUS_PAYLOAD_TOO_LARGE',
    `Expected \`${what}\` to take at most ${maxBytes} bytes as JSON, got ${size}`,
  )
}

function at(what: string, path: readonly (string | number)[]): string {
  return path.length === 0 ? what : `${what}.${printablePath(path)}`
}

function article(name: string): string {
  return /^[aeio]/i.test(name) ? `an ${name}` : `a ${name}`
}
