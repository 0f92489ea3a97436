import { isError } from '../foundation/cross-realm.ts'
import { version } from '../foundation/version.ts'
import { withTimeout } from '../foundation/with-timeout.ts'
import { actorOf } from './command/actor.ts'
import { readArguments } from './command/arguments.ts'
import type { Command, CommandContext, CommandEntry, ExitCode } from './command/command.ts'
import { loadConfig, type Config, type ConfigSources } from './command/config.ts'
import type { CommandWord } from './output/command-line.ts'
import { confirm } from './command/confirm.ts'
import { createConnections } from './command/connections.ts'
import { describeError, TimeoutError } from './command/describe-error.ts'
import { findCommand, unknownCommand } from './command/find-command.ts'
import { inFlags } from './command/flag-names.ts'
import type { ValuesOf } from './command/flags.ts'
import { globalFlags } from './command/global-flags.ts'
import { helpOf, helpOfAll } from './command/help.ts'
import { hasPassword, nextPageCommand, withoutPassword } from './command/next-page.ts'
import { parseFlags, readFlags } from './command/parse-flags.ts'
import { Declined } from './command/usage-error.ts'
import { commands } from './commands/all.ts'
import { describeDev, findRunningDev } from './dev/running-dev.ts'
import { duration } from './output/cells.ts'
import { jsonText } from './output/json-text.ts'
import { createOutput, type Output } from './output/output.ts'
import { nameProgram } from './output/program.ts'
import type { TextStream } from './output/streams.ts'
import { hasColour } from './output/styled.ts'
import { visible } from './output/visible-text.ts'

/** The arguments, environment and streams of a run. */
export interface CliEnvironment {
  readonly args: readonly string[]
  readonly env: Readonly<Record<string, string | undefined>>
  readonly cwd: string
  /** Of the program that runs. Undefined: unknown. */
  readonly path?: string | undefined
  readonly stdout: TextStream
  readonly stderr: TextStream
  /** Asks a person and resolves to the answer, or to undefined at the end of the input. Undefined if nobody is there. */
  readonly ask: ((question: string) => Promise<string | undefined>) | undefined
  /** See {@link CommandContext}. */
  readonly interruption: CommandContext['interruption']
  readonly keys: CommandContext['keys']
  readonly input: CommandContext['input']
}

type GlobalValues = ValuesOf<typeof globalFlags>

/** Connections that do not close in time are left to the end of the process. */
const closeLimitMs = 1000

/** Runs the CLI once. Never throws: an error is printed, and the result is 2. */
export async function run(environment: CliEnvironment): Promise<ExitCode> {
  const { args, env, cwd, path, stdout, stderr } = environment
  nameProgram(env, cwd, path)
  try {
    return await runCommand(environment)
  } catch (error) {
    if (error instanceof Declined) {
      stderr.write(`${error.message}\n`)
      return 1
    }
    const { code, message, mend } = describeError(error)
    if (args.includes('--json')) stdout.write(`${jsonText({ error: { code, message, mend } })}\n`)
    else {
      stderr.write(`${code === undefined ? '' : `${code}: `}${visible(message)}\n`)
      if (mend !== undefined) stderr.write(`${mend}\n`)
    }
    if (env['BOSSBUS_DEBUG'] === '1' && isError(error)) stderr.write(`${error.stack ?? ''}\n`)
    return 2
  }
}

async function runCommand(environment: CliEnvironment): Promise<ExitCode> {
  const { stdout, stderr } = environment
  const args = environment.args[0] === 'help' ? [...environment.args.slice(1), '--help'] : environment.args
  const { entry, name, rest } = findCommand(args, commands)
  if (entry === undefined) {
    const { given } = parseFlags(rest, globalFlags)
    if (given.has('version') && name.length === 0) {
      stdout.write(`${version}\n`)
      return 0
    }
    const isAsked = given.has('help')
    if (!isAsked && name.length > 0) throw unknownCommand(name, commands)
    ;(isAsked ? stdout : stderr).write(`${helpOfAll(commands, name[0])}\n`)
    return isAsked ? 0 : 2
  }
  const command = await entry.load()
  const known = { ...globalFlags, ...command.flags }
  const { given, words } = parseFlags(rest, known)
  if (given.has('help')) {
    stdout.write(`${helpOf(entry, command)}\n`)
    return 0
  }
  const now = Date.now()
  const values = readFlags(known, given, now) as GlobalValues & Readonly<Record<string, unknown>>
  if (values.database !== undefined && hasPassword(values.database))
    stderr.write(
      'The password in --database can be read in the list of processes: use DATABASE_URL, --database-file, or the configuration.\n',
    )
  return runWith(environment, command, {
    entry,
    values,
    args: readArguments(entry.name, command.args, words),
  })
}

interface Call {
  readonly entry: CommandEntry
  readonly values: GlobalValues & Readonly<Record<string, unknown>>
  readonly args: Readonly<Record<string, string | readonly string[] | undefined>>
}

async function runWith(
  environment: CliEnvironment,
  command: Command,
  { entry, values, args }: Call,
): Promise<ExitCode> {
  const { env, cwd } = environment
  const output = outputOf(environment, values)
  let loading: Promise<Config> | undefined
  let loadingError: unknown
  const config = async (): Promise<Config> => {
    loading ??= loadConfig({
      configFlag: values.config,
      databaseFlag: values.database,
      databaseFileFlag: values['database-file'],
      ...{ env, cwd },
      // A second one begins with a database of its own.
      runningDev: entry.name === 'dev' ? undefined : runningDevOf(cwd, output),
    }).catch((error: unknown) => {
      loadingError = error
      throw error
    })
    return loading
  }
  const connections = createConnections(config, env['BOSSBUS_DEBUG'] === '1')
  const timeoutMs = values.timeout * 1000
  const tellTimeout = (): never => {
    const { 'dry-run': isDryRun, allow = [] } = values as {
      readonly 'dry-run'?: boolean
      readonly allow?: readonly string[]
    }
    throw new TimeoutError(
      `The database did not answer within ${duration(timeoutMs)}`,
      isDryRun === false || allow.length > 0,
    )
  }
  const inTime = async <T>(work: Promise<T>): Promise<T> =>
    output.during('Waiting for the database', withTimeout<T, never>(work, timeoutMs, tellTimeout))
  const textOf = (name: string): string | undefined => values[name] as string | undefined
  const context: CommandContext = {
    isYes: values.yes,
    ...{ flags: values, args, output, config, inTime, cwd, env, commands },
    ...{ interruption: environment.interruption, input: environment.input },
    keys: values['no-input'] ? undefined : environment.keys,
    bus: connections.bus,
    database: connections.database,
    confirm: async (question) =>
      confirm(question, {
        isYes: values.yes,
        confirmed: textOf('confirm'),
        ask: values['no-input'] ? undefined : environment.ask,
      }),
    actor: () => ({ by: actorOf(textOf('by'), env), reason: textOf('reason') }),
    isInteractive: environment.ask !== undefined && !values['no-input'],
    nextPage: (after) => output.note(`Next: ${nextPageCommand(environment.args, after)}`),
  }
  try {
    return await (command.isLong ? command.run(context) : inTime(command.run(context)))
  } catch (error) {
    // What is wrong in the configuration was given by no flag.
    throw error === loadingError ? error : inFlags(error, command.flags)
  } finally {
    await withTimeout(connections.close(), closeLimitMs, () => {})
  }
}

function runningDevOf(cwd: string, output: Output): ConfigSources['runningDev'] {
  let isTold = false
  return {
    find: async () => findRunningDev(cwd),
    tell(url) {
      if (!isTold) output.note(`Database: ${describeDev(url)}`)
      isTold = true
    },
  }
}

function outputOf({ env, stdout, stderr }: CliEnvironment, values: GlobalValues): Output {
  return createOutput({
    ...{ stdout, stderr, now: Date.now },
    isJson: values.json,
    commandOptions: keptOptions(values),
    colours: {
      stdout: hasColour(env, stdout.isTerminal, values['no-color']),
      stderr: hasColour(env, stderr.isTerminal, values['no-color']),
    },
  })
}

/** Where this call has looked, others are to look, too. */
function keptOptions(values: GlobalValues): readonly CommandWord[] {
  return (['config', 'database', 'database-file'] as const).flatMap((name): CommandWord[] => {
    const value = values[name]
    return value === undefined ? [] : [[`--${name}`, withoutPassword(value)]]
  })
}
