import { ConfigurationError } from '../foundation/errors.ts'
import type { EventCatalogue, EventType } from './catalogue.ts'
import { canary, isEventTypeName } from './event-type.ts'
import { limits } from '../foundation/limits.ts'
import { describe } from '../foundation/options.ts'
import { isLonger } from '../foundation/text.ts'

type Segments<S extends string> = S extends `${infer Head}.${infer Rest}` ? [Head, ...Segments<Rest>] : [S]

type MatchesSegments<K extends readonly string[], P extends readonly string[]> = P extends readonly ['**']
  ? K extends readonly []
    ? false
    : true
  : P extends readonly [infer PHead extends string, ...infer PRest extends string[]]
    ? K extends readonly [infer KHead extends string, ...infer KRest extends string[]]
      ? PHead extends '*' | KHead
        ? MatchesSegments<KRest, PRest>
        : false
      : false
    : K extends readonly []
      ? true
      : false

/** Those of some names whose segments match a pattern's segments. */
type MatchedName<K extends string, P extends readonly string[]> = K extends unknown
  ? MatchesSegments<Segments<K>, P> extends true
    ? K
    : never
  : never

/**
 * The event type names of a catalogue that a pattern matches. Plain names and `**` are not compared with every type of
 * the catalogue, which would be too slow to compile for a thousand types and hundreds of subscriptions.
 */
export type MatchedType<C extends EventCatalogue, P extends string> =
  string extends EventType<C>
    ? EventType<C>
    : P extends EventType<C>
      ? P
      : P extends '**'
        ? EventType<C>
        : MatchedName<EventType<C>, Segments<P>>

/** A name of the catalogue, or a text with a wildcard. A misspelt plain name is a compile error. */
export type EventPattern<C extends EventCatalogue> = EventType<C> | `${string}*${string}`

/** Whether a pattern contains a wildcard. */
export function isWildcard(pattern: string): boolean {
  return pattern.includes('*')
}

/**
 * Refuses an invalid pattern. A pattern is an event type name in which each segment may be `*` (any one segment) and
 * the last segment may be `**` (one or more segments).
 *
 * @throws a {@link ConfigurationError} `BUS_INVALID_PATTERN`
 */
export function checkPattern(pattern: unknown): asserts pattern is string {
  if (typeof pattern === 'string' && isPattern(pattern)) return
  throw new ConfigurationError(
    'BUS_INVALID_PATTERN',
    `Expected an event name or a pattern like \`payment.*\` or \`payment.**\` (a star stands for a whole segment, \`**\` is only allowed at the end), got ${describe(pattern)}`,
  )
}

function isPattern(text: string): boolean {
  if (isLonger(text, limits.patternLength)) return false
  const segments = text.split('.')
  const isOpen = segments.at(-1) === '**'
  // A pattern is valid if replacing each star with a name makes it a valid name.
  return isEventTypeName(
    segments
      .map((segment, i) => (segment === '*' || (isOpen && i === segments.length - 1) ? 'x' : segment))
      .join('.'),
  )
}

/** Maximum number of types that a compiled pattern caches: a service has few, but plain SQL may insert any. */
const maxRemembered = 1000

/**
 * Compiles patterns to a function that tests an event type. Linear in the length of the type for each pattern. Results
 * are cached, because the same types recur. No wildcard matches the type of the canary.
 */
export function compilePatterns(patterns: readonly string[]): (type: string) => boolean {
  const exact = new Set(patterns.filter((pattern) => !isWildcard(pattern)))
  const wild = patterns.filter(isWildcard).map((pattern) => pattern.split('.'))
  const remembered = new Map<string, boolean>()
  return (type) => {
    if (exact.has(type)) return true
    if (wild.length === 0 || type === canary.type) return false
    let matches = remembered.get(type)
    if (matches === undefined) {
      matches = matchesAny(wild, type.split('.'))
      if (remembered.size >= maxRemembered) remembered.clear()
      remembered.set(type, matches)
    }
    return matches
  }
}

function matchesAny(patterns: readonly (readonly string[])[], segments: readonly string[]): boolean {
  return patterns.some((pattern) => {
    const open = pattern.at(-1) === '**'
    const fixed = open ? pattern.length - 1 : pattern.length
    if (open ? segments.length <= fixed : segments.length !== fixed) return false
    for (let i = 0; i < fixed; i += 1) if (pattern[i] !== '*' && pattern[i] !== segments[i]) return false
    return true
  })
}
