import type { BusClient } from '../../database/bus-client.ts'
import type { Database } from '../../database/database.ts'

/** How long a notification may take that was sent before the session answered: a proxy may deliver it later. */
const graceMs = 1000

/** Behind a pooler, rounds that must succeed on one server process: there, one may succeed by accident. */
const pooledRounds = 3

/** Tests whether a connection is a session: whether what is set, locked and listened to on it stays with it. */
export interface ListenTest {
  /** Begins to listen, and tests. @throws when the database fails, or the session is lost: that says nothing of a pooler */
  start: () => Promise<boolean>
  /** Tests again, with two statements. @throws when another connection than the session fails */
  repeat: () => Promise<boolean>
  /** Ends the session on the server, from another connection. */
  endSession: () => Promise<void>
}

/**
 * A notification is sent from another connection, then the session is asked for its name. The server delivers what it
 * has before it answers, so that no waiting tells a lost notification from a slow one. The channel is this process's
 * own: what a pooler keeps of the LISTEN hurts nobody.
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
    // A session that is lost meanwhile did not pass.
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
      // A pooler makes up the process id it gives its clients.
      const rounds = backend?.pid === session.backendPid ? 1 : pooledRounds
      for (let passed = 0; passed < rounds; passed += 1) {
        if (await arrives()) continue
        if (lost !== undefined) throw lost
        // Or it was lost while the notification was waited for.
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
