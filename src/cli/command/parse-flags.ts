import { parseArgs } from 'node:util'
import { nearest } from '../../foundation/options.ts'
import { visible } from '../output/visible-text.ts'
import type { Flags } from './flags.ts'
import { UsageError } from './usage-error.ts'

/** The flags and words of a command line. */
export interface ParsedFlags {
  /** The texts of each flag, in the order given. */
  readonly given: ReadonlyMap<string, readonly string[]>
  readonly words: readonly string[]
}

/** Reads the arguments against the flags that are known. @throws a {@link UsageError} */
export function parseFlags(args: readonly string[], known: Flags): ParsedFlags {
  const { tokens } = parseArgs({
    args: [...args],
    strict: false,
    allowPositionals: true,
    tokens: true,
    options: Object.fromEntries(
      Object.entries(known).map(([name, { hint }]) => [
        name,
        {
          type: hint === undefined ? ('boolean' as const) : ('string' as const),
          multiple: true,
          ...(name === 'help' ? { short: 'h' } : {}),
        },
      ]),
    ),
  })
  const given = new Map<string, string[]>()
  const words: string[] = []
  for (const token of tokens) {
    if (token.kind === 'positional') words.push(token.value)
    if (token.kind !== 'option') continue
    const flag = Object.hasOwn(known, token.name) ? known[token.name] : undefined
    if (flag === undefined) throw unknownFlag(token.rawName, token.name, Object.keys(known))
    if (flag.hint === undefined && token.value !== undefined)
      throw new UsageError(`--${token.name} takes no value`)
    if (flag.hint !== undefined && token.value === undefined)
      throw new UsageError(`--${token.name} needs a value: --${token.name} ${flag.hint}`)
    if (token.value?.startsWith('--') === true && token.inlineValue !== true)
      throw new UsageError(
        `--${token.name} needs a value, and ${visible(token.value.slice(0, 80))} follows. If that is the value, write --${token.name}=${visible(token.value.slice(0, 80))}`,
      )
    given.set(token.name, [...(given.get(token.name) ?? []), token.value ?? ''])
  }
  return { given, words }
}

/** The values of flags. @throws a {@link UsageError} */
export function readFlags(
  known: Flags,
  given: ParsedFlags['given'],
  now: number,
): Readonly<Record<string, unknown>> {
  return Object.fromEntries(
    Object.entries(known).map(([name, flag]) => [name, flag.read(given.get(name) ?? [], name, now)]),
  )
}

function unknownFlag(rawName: string, name: string, known: readonly string[]): UsageError {
  const near = nearest(name, known)
  return new UsageError(
    `There is no option ${visible(rawName.slice(0, 80))}${near === undefined ? '' : `. Did you mean --${near}?`}`,
  )
}
