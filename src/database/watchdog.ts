import type { BusLogger } from '../foundation/logger.ts'
import { BusClient } from './bus-client.ts'
import type { ConnectionSource } from './connection-source.ts'

/** An answer that takes longer than this is asked after. */
const patienceMs = 2000

/** Why connections are cut at the end. */
const stopped = 'The bus was stopped'

/** How often the watchdog looks at the clock, and how long one look at the server may take. */
const tickMs = 500
const inspectionLimitMs = 2000

/** Behind a pooler nobody can tell which server process a connection waits for: then it is cut after this long. */
const pooledPatienceMs = 5 * 60_000

/**
 * Finds connections whose other end is gone without a word: a half-open socket, a server that vanished, a pooler or
 * proxy that forgot. Statements have no time limit, because slow ones are healthy; instead, when an answer is late, the
 * server is asked on a new connection whether it works on it still. If it does, or cannot be asked either, the
 * connection stays. If it does not, the connection is cut, and so are the idle ones: they went the same way.
 */
export interface Watchdog {
  /** Looks after a connection until it ends. */
  watch: (client: BusClient) => void
  /** Calls back when a connection was cut, so that others are looked at too. */
  onCut: (listener: () => void) => void
  /** Cuts every connection, and watches no longer. None keeps the process alive any more, not even for its goodbye. */
  cutAll: () => void
}

export function createWatchdog(
  source: ConnectionSource,
  isIdle: (client: BusClient) => boolean,
  logger: BusLogger,
): Watchdog {
  const clients = new Set<BusClient>()
  const listeners: (() => void)[] = []
  /** How old a wait was when the server was last found at work on it: it is asked again at twice that age. */
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
        // Answered meanwhile.
        if (client.waitingSince !== since) continue
        if (atWork(client, since)) foundAtWork.set(client, { since, ageMs: performance.now() - since })
        else {
          cutCount += 1
          client.cut('The server does not work on this statement any more: the connection was half open')
        }
      }
      if (cutCount > 0) report(cutCount)
    } catch {
      // The server cannot be asked: that is not the connections' fault, they may go on when it is back.
    } finally {
      inspecting = false
    }
  }

  function report(cutCount: number): void {
    logger.warn({ connectionCount: cutCount }, 'half-open database connections were cut')
    for (const client of clients) if (isIdle(client)) client.cut('Other connections were half open')
    for (const listener of listeners) listener()
  }

  /** Asks the server which of these connections it is at work for. */
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

/** A session that has just become idle has its answer still on the way. In the time to come it did so before the clock was set back. */
const atWorkSql = `
select pg_backend_pid() as own, coalesce(array_agg(pid) filter (where
  state is null or state not like 'idle%'
  or state_change between clock_timestamp() - interval '1 second' and clock_timestamp() + interval '1 second'), '{}') as pids
from pg_stat_activity where pid = any($1::int[]) and usename = session_user`
