import pg from 'pg'
import { PgBoss } from 'pg-boss'
import {
  makePayload,
  publishInBatches,
  waitUntil,
  type ThroughputResult,
  type ThroughputTask,
} from '../contestant.ts'

export async function throughput({
  url,
  eventCount,
  subscriberCount,
  payloadBytes,
}: ThroughputTask): Promise<ThroughputResult> {
  const boss = new PgBoss({ connectionString: url, useListenNotify: true, schedule: false, max: 10 })
  boss.on('error', (error) => console.error(error.message))
  await boss.start()
  const queues = Array.from({ length: subscriberCount }, (_, i) => `subscriber-${i}`)
  let handled = 0
  for (const queue of queues) {
    await boss.createQueue(queue, { partition: true, notify: true })
    await boss.work(
      queue,
      { batchSize: 500, burstWhenBatchFull: true, localConcurrency: 2 },
      async (jobs) => {
        handled += jobs.length
      },
    )
  }
  const start = performance.now()
  await publishInBatches(eventCount, async (from, to) => {
    const jobs = Array.from({ length: to - from }, (_, i) => ({
      data: makePayload(from + i, payloadBytes),
    }))
    await Promise.all(queues.map(async (queue) => boss.insert(queue, jobs)))
  })
  const publishMs = performance.now() - start
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  await waitUntil(() => handled >= eventCount * subscriberCount)
  await waitUntil(async () => {
    const { rows } = await client.query<{ done: boolean }>(
      `select not exists (select from pgboss.job where state < 'completed') as done`,
    )
    return rows[0]?.done === true
  })
  const totalMs = performance.now() - start
  await client.end()
  await boss.stop({ graceful: false })
  return { publishMs, totalMs }
}
