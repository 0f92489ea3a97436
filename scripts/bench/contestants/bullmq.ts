import { Queue, Worker } from 'bullmq'
import { Redis } from 'ioredis'
import {
  makePayload,
  publishInBatches,
  waitUntil,
  type ThroughputResult,
  type ThroughputTask,
} from '../contestant.ts'
import { NotAvailableError } from '../not-available.ts'

export async function throughput({
  eventCount,
  subscriberCount,
  payloadBytes,
}: ThroughputTask): Promise<ThroughputResult> {
  const connection = await connect(process.env['REDIS_URL'] ?? 'redis://127.0.0.1:6379')
  // A separate prefix, so that other data on this Redis is not touched.
  const prefix = `bossbus-bench-${process.pid}`
  const names = Array.from({ length: subscriberCount }, (_, i) => `subscriber-${i}`)
  const queues = names.map((name) => new Queue(name, { connection, prefix }))
  let handled = 0
  const workers = names.map(
    (name) =>
      new Worker(name, async () => void (handled += 1), {
        connection,
        prefix,
        concurrency: 100,
        removeOnComplete: { count: 0 },
      }),
  )
  for (const queue of queues) queue.on('error', (error) => console.error(error.message))
  for (const worker of workers) worker.on('error', (error) => console.error(error.message))
  try {
    await Promise.all([...queues, ...workers].map(async (each) => each.waitUntilReady()))
    const start = performance.now()
    await publishInBatches(eventCount, async (from, to) => {
      await Promise.all(
        queues.map(async (queue) =>
          queue.addBulk(
            Array.from({ length: to - from }, (_, i) => ({
              name: 'order.placed',
              data: makePayload(from + i, payloadBytes),
            })),
          ),
        ),
      )
    })
    const publishMs = performance.now() - start
    await waitUntil(() => handled >= eventCount * subscriberCount)
    await waitUntil(async () => {
      const counts = await Promise.all(queues.map(async (queue) => queue.getJobCounts('wait', 'active')))
      return counts.every(({ wait, active }) => wait === 0 && active === 0)
    })
    const totalMs = performance.now() - start
    return { publishMs, totalMs }
  } finally {
    await Promise.all(workers.map(async (worker) => worker.close()))
    for (const queue of queues) {
      await queue.obliterate({ force: true })
      await queue.close()
    }
    connection.disconnect()
  }
}

async function connect(url: string): Promise<Redis> {
  const connection = new Redis(url, {
    lazyConnect: true,
    connectTimeout: 2000,
    maxRetriesPerRequest: null,
    retryStrategy: () => null,
  })
  connection.on('error', () => {})
  try {
    await connection.connect()
    return connection
  } catch (error) {
    throw new NotAvailableError(
      `no Redis answers at ${url} (REDIS_URL): ${error instanceof Error ? error.message : String(error)}`,
    )
  }
}
