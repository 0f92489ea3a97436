import type { BusClient } from '../../database/bus-client.ts'
import type { Database } from '../../database/database.ts'

/** How long a notification may take that was sent before the session answered: a proxy may delay it. */
const graceMs = 1000

/** Behind a pooler, the number of rounds that must succeed on one server process: a single one may succeed by accident. */
const pooledRounds = 3

/** Tests whether a connection is a real session: whether its settings, locks and LISTENs persist. */
export interface ListenTest {
  /** Starts to listen, and tests. @throws if the database fails or the session is lost, which says nothing about a pooler */
  start: () => Promise<boolean>
  /** Tests again, with two statements. @throws if a connection other than the session fails */
  repeat: () => Promise<boolean>
  /** Ends the session on the server, from another connection. */
  endSession: () => Promise<void>
}

/**
 * Sends a notification from another connection, then queries the session for its name. The server delivers pending
 * notifications before it answers, so a lost notification can be told from a slow one without waiting. The channel
 * belongs to this process alone, so a LISTEN that a pooler keeps does no harm.
 */
export function createListenTest(database: Database, session: BusClient, instanceId: string): ListenTest {
  const channel = `bus_test_${instanceId}`
  let backend: Backend | undefined
  let round = 0
  let received = -1
  let lost: unknown
  let onReceived: () => void = () => {}

  session.on('notification', ({ channel: arrivedOn, payload }) => {
    if (arrivedOn !== channel) return
    received = Number(payload)
    onReceived()
  })

  async function arrives(): Promise<boolean> {
    round += 1
    await database.query('select pg_notify($1, $2)', [channel, String(round)])
    // A session that is lost during the test has not passed.
    const current = await readBackend(session).catch((error: unknown) => {
      lost = error
      return undefined
    })
    if (current === undefined || current.pid !== backend?.pid || current.started !== backend.started)
      return false
    if (received !== round) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, graceMs).unref()
        onReceived = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
    return received === round
  }

  return {
    async start() {
      await session.query(`listen "${channel}"`)
      backend = await readBackend(session)
      // A pooler invents the process id that it reports to its clients.
      const rounds = backend?.pid === session.backendPid ? 1 : pooledRounds
      for (let passed = 0; passed < rounds; passed += 1) {
        if (await arrives()) continue
        if (lost !== undefined) throw lost
        // Unless the session was lost while it waited for the notification.
        await readBackend(session)
        return false
      }
      return true
    },
    repeat: arrives,
    async endSession() {
      if (backend === undefined) return
      await database.query(
        `select pg_terminate_backend(pid) from pg_stat_activity
         where pid = $1 and backend_start = $2::timestamptz and usename = session_user`,
        [backend.pid, backend.started],
      )
    },
  }
}

interface Backend extends Record<string, unknown> {
  readonly pid: number
  readonly started: string
}

async function readBackend(session: BusClient): Promise<Backend | undefined> {
  const { rows } = await session.query<Backend>(
    `select pg_backend_pid() as pid, (select backend_start::text from pg_stat_activity where pid = pg_backend_pid()) as started`,
  )
  return rows[0]
}
