import { isEventTypeName } from '../../events/event-type.ts'
import { duration } from '../output/cells.ts'
import { visible } from '../output/visible-text.ts'
import { parseDuration, parseTime, validTime } from './times.ts'
import { UsageError } from './usage-error.ts'

/** A flag of a command, and how its texts become a value. */
export interface Flag<T = unknown> {
  /** What stands for its value in the help, such as `<id>`. Undefined: it takes none. */
  readonly hint: string | undefined
  readonly help: string
  readonly isRepeatable: boolean
  /** The values it takes, for the completion of shells. */
  readonly choices: readonly string[] | undefined
  /** How it is given, where that is not clear from its hint. */
  readonly example?: string | undefined
  /**
   * @param texts - its values in the order given; none if it is absent. A flag without a value has one empty text
   * @throws a {@link UsageError}
   */
  readonly read: (texts: readonly string[], name: string, now: number) => T
}

export type Flags = Readonly<Record<string, Flag>>

/** The values of flags, by their names. */
export type ValuesOf<F extends Flags> = { readonly [K in keyof F]: F[K] extends Flag<infer T> ? T : never }

/** A flag that is given or not. */
export function toggle(help: string): Flag<boolean> {
  return {
    ...{ hint: undefined, help, isRepeatable: false, choices: undefined },
    read: (texts) => texts.length > 0,
  }
}

/** Any text that is not empty. */
export function text(hint: string, help: string): Flag<string | undefined> {
  return single(hint, help, (given) => given, 'a text')
}

/** Any texts: the flag may be repeated. */
export function texts(hint: string, help: string): Flag<readonly string[]> {
  return {
    ...{ hint, help, isRepeatable: true, choices: undefined },
    read: (given, name) => given.map((each) => (each === '' ? refuse(name, 'a text', each) : each)),
  }
}

/** Types of events, and patterns where the command takes them. Refused is what no type can be named. */
export function eventTypes(help: string): Flag<readonly string[]> {
  const expected = 'a type like payment.paid: names between dots, without spaces at its ends'
  return {
    ...{ hint: '<type>', help, isRepeatable: true, choices: undefined },
    read: (given, name) =>
      // The bus says what a pattern may be.
      given.map((each) =>
        each.includes('*') || isEventTypeName(each) ? each : refuse(name, expected, each),
      ),
  }
}

interface Range {
  readonly min: number
  readonly max: number
}

/** A whole number. */
export function integer(hint: string, help: string, range: Range & { readonly default: number }): Flag<number>
export function integer(hint: string, help: string, range: Range): Flag<number | undefined>
export function integer(
  hint: string,
  help: string,
  { min, max, default: fallback }: Range & { readonly default?: number },
): Flag<number | undefined> {
  const parse = (given: string): number | undefined => {
    const value = /^-?\d+$/.test(given) ? Number(given) : Number.NaN
    return value >= min && value <= max ? value : undefined
  }
  return withDefault(single(hint, help, parse, `a whole number from ${min} to ${max}`), fallback)
}

/** One of some words. */
export function choice<const T extends string>(
  choices: readonly T[],
  help: string,
  fallback: NoInfer<T>,
): Flag<T>
export function choice<const T extends string>(choices: readonly T[], help: string): Flag<T | undefined>
export function choice<const T extends string>(
  choices: readonly T[],
  help: string,
  fallback?: T,
): Flag<T | undefined> {
  const parse = (given: string): T | undefined => choices.find((each) => each === given)
  return {
    ...withDefault(single(`<${choices.join('|')}>`, help, parse, `one of ${choices.join(', ')}`), fallback),
    choices,
  }
}

/** A duration such as `15m`, in seconds. Give the longest one where a timer waits for it: no timer waits for more than 24 days. */
export function durationSeconds(help: string, range: Range & { readonly default: number }): Flag<number>
export function durationSeconds(help: string): Flag<number | undefined>
export function durationSeconds(
  help: string,
  range?: Range & { readonly default: number },
): Flag<number | undefined> {
  const expected = 'a duration like 90s, 15m, 2h or 7d'
  if (range === undefined) return single('<duration>', help, parseDuration, expected)
  const { min, max, default: fallback } = range
  const parse = (given: string): number | undefined => {
    const seconds = parseDuration(given)
    return seconds !== undefined && seconds >= min && seconds <= max ? seconds : undefined
  }
  const flag = single(
    '<duration>',
    `${help} (${duration(fallback * 1000)})`,
    parse,
    `${expected}, from ${duration(min * 1000)} to ${duration(max * 1000)}`,
  )
  return { ...flag, read: (given, name, now) => flag.read(given, name, now) ?? fallback }
}

/** A time: of ISO 8601, or so long ago. */
export function time(help: string): Flag<Date | undefined> {
  return single(
    '<time>',
    help,
    parseTime,
    'a time like 2026-11-01, 2026-11-01T03:12Z, or 2h for two hours ago',
  )
}

/** A time ahead, at most so far: of ISO 8601, or in so long. */
export function timeAhead(help: string, maxSeconds: number): Flag<Date | undefined> {
  const parse = (given: string, now: number): Date | undefined => {
    const seconds = parseDuration(given)
    const time = seconds === undefined ? parseTime(given, now) : validTime(now + seconds * 1000)
    const leftMs = time === undefined ? 0 : time.getTime() - now
    return leftMs > 0 && leftMs <= maxSeconds * 1000 ? time : undefined
  }
  const expected = `a time like 2h for in two hours, or 2026-11-01T03:12Z: ahead, within ${duration(maxSeconds * 1000)}`
  return single('<time>', help, parse, expected)
}

/** JSON of an object. */
export function json(
  help: string,
  example: string,
  name?: string,
): Flag<Readonly<Record<string, unknown>> | undefined> {
  const parse = (given: string): Readonly<Record<string, unknown>> | undefined => {
    try {
      const value: unknown = JSON.parse(given)
      return value !== null && typeof value === 'object' && !Array.isArray(value)
        ? (value as Readonly<Record<string, unknown>>)
        : undefined
    } catch {
      return undefined
    }
  }
  return {
    ...single('<json>', help, parse, `a JSON object like '${example}'`),
    example: name === undefined ? undefined : `--${name} '${example}'`,
  }
}

/** The flag's value, or another one if it is absent. */
function withDefault<T>(flag: Flag<T | undefined>, fallback: T | undefined): Flag<T | undefined> {
  return {
    ...flag,
    help: fallback === undefined ? flag.help : `${flag.help} (${String(fallback)})`,
    read: (given, name, now) => flag.read(given, name, now) ?? fallback,
  }
}

function single<T>(
  hint: string,
  help: string,
  parse: (given: string, now: number) => T | undefined,
  expected: string,
): Flag<T | undefined> {
  return {
    ...{ hint, help, isRepeatable: false, choices: undefined },
    read(given, name, now) {
      const [first, second] = given
      if (first === undefined) return undefined
      if (second !== undefined) throw new UsageError(`--${name} can be given once`)
      const value = first === '' ? undefined : parse(first, now)
      return value === undefined ? refuse(name, expected, first) : value
    },
  }
}

function refuse(name: string, expected: string, given: string): never {
  throw new UsageError(
    `Expected --${name} to be ${expected}, got ${visible(given.slice(0, 80)) || 'nothing'}`,
  )
}
