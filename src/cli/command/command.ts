import type { ParseArgsOptionsConfig } from 'node:util'
import type { Config } from './config.ts'
import { UsageError } from './usage-error.ts'

/** 0: all is well. 1: the command says that something is wrong. 2: it could not be run as asked. */
export type ExitCode = 0 | 1 | 2

/** What a command gets. */
export interface CommandContext {
  /** The values of its own options and of those that all have, as `node:util` parses them. */
  readonly flags: Readonly<Record<string, string | boolean | readonly string[] | undefined>>
  /** What stands behind the command's name. */
  readonly positionals: readonly string[]
  /** The configuration, read when it is first asked for. */
  readonly config: () => Promise<Config>
  /** Writes a line to standard output: the result. */
  readonly print: (text: string) => void
  /** Writes a line to standard error: what is not the result. */
  readonly note: (text: string) => void
  readonly cwd: string
}

/** One command, in a file of its own under `commands/`. */
export interface Command {
  /** The words that call it, such as `catalog check`. */
  readonly name: string
  readonly summary: string
  /** The lines of its help below the summary. */
  readonly help: string
  readonly options: ParseArgsOptionsConfig
  readonly run: (context: CommandContext) => Promise<ExitCode>
}

/** The text of an option that takes one. */
export function textFlag(flags: CommandContext['flags'], name: string): string | undefined {
  const value = flags[name]
  return typeof value === 'string' ? value : undefined
}

/** @throws an {@link UsageError} for anything but a whole number in the range */
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

/** @throws an {@link UsageError} for anything else than one of the choices */
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
