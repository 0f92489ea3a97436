import type pg from 'pg'
import { currentFaultHook, type FaultHook } from '../foundation/fault-points.ts'
import type { BusLogger } from '../foundation/logger.ts'
import { DatabaseError } from '../foundation/errors.ts'
import { reasonOf } from '../foundation/error-reason.ts'
import { defaultBossSchema, quoteBossSchema } from './boss-schema.ts'
import { BusClient } from './bus-client.ts'
import { BusPool } from './bus-pool.ts'
import { assertEnoughConnections, shareConnections } from './configuration/connection-shares.ts'
import { createConnectionSource, type DatabaseOption } from './connection-source.ts'
import { stoppedError, toBusError, toConnectError } from './database-errors.ts'
import { createDrizzleHandles, type DrizzleHandles, type DrizzleOption } from './drizzle-handle.ts'
import { createPreparer, setPreparer } from './prepared.ts'
import { createLossLog } from './lost-connections.ts'
import { readOnlyByOption, wantsReadOnly } from './read-only-option.ts'
import { beginOn, beginWriting, type SessionKind } from './session-settings.ts'
import { createWatchdog } from './watchdog.ts'

export type { DatabaseOption } from './connection-source.ts'

/** Runs a statement and returns its rows. */
export interface Executor {
  query: <R extends pg.QueryResultRow>(text: string, values?: unknown[]) => Promise<{ readonly rows: R[] }>
}

/** Sends the commit of a transaction once, and resolves when it has succeeded. */
export type Commit = () => Promise<void>

/** The bus's own connections, always through node-postgres and never through postgres.js: see docs/adr/0002. */
export interface Database extends Executor {
  readonly pool: pg.Pool
  /** Where its connections go: a host or the path of a Unix socket. Undefined while that is not known. */
  readonly server: { readonly host: string; readonly port: number | undefined } | undefined
  /** The schema of pg-boss: as in the catalogues, and as SQL. */
  readonly bossSchemaName: string
  readonly bossSchema: string
  /** Called after each step in crash tests. Undefined otherwise, at no cost. */
  readonly faultPoint: FaultHook | undefined
  /** Creates Drizzle handles for code that runs on connections of the bus. */
  readonly drizzle: DrizzleHandles
  /** Runs a frequent statement. It is prepared once per connection if possible. */
  queryPrepared: <R extends pg.QueryResultRow>(
    text: string,
    values?: unknown[],
  ) => Promise<{ readonly rows: R[] }>
  /**
   * Runs `work` in one transaction on one connection: committed if it resolves, rolled back if it rejects.
   *
   * `work` may send the commit itself, after statements whose answers it has not received: if one of them fails, the
   * server rolls back instead.
   *
   * @param begin - the statements that begin the transaction, in one round trip; `work` receives their answers.
   *   @defaultValue {@link beginSql}
   */
  transaction: <T>(
    work: (client: pg.PoolClient, begun: readonly pg.QueryResult[], commit: Commit) => Promise<T>,
    begin?: string,
  ) => Promise<T>
  /** Opens a connection outside the pool, for a session that listens or holds locks. */
  openSession: () => Promise<BusClient>
  /**
   * Divides the available connections among their purposes. Must be called before the bus starts.
   *
   * @param hasHandlers - whether some are for transactions of handlers
   */
  shareConnections: (hasHandlers: boolean) => Promise<void>
  /** Whether exactly-once handlers may come after the start: their connections are divided off by then, or nothing limits them. */
  readonly mayAddHandlers: boolean
  /**
   * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` if there are too few connections to run. Only known after
   *   a connection was opened.
   */
  assertEnoughConnections: () => void
  /** Opens another pool to the same database, for handlers. The caller must end it. */
  openHandlerPool: () => pg.Pool
  /** Resolves after a delay. It keeps the process alive meanwhile, unless the bus has been stopped. */
  pause: (durationMs: number) => Promise<void>
  /** Registers a listener that is called after half-open connections were found and closed. */
  onConnectionsCut: (listener: () => void) => void
  /** Resolves when the running statements of the pool have finished. Other open connections are closed then. */
  close: () => Promise<void>
  /** Closes every connection, in use or not, and opens no more: everything that waits for one fails at once. */
  destroy: () => void
}

/**
 * Begins a transaction of the bus in one round trip. The server ends it if its process is silent for ten seconds, so
 * that a process that is suspended or disconnected does not keep its locks.
 */
export const beginSql = `${beginWriting}; set local idle_in_transaction_session_timeout = '10s'`

/** Opens no connection before the first query. */
export function createDatabase(
  option: DatabaseOption,
  logger: BusLogger,
  bossSchemaName: string = defaultBossSchema,
  drizzle: DrizzleOption = {},
): Database {
  const source = createConnectionSource(option)
  const preparer = createPreparer(logger)
  const logLoss = createLossLog(logger)
  const idle = new WeakSet<BusClient>()
  const watchdog = createWatchdog(source, (client) => idle.has(client), logger)
  const pauses = createPauses()
  let hasHandlers = false
  let abandoned = false
  let closed = false

  function watch(client: BusClient): void {
    if (abandoned) throw Object.assign(new Error('The bus was stopped'), { code: 'ECONNABORTED' })
    watchdog.watch(client)
  }

  function openPool(kind: SessionKind): BusPool {
    const sizeOf = (max: number | undefined): number => shareConnections(max, hasHandlers)[kind]
    const pool = new BusPool(source, sizeOf, kind, watch)
    // Without a listener the loss of a connection, idle or in use, would end the process.
    pool.on('error', (error) => logLoss(reasonOf(error)))
    pool.on('connect', (client) => {
      client.on('error', () => {})
      setPreparer(client, preparer)
    })
    pool.on('acquire', (client) => idle.delete(client as unknown as BusClient))
    pool.on('release', (_error, released) => {
      const client = released as unknown as BusClient
      idle.add(client)
      if (client.isReadOnly) client.cut('The server no longer accepts writes')
    })
    return pool
  }

  function assertOpen(): void {
    if (closed) throw stoppedError()
  }

  const pool = openPool('bus')
  /** A single statement that writes is refused by the server, if the connection is asked to read only. */
  const refused = (thrown: unknown): Error => {
    const error = toBusError(thrown)
    return error instanceof DatabaseError && error.sqlState === '25006' && wantsReadOnly(pool.options.options)
      ? readOnlyByOption(error.cause)
      : error
  }
  function destroy(): void {
    abandoned = true
    source.close()
    pauses.unref()
    watchdog.cutAll()
  }

  return {
    pool,
    get server() {
      const { host, port } = source.known
      return host === undefined ? undefined : { host, port: host.startsWith('/') ? undefined : port }
    },
    bossSchemaName,
    bossSchema: quoteBossSchema(bossSchemaName),
    faultPoint: currentFaultHook(),
    drizzle: createDrizzleHandles(drizzle),
    async queryPrepared<R extends pg.QueryResultRow>(text: string, values: unknown[] = []) {
      assertOpen()
      try {
        return (await preparer.query(pool, text, values)) as pg.QueryResult<R>
      } catch (error) {
        throw refused(error)
      }
    },
    async query<R extends pg.QueryResultRow>(text: string, values?: unknown[]) {
      assertOpen()
      try {
        return await pool.query<R>(text, values)
      } catch (error) {
        throw refused(error)
      }
    },
    async transaction(work, begin = beginSql) {
      assertOpen()
      return runTransaction(pool, work, begin)
    },
    async openSession() {
      assertOpen()
      try {
        const client = new BusClient(source.ask === undefined ? source.known : await source.ask())
        client.on('error', () => {})
        watch(client)
        await client.connect()
        return client
      } catch (error) {
        throw toConnectError(error)
      }
    },
    async shareConnections(withHandlers) {
      hasHandlers = withHandlers
      await pool.resize()
    },
    get mayAddHandlers() {
      return hasHandlers || source.known.max === undefined
    },
    assertEnoughConnections: () => assertEnoughConnections(source.known.max, hasHandlers),
    openHandlerPool: () => openPool('handlers'),
    pause: pauses.wait,
    onConnectionsCut: (listener) => watchdog.onCut(listener),
    async close() {
      await pool.end()
      closed = true
      destroy()
    },
    destroy() {
      closed = true
      destroy()
    },
  }
}

async function runTransaction<T>(
  pool: pg.Pool,
  work: (client: pg.PoolClient, begun: readonly pg.QueryResult[], commit: Commit) => Promise<T>,
  begin: string,
): Promise<T> {
  const client = await pool.connect().catch((error: unknown) => {
    throw toBusError(error)
  })
  let broken = false
  let committed: Promise<void> | undefined
  const commit: Commit = async () => {
    committed ??= sendCommit(client)
    return committed
  }
  try {
    // Several statements have several answers.
    const begun = (await client.query(
      beginOn(client as unknown as BusClient, begin),
    )) as unknown as readonly pg.QueryResult[]
    const result = await work(client, begun, commit)
    await commit()
    return result
  } catch (error) {
    // A connection that cannot roll back is discarded: the server then ends the transaction with the session.
    await client.query('rollback').catch(() => {
      broken = true
    })
    throw toBusError(error)
  } finally {
    client.release(broken)
  }
}

/** Committing a transaction in which a statement has failed rolls it back, and the server reports success. */
async function sendCommit(client: pg.PoolClient): Promise<void> {
  const { command } = await client.query('commit')
  if (command !== 'COMMIT')
    throw Object.assign(new Error('The transaction had failed before'), { code: '25P02' })
}

/** Delays that keep the process of a bus alive, but only until the bus has been stopped. */
interface Pauses {
  wait: (durationMs: number) => Promise<void>
  /** From now on the delays do not keep the process alive. They still elapse if the process lives for another reason. */
  unref: () => void
}

function createPauses(): Pauses {
  const timers = new Set<NodeJS.Timeout>()
  let isLetGo = false
  return {
    async wait(durationMs) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(() => {
          timers.delete(timer)
          resolve()
        }, durationMs)
        if (isLetGo) timer.unref()
        else timers.add(timer)
      })
    },
    unref() {
      isLetGo = true
      for (const timer of timers) timer.unref()
      timers.clear()
    },
  }
}
