import pg from 'pg'
import { onTestFinished } from 'vitest'
import { until, type TestDatabase } from './database.ts'

/** One connection of a test's own, for transactions, settings and locks. Closed when the test is over. */
export interface Session {
  readonly client: pg.Client
  readonly rows: TestDatabase['rows']
  /** Resolves once the session's statement waits for a lock that another one holds. */
  readonly waits: (what: string) => Promise<void>
}

export async function openSession({ url, count }: Pick<TestDatabase, 'url' | 'count'>): Promise<Session> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => {})
  await client.connect()
  onTestFinished(async () => client.end())
  const rows: Session['rows'] = async (text, values = []) =>
    (await client.query<Record<string, unknown>>(text, [...values])).rows
  const [backend] = await rows('select pg_backend_pid() as pid')
  return {
    client,
    rows,
    waits: async (what) =>
      until(
        what,
        async () =>
          (await count(`select count(*) from pg_stat_activity where pid = $1 and wait_event_type = 'Lock'`, [
            backend?.['pid'],
          ])) === 1,
      ),
  }
}
