import type pg from 'pg'
import { currentFaultHook, type FaultHook } from '../foundation/fault-points.ts'
import type { BusLogger } from '../foundation/logger.ts'
import { reasonOf } from '../foundation/error-reason.ts'
import { defaultBossSchema, quoteBossSchema } from './boss-schema.ts'
import { BusClient } from './bus-client.ts'
import { BusPool } from './bus-pool.ts'
import { assertEnoughConnections, shareConnections } from './configuration/connection-shares.ts'
import { createConnectionSource, type DatabaseOption } from './connection-source.ts'
import { stoppedError, toBusError, toConnectError } from './database-errors.ts'
import { createPauses } from './pauses.ts'
import { createDrizzleHandles, type DrizzleHandles, type DrizzleOption } from './drizzle-handle.ts'
import { createPreparer, setPreparer } from './prepared.ts'
import { beginOn, beginWriting, type SessionKind } from './session-settings.ts'
import { createWatchdog } from './watchdog.ts'

export type { DatabaseOption } from './connection-source.ts'

/** What runs a statement and gives its rows. */
export interface Executor {
  query: <R extends pg.QueryResultRow>(text: string, values?: unknown[]) => Promise<{ readonly rows: R[] }>
}

/** Sends the commit of a transaction, once, and resolves when it is known to have happened. */
export type Commit = () => Promise<void>

/** The bus's own connections. node-postgres, never postgres.js: see docs/adr/0002. */
export interface Database extends Executor {
  readonly pool: pg.Pool
  /** The schema of pg-boss, as the catalogues have it, and as SQL. */
  readonly bossSchemaName: string
  readonly bossSchema: string
  /** Told of each step that is done, by those who try what a crash there does. Else undefined: nothing is called. */
  readonly faultPoint: FaultHook | undefined
  /** Drizzle, for what others run on connections of the bus. */
  readonly drizzle: DrizzleHandles
  /** Runs a statement that is sent again and again: planned once a connection, where that is possible. */
  queryPrepared: <R extends pg.QueryResultRow>(
    text: string,
    values?: unknown[],
  ) => Promise<{ readonly rows: R[] }>
  /**
   * Runs `work` in one transaction on one connection: committed when it resolves, rolled back when it rejects.
   *
   * `work` may send the commit itself, behind statements whose answers it has not seen: where one of them fails, the server
   * rolls back instead.
   *
   * @param begin - statements that begin the transaction, in one round trip; `work` is given what each of them answered.
   *   @defaultValue {@link beginSql}
   */
  transaction: <T>(
    work: (client: pg.PoolClient, begun: readonly pg.QueryResult[], commit: Commit) => Promise<T>,
    begin?: string,
  ) => Promise<T>
  /** A connection outside the pool, for a session that holds locks or listens. */
  openSession: () => Promise<BusClient>
  /**
   * To be called before the bus starts: settles which of the connections that it may have are for what.
   *
   * @param hasHandlers - whether some are for transactions of handlers
   */
  shareConnections: (hasHandlers: boolean) => Promise<void>
  /** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` where it may have too few to run. Known once a connection was made. */
  assertEnoughConnections: () => void
  /** Another pool to the same database, for handlers. Whoever opens it ends it. */
  openHandlerPool: () => pg.Pool
  /** Resolves after a while. Who waits keeps the process alive, but not when the bus was stopped. */
  pause: (durationMs: number) => Promise<void>
  /** Calls back when connections were found half open and cut. */
  onConnectionsCut: (listener: () => void) => void
  /** Resolves when what runs on the pool is over. Whatever else is open then is cut. */
  close: () => Promise<void>
  /** Cuts every connection, whoever has it, and opens no more: what waits for one fails at once. */
  abandon: () => void
}

/**
 * Begins a transaction of the bus's own, in one round trip. The server ends it when nothing was heard of its process for
 * ten seconds, so that one that is stopped, or cut off, does not keep its locks.
 */
export const beginSql = `${beginWriting}; set local idle_in_transaction_session_timeout = '10s'`

/** Opens no connection yet: the first query does. */
export function createDatabase(
  option: DatabaseOption,
  logger: BusLogger,
  bossSchemaName: string = defaultBossSchema,
  drizzle: DrizzleOption = {},
): Database {
  const source = createConnectionSource(option)
  const preparer = createPreparer(logger)
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
    // Without a listener a lost connection, idle or in use, would end the process.
    pool.on('error', (error) =>
      logger.warn({ reason: reasonOf(error) }, 'an idle database connection was lost'),
    )
    pool.on('connect', (client) => {
      client.on('error', () => {})
      setPreparer(client, preparer)
    })
    pool.on('acquire', (client) => idle.delete(client as unknown as BusClient))
    pool.on('release', (_error, released) => {
      const client = released as unknown as BusClient
      idle.add(client)
      if (client.isReadOnly) client.cut('The server takes no writes any more')
    })
    return pool
  }

  function assertOpen(): void {
    if (closed) throw stoppedError()
  }

  const pool = openPool('bus')
  function abandon(): void {
    abandoned = true
    source.close()
    pauses.letGo()
    watchdog.cutAll()
  }

  return {
    pool,
    bossSchemaName,
    bossSchema: quoteBossSchema(bossSchemaName),
    faultPoint: currentFaultHook(),
    drizzle: createDrizzleHandles(drizzle),
    async queryPrepared<R extends pg.QueryResultRow>(text: string, values: unknown[] = []) {
      assertOpen()
      try {
        return (await preparer.query(pool, text, values)) as pg.QueryResult<R>
      } catch (error) {
        throw toBusError(error)
      }
    },
    async query<R extends pg.QueryResultRow>(text: string, values?: unknown[]) {
      assertOpen()
      try {
        return await pool.query<R>(text, values)
      } catch (error) {
        throw toBusError(error)
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
    assertEnoughConnections: () => assertEnoughConnections(source.known.max, hasHandlers),
    openHandlerPool: () => openPool('handlers'),
    pause: async (durationMs) => pauses.wait(durationMs),
    onConnectionsCut: (listener) => watchdog.onCut(listener),
    async close() {
      await pool.end()
      closed = true
      abandon()
    },
    abandon() {
      closed = true
      abandon()
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
    // Of several statements there are several answers.
    const begun = (await client.query(
      beginOn(client as unknown as BusClient, begin),
    )) as unknown as readonly pg.QueryResult[]
    const result = await work(client, begun, commit)
    await commit()
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

/** A transaction in which a statement has failed is rolled back by its commit, and the server calls that a success. */
async function sendCommit(client: pg.PoolClient): Promise<void> {
  const { command } = await client.query('commit')
  if (command !== 'COMMIT')
    throw Object.assign(new Error('The transaction had failed before'), { code: '25P02' })
}
