import pg from 'pg'
import { ConfigurationError } from '../events/errors.ts'
import type { BusLogger } from '../events/logger.ts'
import { toBusError } from './database-errors.ts'
import { createPreparer, setPreparer, type Preparer } from './prepared.ts'

/** Where the bus's own connections go: a `postgres://` URL or a node-postgres pool configuration. */
export type DatabaseOption = string | pg.PoolConfig

/** What runs a statement and gives its rows. */
export interface Executor {
  query: <R extends pg.QueryResultRow>(text: string, values?: unknown[]) => Promise<{ readonly rows: R[] }>
}

/** The bus's own connections. node-postgres, never postgres.js: see docs/adr/0002. */
export interface Database extends Executor {
  readonly pool: pg.Pool
  /** Runs a statement that is sent again and again: planned once a connection, where that is possible. */
  queryPrepared: <R extends pg.QueryResultRow>(
    text: string,
    values?: unknown[],
  ) => Promise<{ readonly rows: R[] }>
  /** Runs `work` in one transaction on one connection: committed when it resolves, rolled back when it rejects. */
  transaction: <T>(work: (client: pg.PoolClient) => Promise<T>) => Promise<T>
  /** A connection outside the pool, for a session that holds locks or listens. */
  openSession: () => Promise<pg.Client>
  /** Another pool to the same database, as large as the bus's own, or as asked for. Whoever opens it ends it. */
  openPool: (minConnections: number) => pg.Pool
  close: () => Promise<void>
}

/** Opens no connection yet: the first query does. */
export function createDatabase(option: DatabaseOption, logger: BusLogger): Database {
  const config = poolConfig(option)
  const preparer = createPreparer(logger)
  const pool = createPool(config, logger, preparer)
  return {
    pool,
    async queryPrepared<R extends pg.QueryResultRow>(text: string, values: unknown[] = []) {
      try {
        return (await preparer.query(pool, text, values)) as pg.QueryResult<R>
      } catch (error) {
        throw toBusError(error)
      }
    },
    async query<R extends pg.QueryResultRow>(text: string, values?: unknown[]) {
      try {
        return await pool.query<R>(text, values)
      } catch (error) {
        throw toBusError(error)
      }
    },
    transaction: (work) => runTransaction(pool, work),
    async openSession() {
      const client = new pg.Client({ ...config, keepAlive: true, keepAliveInitialDelayMillis: 10_000 })
      client.on('error', () => {})
      try {
        await client.connect()
      } catch (error) {
        throw toBusError(error)
      }
      return client
    },
    openPool: (minConnections) =>
      createPool(
        { ...config, max: Math.max(config.max ?? poolDefaults.max, minConnections) },
        logger,
        createPreparer(logger),
      ),
    close: async () => pool.end(),
  }
}

function createPool(config: pg.PoolConfig, logger: BusLogger, preparer: Preparer): pg.Pool {
  const pool = new pg.Pool(config)
  // Without a listener a lost connection, idle or in use, would end the process.
  pool.on('error', (error) => logger.warn({ reason: error.message }, 'an idle database connection was lost'))
  pool.on('connect', (client) => {
    client.on('error', () => {})
    setPreparer(client, preparer)
  })
  return pool
}

async function runTransaction<T>(pool: pg.Pool, work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
  const client = await pool.connect().catch((error: unknown) => {
    throw toBusError(error)
  })
  let broken = false
  try {
    await client.query('begin')
    const result = await work(client)
    await client.query('commit')
    return result
  } catch (error) {
    // A connection that cannot roll back is thrown away: the server ends the transaction with it.
    await client.query('rollback').catch(() => {
      broken = true
    })
    throw toBusError(error)
  } finally {
    client.release(broken)
  }
}

function poolConfig(option: DatabaseOption): pg.PoolConfig {
  if (typeof option === 'string') {
    if (!/^postgres(?:ql)?:\/\//.test(option)) {
      throw new ConfigurationError(
        'BUS_INVALID_OPTION',
        'Expected `database` to be a postgres:// URL or a node-postgres pool configuration',
      )
    }
    return { connectionString: option, ...poolDefaults }
  }
  if (option === null || typeof option !== 'object') {
    throw new ConfigurationError(
      'BUS_INVALID_OPTION',
      'Expected `database` to be a postgres:// URL or a node-postgres pool configuration',
    )
  }
  return { ...poolDefaults, ...option }
}

/** Ten connections carry relay, workers and maintenance of one process; a lost server is noticed in seconds. */
const poolDefaults = { max: 10, connectionTimeoutMillis: 10_000, application_name: 'bossbus' } as const
