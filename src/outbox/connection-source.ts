import type pg from 'pg'
import { ConfigurationError } from '../events/errors.ts'

type Target = string | pg.PoolConfig

/**
 * Where the bus's own connections go: a `postgres://` URL, a node-postgres pool configuration, or a function that gives
 * one of these, asked again for each new connection.
 */
export type DatabaseOption = Target | (() => Target | Promise<Target>)

/** Says where a connection goes. */
export interface ConnectionSource {
  /** What is known without asking: all there is, or the newest answer, or the defaults before the first one. */
  readonly known: pg.PoolConfig
  /** Asks where the next connection goes. Undefined where that cannot change. */
  readonly ask: (() => Promise<pg.PoolConfig>) | undefined
}

/** How long the function of the option may take to answer. */
const answerLimitMs = 10_000

/** @throws {@link ConfigurationError} `BUS_INVALID_OPTION` */
export function createConnectionSource(option: DatabaseOption): ConnectionSource {
  if (typeof option !== 'function') return { known: toPoolConfig(option), ask: undefined }
  let known: pg.PoolConfig = poolDefaults
  return {
    get known() {
      return known
    },
    async ask() {
      known = toPoolConfig(await inTime(option))
      return known
    },
  }
}

/** A function that throws or does not answer counts as a database that cannot be reached: it is asked again. */
async function inTime(ask: () => Target | Promise<Target>): Promise<Target> {
  let timer: NodeJS.Timeout | undefined
  const tooLate = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () =>
        reject(
          Object.assign(new Error(`the function \`database\` gave no answer within ${answerLimitMs} ms`), {
            code: 'ETIMEDOUT',
          }),
        ),
      answerLimitMs,
    )
  })
  try {
    return await Promise.race([Promise.resolve().then(ask), tooLate])
  } finally {
    clearTimeout(timer)
  }
}

function toPoolConfig(target: unknown): pg.PoolConfig {
  if (typeof target === 'string' && /^postgres(?:ql)?:\/\//.test(target))
    return { connectionString: target, ...poolDefaults }
  if (target !== null && typeof target === 'object') return { ...poolDefaults, ...target }
  throw new ConfigurationError(
    'BUS_INVALID_OPTION',
    'Expected `database` to be a postgres:// URL, a node-postgres pool configuration, or a function that gives one',
  )
}

/** Ten connections carry relay, workers and maintenance of one process; a lost server is noticed in seconds. */
export const poolDefaults = {
  max: 10,
  connectionTimeoutMillis: 10_000,
  keepAlive: true,
  keepAliveInitialDelayMillis: 10_000,
  application_name: 'bossbus',
} as const
