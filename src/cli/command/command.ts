import type { Bus } from '../../bus-interface.ts'
import type { Database } from '../../database/database.ts'
import type { Output } from '../output/output.ts'
import type { Arguments, ArgumentValuesOf } from './arguments.ts'
import type { Config } from './config.ts'
import type { Question } from './confirm.ts'
import type { Flags, ValuesOf } from './flags.ts'

/** 0: success. 1: the command found problems. 2: the command could not be run as requested. */
export type ExitCode = 0 | 1 | 2

/** The parts of the help, in their order. */
export const commandGroups = [
  'Set up',
  'Look',
  'Events',
  'Repair',
  'Subscriptions',
  'Keep and erase',
  'Catalogue',
  'More',
] as const

/** A command in the list of all commands. It says nothing of how the command works, so that the help loads none of them. */
export interface CommandEntry {
  /** The words that invoke it, such as `catalog check`. */
  readonly name: string
  readonly summary: string
  readonly group: (typeof commandGroups)[number]
  readonly load: () => Promise<Command>
}

/** What a command receives. */
export interface CommandContext<F extends Flags = Flags, A extends Arguments = Arguments> {
  /** The values of its own flags. */
  readonly flags: ValuesOf<F>
  /** Its own arguments. */
  readonly args: ArgumentValuesOf<A>
  readonly output: Output
  /** The configuration, loaded on first use. */
  readonly config: () => Promise<Config>
  /**
   * A bus that is not started and delivers nothing, for reads and changes, stopped when the command ends. Unless told otherwise, the schema
   * of the database is checked first.
   * @throws a DatabaseError, a {@link UsageError} without a database
   */
  readonly bus: (options?: { readonly checksSchema?: boolean }) => Promise<Bus>
  /** Connections to the same database for statements of the command's own, closed when it ends. Nothing is checked. */
  readonly database: () => Promise<Database>
  /** Waits for work as long as `--timeout` says. Only for commands with `isLong`: others are limited as a whole. */
  readonly inTime: <T>(work: Promise<T>) => Promise<T>
  /** Asks before a change. Rejects unless the answer is yes. Only for commands with `isLong`: a person may take longer than `--timeout`. */
  readonly confirm: (question: Question) => Promise<void>
  /** Whether a person sits there and may be asked. */
  readonly isInteractive: boolean
  /** Whether `--yes` is given. `confirm` knows: this is for what it does not answer. */
  readonly isYes: boolean
  /** Who makes a change, and why: for commands with `changeFlags`. */
  readonly actor: () => { readonly by: string; readonly reason: string | undefined }
  /** Writes the command for the next page to standard error. */
  readonly nextPage: (after: string) => void
  /** All commands, for completions. */
  readonly commands: readonly CommandEntry[]
  /**
   * Aborted by Ctrl-C or SIGTERM, which then no longer end the process by themselves; a second one does. For commands that have something to
   * put back, or to stop: others end at once without it.
   */
  readonly interruption: () => AbortSignal
  /** All of standard input, as text. */
  readonly input: () => Promise<string>
  /** Hears the keys that a person types, one by one, until the returned function is called. Undefined if nobody is there. */
  readonly keys: ((listener: (key: string) => void) => () => void) | undefined
  readonly cwd: string
  readonly env: Readonly<Record<string, string | undefined>>
}

/** One command, the export of a file of its own under `commands/`. Make it with {@link defineCommand}. */
export interface Command {
  /** Command lines that people copy, with what they do. Shown first in its help. */
  readonly examples: readonly (readonly [line: string, what: string])[]
  /** More about it, a paragraph each. */
  readonly notes: readonly string[]
  readonly args: Arguments
  readonly flags: Flags
  /** Whether it may take longer than `--timeout`: it follows something, or works through many events. */
  readonly isLong: boolean
  readonly run: (context: CommandContext) => Promise<ExitCode>
}

interface CommandDefinition<F extends Flags, A extends Arguments> {
  readonly examples?: Command['examples']
  readonly notes?: Command['notes']
  /** @defaultValue none */
  readonly args?: A
  /** Besides the global ones. @defaultValue none */
  readonly flags?: F
  /** @defaultValue `false` */
  readonly isLong?: boolean
  readonly run: (context: CommandContext<F, A>) => Promise<ExitCode>
}

/** A command whose `run` knows the types of its flags and arguments. */
export function defineCommand<const F extends Flags = Flags, const A extends Arguments = Arguments>(
  definition: CommandDefinition<F, A>,
): Command {
  const { examples = [], notes = [], args, flags, isLong = false, run } = definition
  return {
    ...{ examples, notes, isLong },
    args: args ?? {},
    flags: flags ?? {},
    // The frame reads the values by these very definitions.
    run: run as Command['run'],
  }
}
