import { Logger, makeWorkerUtils, run } from 'graphile-worker'
import pg from 'pg'
import {
  makePayload,
  publishInBatches,
  waitUntil,
  type ThroughputResult,
  type ThroughputTask,
} from '../contestant.ts'

/** The settings of the fastest run on graphile-worker's own performance page, and the pool size that it recommends. */
const worker = {
  concurrentJobs: 24,
  maxPoolSize: 26,
  localQueue: { size: 500 },
  completeJobBatchDelay: 0,
  failJobBatchDelay: 0,
} as const

export async function throughput({
  url,
  eventCount,
  subscriberCount,
  payloadBytes,
}: ThroughputTask): Promise<ThroughputResult> {
  const logger = new Logger(() => () => {})
  const pgPool = new pg.Pool({ connectionString: url, max: worker.maxPoolSize })
  pgPool.on('error', () => {})
  pgPool.on('connect', (client) => client.on('error', () => {}))
  const utils = await makeWorkerUtils({ pgPool, logger })
  await utils.migrate()
  const subscribers = Array.from({ length: subscriberCount }, (_, i) => `subscriber-${i}`)
  let handled = 0
  const runner = await run({
    pgPool,
    logger,
    noHandleSignals: true,
    preset: { worker },
    taskList: Object.fromEntries(subscribers.map((name) => [name, () => void (handled += 1)])),
  })
  const start = performance.now()
  await publishInBatches(eventCount, async (from, to) => {
    await Promise.all(
      subscribers.map(async (identifier) =>
        utils.addJobs(
          Array.from({ length: to - from }, (_, i) => ({
            identifier,
            payload: makePayload(from + i, payloadBytes),
          })),
        ),
      ),
    )
  })
  const publishMs = performance.now() - start
  await waitUntil(() => handled >= eventCount * subscriberCount)
  await waitUntil(async () => {
    const { rows } = await pgPool.query<{ done: boolean }>(
      'select not exists (select from graphile_worker._private_jobs) as done',
    )
    return rows[0]?.done === true
  })
  const totalMs = performance.now() - start
  await runner.stop()
  await utils.release()
  await pgPool.end()
  return { publishMs, totalMs }
}
