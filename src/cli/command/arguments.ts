import { visible } from '../output/visible-text.ts'
import { UsageError } from './usage-error.ts'

/** A word after the name of a command. */
export interface Argument<T = unknown> {
  readonly help: string
  readonly isRequired: boolean
  /** The words it takes, for the completion of shells. */
  readonly choices?: readonly string[] | undefined
  /** Whether it takes all words that follow: the last one only. */
  readonly isRepeatable?: boolean
  /** Marks the type of its value. Never set. */
  readonly value?: T
}

/** By their names, in their order. */
export type Arguments = Readonly<Record<string, Argument>>

export type ArgumentValuesOf<A extends Arguments> = {
  readonly [K in keyof A]: A[K] extends Argument<infer T> ? T : never
}

/** A word that must be there. */
export function required(help: string, choices?: readonly string[]): Argument<string> {
  return { help, isRequired: true, choices }
}

/** A word that may be left out. */
export function optional(help: string): Argument<string | undefined> {
  return { help, isRequired: false }
}

/** Any number of words, none too. */
export function several(help: string): Argument<readonly string[]> {
  return { help, isRequired: false, isRepeatable: true }
}

/** `<id> [subscription]` */
export function usageOf(given: Arguments): string {
  return Object.entries(given)
    .map(([name, { isRequired, isRepeatable = false }]) =>
      isRequired ? ` <${name}>` : ` [${name}${isRepeatable ? '...' : ''}]`,
    )
    .join('')
}

/** @throws a {@link UsageError} if one is missing, or there are too many */
export function readArguments(
  command: string,
  known: Arguments,
  words: readonly string[],
): Readonly<Record<string, string | readonly string[] | undefined>> {
  const names = Object.keys(known)
  const takesMore = names.some((name) => known[name]?.isRepeatable === true)
  const extra = takesMore ? undefined : words[names.length]
  if (extra !== undefined)
    throw new UsageError(
      names.length === 0
        ? `\`${command}\` takes options only, got \`${visible(extra.slice(0, 80))}\``
        : `\`${command}\` takes${usageOf(known)}, and \`${visible(extra.slice(0, 80))}\` is one too many`,
    )
  const empty = words.indexOf('')
  const emptyName = names[Math.min(empty, names.length - 1)]
  if (empty !== -1 && emptyName !== undefined)
    throw new UsageError(
      `Expected <${emptyName}> of \`${command}\` to be a text, got nothing: ${known[emptyName]?.help ?? ''}`,
    )
  const missing = names.find((name, index) => known[name]?.isRequired === true && words[index] === undefined)
  if (missing !== undefined)
    throw new UsageError(`\`${command}\` needs <${missing}>: ${known[missing]?.help ?? ''}`)
  return Object.fromEntries(
    names.map((name, index) => [
      name,
      known[name]?.isRepeatable === true ? words.slice(index) : words[index],
    ]),
  )
}
