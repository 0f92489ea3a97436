import type { BusLogger } from '../foundation/logger.ts'
import { BusClient } from './bus-client.ts'
import type { ConnectionSource } from './connection-source.ts'

/** An answer that takes longer than this is investigated. */
const patienceMs = 2000

/** The reason for closing connections when the bus stops. */
const stopped = 'The bus was stopped'

/** How often the watchdog checks, and the time limit for one query to the server. */
const tickMs = 500
const inspectionLimitMs = 2000

/** Behind a pooler the server process of a connection is unknown: the connection is closed after this long. */
const pooledPatienceMs = 5 * 60_000

/**
 * Finds connections whose other end has gone silently: a half-open socket, a server that disappeared, a pooler or proxy
 * that lost its state. Statements have no time limit, because slow ones are healthy. Instead, if an answer is late, the
 * server is asked on a new connection whether it is still working on it. If it is, or cannot be asked either, the
 * connection is kept. Otherwise the connection is closed, and so are the idle ones, which used the same route.
 */
export interface Watchdog {
  /** Monitors a connection until it ends. */
  watch: (client: BusClient) => void
  /** Registers a listener that is called after a connection was closed, so that others can be tested too. */
  onCut: (listener: () => void) => void
  /**
   * Closes every connection and stops monitoring. None of them keeps the process alive any more, not even to close
   * gracefully.
   */
  cutAll: () => void
}

export function createWatchdog(
  source: ConnectionSource,
  isIdle: (client: BusClient) => boolean,
  logger: BusLogger,
): Watchdog {
  const clients = new Set<BusClient>()
  const listeners: (() => void)[] = []
  /** The age of a wait when the server was last found working on it: it is checked again at twice that age. */
  const foundAtWork = new WeakMap<BusClient, { readonly since: number; readonly ageMs: number }>()
  let inspecting = false
  let inspector: BusClient | undefined
  let timer: NodeJS.Timeout | undefined

  function isLate(client: BusClient): boolean {
    const since = client.waitingSince
    if (since === undefined) return false
    const found = foundAtWork.get(client)
    return performance.now() - since > (found?.since === since ? found.ageMs * 2 : patienceMs)
  }

  async function tick(): Promise<void> {
    if (inspecting) return
    const late = [...clients].filter(isLate)
    if (late.length === 0) return
    inspecting = true
    try {
      const waits = late.map((client) => ({ client, since: client.waitingSince ?? 0 }))
      const atWork = await inspect(late)
      let cutCount = 0
      for (const { client, since } of waits) {
        // Answered in the meantime.
        if (client.waitingSince !== since) continue
        if (atWork(client, since)) foundAtWork.set(client, { since, ageMs: performance.now() - since })
        else {
          cutCount += 1
          client.cut('The server is no longer working on this statement: the connection was half open')
        }
      }
      if (cutCount > 0) report(cutCount)
    } catch {
      // The server cannot be asked. The connections are not to blame, and may work again when it returns.
    } finally {
      inspecting = false
    }
  }

  function report(cutCount: number): void {
    logger.warn({ connectionCount: cutCount }, 'half-open database connections were cut')
    for (const client of clients) if (isIdle(client)) client.cut('Other connections were half open')
    for (const listener of listeners) listener()
  }

  /** Asks the server for which of these connections it is working. */
  async function inspect(late: readonly BusClient[]): Promise<(client: BusClient, since: number) => boolean> {
    const session = new BusClient({
      ...(source.ask === undefined ? source.known : await source.ask()),
      connectionTimeoutMillis: inspectionLimitMs,
      query_timeout: inspectionLimitMs,
    })
    session.on('error', () => {})
    inspector = session
    try {
      await session.connect()
      const { rows } = await session.query<{ own: number; pids: number[] }>(atWorkSql, [
        late.flatMap(({ backendPid }) => backendPid ?? []),
      ])
      const isPooled = rows[0]?.own !== session.backendPid
      const pids = new Set(rows[0]?.pids)
      return (client, since) => {
        if (isPooled) return performance.now() - since < pooledPatienceMs
        return client.backendPid !== undefined && pids.has(client.backendPid)
      }
    } finally {
      inspector = undefined
      void session.end().catch(() => {})
    }
  }

  return {
    watch(client) {
      clients.add(client)
      client.once('end', () => clients.delete(client))
      timer ??= setInterval(() => void tick(), tickMs).unref()
    },
    onCut(listener) {
      listeners.push(listener)
    },
    cutAll() {
      clearInterval(timer)
      for (const client of clients) {
        if (client.isEnding) client.unref()
        else client.cut(stopped)
      }
      clients.clear()
      inspector?.cut(stopped)
    },
  }
}

/**
 * The answer to a session that has just become idle may still be on its way. If the time is in the future, the clock
 * was set back afterwards.
 */
const atWorkSql = `
select pg_backend_pid() as own, coalesce(array_agg(pid) filter (where
  state is null or state not like 'idle%'
  or state_change between clock_timestamp() - interval '1 second' and clock_timestamp() + interval '1 second'), '{}') as pids
from pg_stat_activity where pid = any($1::int[]) and usename = session_user`
