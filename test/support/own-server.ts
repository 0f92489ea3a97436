import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import pg from 'pg'
import { inject, onTestFinished } from 'vitest'
import { startOwnPostgres } from '../../src/testing/postgres.ts'
import { asAdmin, migrate } from '../../src/testing/databases.ts'
import { countIn, until } from './database.ts'

/** A PostgreSQL of a test's own, with the schema of the bus, that the test may break. */
export interface OwnServer {
  readonly url: string
  /** Rows of a statement, on a connection of its own. */
  readonly rows: (text: string, values?: unknown[]) => Promise<Record<string, unknown>[]>
  readonly count: (text: string, values?: unknown[]) => Promise<number>
  /** Kills it with SIGKILL: the postmaster, and with it every backend. */
  readonly kill: () => Promise<void>
  /** Starts it again on its port and data. Resolves when it accepts connections. */
  readonly restart: () => Promise<void>
  /** Stops all of its processes where they are, and lets them go on. */
  readonly freeze: () => Promise<void>
  readonly thaw: () => void
}

const ownSettings = ['max_connections=200', 'fsync=off', 'full_page_writes=off']

/** A number for the lock under which the first of the workers makes {@link migratedData}. */
const dataLock = 1_651_864_322

/** The data of a server with the schema of the bus, made once a run: to make and to migrate it takes two seconds of processor time. */
async function migratedData(): Promise<string> {
  const folder = inject('ownServerData')
  await asAdmin(inject('serverUrl'), async (admin) => {
    await admin.query('select pg_advisory_lock($1)', [dataLock])
    if (existsSync(join(folder, 'migrated'))) return
    const server = await startOwnPostgres(ownSettings, { dataFolder: folder })
    await migrate(server.url)
    await server.stop()
    await writeFile(join(folder, 'migrated'), '')
  })
  return folder
}

/** Ended when the test is over. */
export async function startOwnServer(settings: readonly string[] = []): Promise<OwnServer> {
  const server = await startOwnPostgres([...ownSettings, ...settings], { copyOf: await migratedData() })
  let frozen: readonly number[] = []
  const signal = (pids: readonly number[], name: NodeJS.Signals): void => {
    for (const pid of pids) {
      try {
        process.kill(pid, name)
      } catch {
        // It has ended meanwhile.
      }
    }
  }
  const thaw = (): void => {
    signal(frozen, 'SIGCONT')
    frozen = []
  }
  onTestFinished(async () => {
    thaw()
    await server.stop()
  })
  const rows: OwnServer['rows'] = async (text, values = []) => {
    const client = new pg.Client({ connectionString: server.url })
    client.on('error', () => {})
    await client.connect()
    try {
      return (await client.query<Record<string, unknown>>(text, values)).rows
    } finally {
      await client.end()
    }
  }
  return {
    url: server.url,
    rows,
    count: async (text, values) => countIn(await rows(text, values)),
    async kill() {
      const pid = await server.process.pid()
      const backends = childrenOf(pid)
      signal([pid, ...backends], 'SIGKILL')
      await until('the server is gone', () => ![pid, ...backends].some(isAlive))
    },
    restart: server.process.restart,
    async freeze() {
      const pid = await server.process.pid()
      signal([pid], 'SIGSTOP')
      frozen = [pid, ...childrenOf(pid)]
      signal(frozen, 'SIGSTOP')
    },
    thaw,
  }
}

/** Of Linux's own files, where they are: `ps` is not on every machine. */
function childrenOf(parent: number): number[] {
  if (existsSync('/proc/self/stat'))
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .map(Number)
      .filter((pid) => statusOf(pid)?.parent === parent)
  return execFileSync('ps', ['-A', '-o', 'pid=,ppid='], { encoding: 'utf8' })
    .split('\n')
    .map((line) => line.trim().split(/\s+/).map(Number))
    .flatMap(([pid, ppid]) => (pid !== undefined && ppid === parent ? [pid] : []))
}

/** The state and the parent of a process; undefined where it is gone. The name, in parentheses, may have blanks and parentheses. */
function statusOf(pid: number): { readonly state: string; readonly parent: number } | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
    const [state = '', parent] = text.slice(text.lastIndexOf(')') + 2).split(' ')
    return { state, parent: Number(parent) }
  } catch {
    return undefined
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    // Killed, and not yet reaped by whoever adopted it.
    if (existsSync('/proc/self/stat')) return !['Z', 'X', undefined].includes(statusOf(pid)?.state)
    return !execFileSync('ps', ['-o', 'stat=', '-p', String(pid)], { encoding: 'utf8' }).startsWith('Z')
  } catch {
    return false
  }
}
