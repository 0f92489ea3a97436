import pg from 'pg'
import { PgBoss } from 'pg-boss'
import { onTestFinished } from 'vitest'
import type { JobData } from '../../src/delivery/jobs/job.ts'

/** A pg-boss of the test's own, beside the bus's: to take jobs as another worker would. */
export async function openBoss(url: string): Promise<PgBoss> {
  const boss = new PgBoss({
    connectionString: url,
    supervise: false,
    schedule: false,
    migrate: false,
    registerInstance: false,
  })
  boss.on('error', () => {})
  await boss.start()
  onTestFinished(async () => boss.stop({ graceful: false }))
  return boss
}

/** Takes the jobs of a queue as a worker does that dies at once: they stay active, and nobody is heard of any more. */
export async function takeAndDie(url: string, queue: string): Promise<JobData[]> {
  const boss = await openBoss(url)
  const jobs = await boss.fetch<JobData>(queue, { batchSize: 100 })
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  await client.query(
    `update pgboss.job set heartbeat_on = now() - interval '1 hour' where name = $1 and state = 'active'`,
    [queue],
  )
  await client.end()
  return jobs.map(({ data }) => data)
}
