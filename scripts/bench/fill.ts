import type { BenchDatabase, Session } from './server.ts'
import type { Bench } from './workload.ts'

/** Rows per statement: large enough to be fast, small enough to be interruptible. */
const chunkSize = 50_000

/** Publishes events by plain SQL, `insert into bus.events`, in two concurrent sessions. */
export async function fillWithEvents(database: BenchDatabase, eventCount: number): Promise<void> {
  let next = 0
  async function fill(): Promise<void> {
    const session = await database.openSession()
    while (next < eventCount) {
      const from = next
      next = Math.min(eventCount, from + chunkSize)
      await publishBySql(session, from, next)
    }
    await session.close()
  }
  await Promise.all([fill(), fill()])
}

/** Publishes the events of a range in one statement. */
export async function publishBySql(session: Session, from: number, to: number): Promise<void> {
  await session.query(
    `insert into bus.events (tenant_id, type, source, payload)
     select 'tenant-' || n % 10, 'order.placed', 'bench', jsonb_build_object('number', n, 'note', repeat('x', 170))
     from generate_series($1::int, $2::int - 1) n`,
    [from, to],
  )
}

/** Creates a database in which this many events wait for this many subscriptions, and no bus runs. */
export async function createWaitingDatabase(
  bench: Bench,
  eventCount: number,
  subscriptionCount: number,
): Promise<BenchDatabase> {
  return bench.server.createPreparedDatabase(
    `${eventCount} waiting for ${subscriptionCount}`,
    async (database) => {
      if (eventCount > 0)
        bench.progress(`  filling a database with ${eventCount.toLocaleString('en-US')} events`)
      await registerSubscriptions(bench, database, subscriptionCount)
      await fillWithEvents(database, eventCount)
      await database.query('vacuum analyze')
    },
  )
}

/** Subscriptions are registered by a bus that starts with them. */
async function registerSubscriptions(
  bench: Bench,
  { url }: BenchDatabase,
  subscriptionCount: number,
): Promise<void> {
  const child = bench.startChild('bus.ts')
  try {
    await child.call('start', { url, subscriptionCount })
    await child.call('stop')
  } finally {
    await child.end()
  }
}
