import { drizzle } from 'drizzle-orm/postgres-js'
import postgres from 'postgres'
import { createBus } from '../../../src/index.ts'
import { benchEvents } from '../catalogue.ts'
import {
  makePayload,
  publishInBatches,
  publisherCount,
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
  const bus = createBus({ database: url, events: benchEvents, source: 'bench' })
  await bus.migrate()
  let handled = 0
  for (let i = 0; i < subscriberCount; i += 1) {
    bus.subscribe({ name: `subscriber-${i}`, events: ['order.placed'], handler: () => void (handled += 1) })
  }
  await bus.start()
  const client = postgres(url, { max: publisherCount })
  const db = drizzle(client)
  const [before] = await client<{ count: string }[]>`select count(*) from bus.deliveries`
  const start = performance.now()
  await publishInBatches(eventCount, async (from, to) => {
    const batch = Array.from({ length: to - from }, (_, i) => ({
      type: 'order.placed' as const,
      tenantId: `tenant-${i % 10}`,
      payload: makePayload(from + i, payloadBytes),
    }))
    await db.transaction(async (tx) => bus.publishMany(tx, batch))
  })
  const publishMs = performance.now() - start
  const expected = eventCount * subscriberCount
  await waitUntil(() => handled >= expected)
  await waitUntil(async () => {
    const [row] = await client<{ done: boolean }[]>`
      select (select count(*) from bus.deliveries) >= ${Number(before?.count) + expected}
        and not exists (select from pgboss.job where state < 'completed') as done`
    return row?.done === true
  })
  const totalMs = performance.now() - start
  await bus.stop()
  await client.end()
  return { publishMs, totalMs }
}
