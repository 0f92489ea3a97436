import { nearest } from '../../foundation/options.ts'
import { program } from '../output/program.ts'
import { visible } from '../output/visible-text.ts'
import type { CommandEntry } from './command.ts'
import { globalFlags } from './global-flags.ts'
import { UsageError } from './usage-error.ts'

/** A command line, taken apart. */
export interface FoundCommand {
  /** Undefined: none was named, or only the first word of several. */
  readonly entry: CommandEntry | undefined
  /** The words that were given as its name. */
  readonly name: readonly string[]
  /** All arguments but its name. */
  readonly rest: readonly string[]
}

/** Finds the command that the first words name; global flags may stand before them. @throws a {@link UsageError} if there is no such command */
export function findCommand(args: readonly string[], commands: readonly CommandEntry[]): FoundCommand {
  const first = firstWord(args)
  const words = args.slice(first)
  const named = commands
    .filter(({ name }) => name.split(' ').every((word, index) => words[index] === word))
    .toSorted((a, b) => b.name.length - a.name.length)[0]
  if (named !== undefined) {
    const length = named.name.split(' ').length
    return {
      entry: named,
      name: words.slice(0, length),
      rest: [...args.slice(0, first), ...words.slice(length)],
    }
  }
  const [word] = words
  if (word === undefined) return { entry: undefined, name: [], rest: args }
  const flag = words.findIndex((each) => each.startsWith('-'))
  const name = words.slice(0, flag === -1 ? 2 : Math.min(flag, 2))
  if (name.length === 1 && commands.some((each) => each.name.startsWith(`${word} `)))
    return { entry: undefined, name, rest: [...args.slice(0, first), ...words.slice(1)] }
  throw unknownCommand(name, commands)
}

/** Where the first argument is that is neither a flag nor the value of one. */
function firstWord(args: readonly string[]): number {
  for (let index = 0; index < args.length; index += 1) {
    const arg = args[index] ?? ''
    if (!arg.startsWith('-')) return index
    const flag = Object.entries(globalFlags).find(([name]) => arg === `--${name}`)?.[1]
    if (flag?.hint !== undefined) index += 1
  }
  return args.length
}

/** The error for words that are no command, or only the first word of several. */
export function unknownCommand(name: readonly string[], commands: readonly CommandEntry[]): UsageError {
  const names = commands.map((command) => command.name)
  const text = name.join(' ')
  const longer = names.filter((each) => each.startsWith(`${text} `))
  const near =
    names.find((each) => each.split(' ').at(-1) === name[0]) ??
    nearest(text, names) ??
    nearest(name[0] ?? '', names)
  const hint =
    longer.length > 0
      ? `There are: ${longer.join(', ')}`
      : near === undefined
        ? `Try: ${program()} --help`
        : `Did you mean: ${program()} ${near}`
  return new UsageError(`There is no command \`${visible(text.slice(0, 80))}\`. ${hint}`)
}
