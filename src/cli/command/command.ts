import type { ParseArgsOptionsConfig } from 'node:util'
import type { Config } from './config.ts'
import { UsageError } from './usage-error.ts'

/** 0: success. 1: the command found problems. 2: the command could not be run as requested. */
export type ExitCode = 0 | 1 | 2

/** What a command receives. */
export interface CommandContext {
  /** The values of its own options and of the global ones, as `node:util` parses them. */
  readonly flags: Readonly<Record<string, string | boolean | readonly string[] | undefined>>
  /** The arguments after the command's name. */
  readonly positionals: readonly string[]
  /** The configuration, loaded on first use. */
  readonly config: () => Promise<Config>
  /** Writes a line of the result to standard output. */
  readonly print: (text: string) => void
  /** Writes a line that is not part of the result to standard error. */
  readonly note: (text: string) => void
  readonly cwd: string
}

/** One command, defined in a file of its own under `commands/`. */
export interface Command {
  /** The words that invoke it, such as `catalog check`. */
  readonly name: string
  readonly summary: string
  /** The lines of its help after the summary. */
  readonly help: string
  readonly options: ParseArgsOptionsConfig
  readonly run: (context: CommandContext) => Promise<ExitCode>
}

/** The value of a text option. */
export function textFlag(flags: CommandContext['flags'], name: string): string | undefined {
  const value = flags[name]
  return typeof value === 'string' ? value : undefined
}

/** @throws an {@link UsageError} if the value is not an integer in the range */
export function numberFlag(
  flags: CommandContext['flags'],
  name: string,
  range: { readonly min: number; readonly max: number; readonly default: number },
): number {
  const text = textFlag(flags, name)
  if (text === undefined) return range.default
  const value = Number(text)
  if (Number.isInteger(value) && value >= range.min && value <= range.max) return value
  throw new UsageError(
    `Expected --${name} to be a whole number from ${range.min} to ${range.max}, got ${text}`,
  )
}

/** @throws an {@link UsageError} if the value is not one of the choices */
export function choiceFlag<const T extends string>(
  flags: CommandContext['flags'],
  name: string,
  choices: readonly T[],
): T | undefined {
  const text = textFlag(flags, name)
  if (text === undefined) return undefined
  const chosen = choices.find((choice) => choice === text)
  if (chosen === undefined)
    throw new UsageError(`Expected --${name} to be one of ${choices.join(', ')}, got ${text}`)
  return chosen
}
