import { spawn } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { chmod, chown, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { onTestFinished } from 'vitest'
import { until } from './database.ts'

/** Where Debian and most others install it. Undefined where there is none. */
export const pgbouncerPath = ['/usr/sbin/pgbouncer', '/usr/bin/pgbouncer', '/usr/local/bin/pgbouncer'].find(
  (path) => existsSync(path),
)

/** Starts a PgBouncer of the test's own in front of a database, and gives its URL. Ended when the test is over. */
export async function startPgbouncer(
  databaseUrl: string,
  mode: 'transaction' | 'session',
  settings: readonly string[] = [],
): Promise<string> {
  const target = new URL(databaseUrl)
  const folder = await mkdtemp(join(tmpdir(), 'bossbus-pgbouncer-'))
  const port = await freePort()
  const config = join(folder, 'pgbouncer.ini')
  const password = target.password === '' ? '' : ` password=${target.password}`
  await writeFile(
    config,
    `[databases]
* = host=${target.hostname} port=${target.port === '' ? 5432 : target.port} user=${target.username}${password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = any
pool_mode = ${mode}
default_pool_size = 20
max_client_conn = 200
${settings.join('\n')}
`,
  )
  const account = process.getuid?.() === 0 ? unprivilegedAccount() : undefined
  if (account !== undefined) await chown(folder, account.uid, account.gid)
  await chmod(folder, 0o755)
  const child = spawn(pgbouncerPath ?? 'pgbouncer', [config], { cwd: folder, stdio: 'pipe', ...account })
  const output: string[] = []
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => output.push(chunk.toString()))
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  onTestFinished(async () => {
    child.kill('SIGKILL')
    await exited
    await rm(folder, { recursive: true, force: true })
  })
  const url = new URL(databaseUrl)
  url.host = `127.0.0.1:${port}`
  await until(`PgBouncer answers: ${output.join('')}`, async () => answers(url.toString()))
  return url.toString()
}

async function answers(url: string): Promise<boolean> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => {})
  try {
    await client.connect()
    return true
  } catch {
    return false
  } finally {
    await client.end().catch(() => {})
  }
}

/** The user that PgBouncer runs as, because it refuses to run as root. */
function unprivilegedAccount(): { readonly uid: number; readonly gid: number } {
  const accounts = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .map((line) => line.split(':'))
  for (const name of ['postgres', 'nobody']) {
    const [, , uid, gid] = accounts.find(([account]) => account === name) ?? []
    if (uid !== undefined && gid !== undefined) return { uid: Number(uid), gid: Number(gid) }
  }
  throw new Error('PgBouncer does not run as root, and there is no account to run it as')
}

async function freePort(): Promise<number> {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo
      server.close(() => resolve(port))
    })
  })
}
