import { parseArgs, type ParseArgsOptionsConfig } from 'node:util'
import { BusError } from '../foundation/errors.ts'
import { isError } from '../foundation/cross-realm.ts'
import { version } from '../foundation/version.ts'
import { textFlag, type Command, type CommandContext, type ExitCode } from './command/command.ts'
import { commands } from './commands/all.ts'
import { loadConfig, type Config } from './command/config.ts'
import { UsageError } from './command/usage-error.ts'

/** The arguments, environment and outputs of a run. */
export interface CliEnvironment {
  readonly args: readonly string[]
  readonly env: Readonly<Record<string, string | undefined>>
  readonly cwd: string
  readonly print: (text: string) => void
  readonly note: (text: string) => void
}

const commonOptions = {
  config: { type: 'string' },
  database: { type: 'string' },
  json: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean' },
} as const satisfies ParseArgsOptionsConfig

/** Runs the CLI once. Never throws: an error is printed, and the result is 2. */
export async function run(environment: CliEnvironment): Promise<ExitCode> {
  const { args, note } = environment
  try {
    return await runCommand(environment)
  } catch (error) {
    if (args.includes('--json')) environment.print(JSON.stringify({ error: toJson(error) }))
    else note(describe(error))
    return 2
  }
}

async function runCommand({ args, env, cwd, print, note }: CliEnvironment): Promise<ExitCode> {
  const command = findCommand(args)
  if (command === undefined) {
    const { values, positionals } = parseArgs({
      args: [...args],
      options: commonOptions,
      allowPositionals: true,
    })
    if (positionals.length > 0)
      throw new UsageError(
        `There is no command \`${positionals.slice(0, 2).join(' ').slice(0, 80)}\`. Try: bossbus --help`,
      )
    if (values.version === true) {
      print(version)
      return 0
    }
    ;(values.help === true ? print : note)(helpOfAll())
    return values.help === true ? 0 : 2
  }
  const { values: flags, positionals } = parseArgs({
    args: args.slice(command.name.split(' ').length),
    options: { ...commonOptions, ...command.options },
    allowPositionals: true,
  })
  if (flags['help'] === true) {
    print(helpOf(command))
    return 0
  }
  if (positionals.length > 0)
    throw new UsageError(`\`${command.name}\` takes options only, got \`${positionals[0]?.slice(0, 80)}\``)
  const values = flags as CommandContext['flags']
  let config: Promise<Config> | undefined
  return command.run({
    ...{ flags: values, positionals, cwd, print, note },
    config: async () => {
      config ??= loadConfig({
        configFlag: textFlag(values, 'config'),
        databaseFlag: textFlag(values, 'database'),
        ...{ env, cwd },
      })
      return config
    },
  })
}

/** The command that the first words name. */
function findCommand(args: readonly string[]): Command | undefined {
  return commands.find(({ name }) => name.split(' ').every((word, index) => args[index] === word))
}

function helpOfAll(): string {
  const width = Math.max(...commands.map(({ name }) => name.length))
  return [
    'Usage: bossbus <command> [options]',
    '',
    ...commands.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}`),
    '',
    ...commonHelp,
    '',
    'bossbus <command> --help says more.',
  ].join('\n')
}

function helpOf({ name, summary, help }: Command): string {
  return [`Usage: bossbus ${name} [options]`, '', summary, '', help, '', ...commonHelp].join('\n')
}

const commonHelp = [
  '  --config <file>     the configuration; bossbus.config.ts, .mts, .js or .mjs of this folder, or BOSSBUS_CONFIG',
  '  --database <url>    the database; BOSSBUS_DATABASE_URL, DATABASE_URL, or `database` of the configuration',
  '  --json              the result as JSON',
  '  --help, --version',
  '',
  'Exit codes: 0 all is well, 1 the command found something wrong, 2 it could not be run.',
]

function describe(error: unknown): string {
  if (error instanceof BusError) return `${error.code}: ${error.message}`
  if (!isError(error)) return String(error)
  const { code } = error as { code?: string }
  if (error instanceof UsageError || code?.startsWith('ERR_PARSE_ARGS') === true) return error.message
  return error.stack ?? error.message
}

function toJson(error: unknown): { readonly code?: string; readonly message: string } {
  const message = isError(error) ? error.message : String(error)
  return error instanceof BusError ? { code: error.code, message } : { message }
}
