import { execFileSync } from 'node:child_process'
import { chmod, chown, cp, mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { onTestFinished } from 'vitest'
import { until } from './database.ts'
import { startOwnServer, type OwnServer } from './own-server.ts'

/** Whether certificates can be made here. */
export const hasOpenssl = ((): boolean => {
  try {
    execFileSync('openssl', ['version'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
})()

export interface TlsServer extends OwnServer {
  /** The certificate of the server, that is its own authority. */
  readonly caFile: string
}

/** A server of the test's own that speaks TLS, as `127.0.0.1`. Ended when the test is over. */
export async function startTlsServer(): Promise<TlsServer> {
  const server = await startOwnServer()
  const folder = await mkdtemp(join(tmpdir(), 'bossbus-tls-'))
  onTestFinished(async () => rm(folder, { recursive: true, force: true }))
  const [caFile, keyFile] = [join(folder, 'server.crt'), join(folder, 'server.key')]
  execFileSync(
    'openssl',
    [
      ...['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=127.0.0.1'],
      ...['-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', keyFile, '-out', caFile],
    ],
    { stdio: 'ignore' },
  )
  const [row] = await server.rows('show data_directory')
  const data = String(row?.['data_directory'])
  const { uid, gid } = await stat(data)
  for (const [from, name] of [
    [caFile, 'server.crt'],
    [keyFile, 'server.key'],
  ] as const) {
    await cp(from, join(data, name))
    await chown(join(data, name), uid, gid)
    await chmod(join(data, name), 0o600)
  }
  await server.rows('alter system set ssl = on')
  await server.rows('select pg_reload_conf()')
  await until('it speaks TLS', async () => {
    const client = new pg.Client({ connectionString: server.url, ssl: { rejectUnauthorized: false } })
    client.on('error', () => {})
    return client.connect().then(
      async () => client.end().then(() => true),
      () => false,
    )
  })
  return { ...server, caFile }
}
