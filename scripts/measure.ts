/**
 * Measures a bus on a separate PostgreSQL, through the public API: the latency from commit to handler on an idle
 * system, then the rates of publishing and delivery.
 *
 *   npm run measure                     both, with the sizes of the README
 *   npm run measure -- --events 5000 --latency-events 50 --json
 */
import { parseArgs } from 'node:util'
import { drizzle } from 'drizzle-orm/postgres-js'
import postgres from 'postgres'
import { z } from 'zod'
import { createBus, defineEvents, type Bus } from '../src/index.ts'
import { createDatabase } from '../src/testing/databases.ts'
import { startPostgres } from '../src/testing/postgres.ts'

const { values } = parseArgs({
  options: {
    events: { type: 'string', default: '50000' },
    subscriptions: { type: 'string', default: '3' },
    'latency-events': { type: 'string', default: '500' },
    json: { type: 'boolean', default: false },
  },
})
const eventCount = Number(values.events)
const subscriptionCount = Number(values.subscriptions)
const latencyCount = Number(values['latency-events'])

const events = defineEvents({
  'order.placed': { schema: z.object({ number: z.number(), note: z.string() }) },
})
const note = 'x'.repeat(160)

async function waitFor(condition: () => boolean, timeoutMs: number): Promise<void> {
  const deadline = performance.now() + timeoutMs
  while (!condition()) {
    if (performance.now() > deadline) throw new Error('timed out')
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
}

function percentile(sorted: readonly number[], p: number): number {
  return sorted[Math.min(sorted.length - 1, Math.ceil((p / 100) * sorted.length) - 1)] ?? Number.NaN
}

async function measureLatency(url: string): Promise<{ p50Ms: number; p99Ms: number; maxMs: number }> {
  let handledAt: ((now: number) => void) | undefined
  const bus = createBus({ database: url, events, source: 'measure' })
  await bus.migrate()
  bus.subscribe({ name: 'latency', events: ['order.placed'], handler: () => handledAt?.(performance.now()) })
  await bus.start()
  const client = postgres(url, { max: 1 })
  const db = drizzle(client)
  const latencies: number[] = []
  const warmUp = 20
  for (let number = 0; number < latencyCount + warmUp; number += 1) {
    const handled = new Promise<number>((resolve) => {
      handledAt = resolve
    })
    await db.transaction(async (tx) => {
      await bus.publish(tx, { type: 'order.placed', tenantId: 'acme', payload: { number, note } })
    })
    const committed = performance.now()
    const latency = (await handled) - committed
    if (number >= warmUp) latencies.push(latency)
    // The relay must be asleep again, because an idle system is measured.
    await new Promise((resolve) => setTimeout(resolve, 15))
  }
  await client.end()
  await bus.stop()
  latencies.sort((a, b) => a - b)
  return {
    p50Ms: percentile(latencies, 50),
    p99Ms: percentile(latencies, 99),
    maxMs: latencies.at(-1) ?? Number.NaN,
  }
}

interface Throughput {
  readonly publishPerSecond: number
  readonly deliverPerSecond: number
  readonly allInEventsPerSecond: number
  readonly receipts: number
}

/** Publishes first without delivery, then delivers: two rates. */
async function measureThroughput(url: string): Promise<Throughput> {
  const publisher: Bus<typeof events> = createBus({ database: url, events, source: 'measure' })
  await publisher.migrate()
  let deliveries = 0
  const consumer = createBus({ database: url, events, source: 'measure' })
  for (let i = 0; i < subscriptionCount; i += 1) {
    consumer.subscribe({
      name: `subscriber-${i}`,
      events: ['order.placed'],
      handler: () => void (deliveries += 1),
    })
  }
  const client = postgres(url, { max: 4 })
  const db = drizzle(client)
  const publishStart = performance.now()
  for (let from = 0; from < eventCount; from += 500) {
    const batch = Array.from({ length: Math.min(500, eventCount - from) }, (_, i) => ({
      type: 'order.placed' as const,
      tenantId: `tenant-${i % 10}`,
      payload: { number: from + i, note },
    }))
    await db.transaction(async (tx) => {
      await publisher.publishMany(tx, batch)
    })
  }
  const publishMs = performance.now() - publishStart
  await publisher.stop()

  const expected = eventCount * subscriptionCount
  const deliverStart = performance.now()
  await consumer.start()
  let receipts = 0
  while (receipts < expected) {
    await waitFor(() => deliveries >= expected, 120_000)
    const rows = await client<{ count: string }[]>`select count(*) from bus.deliveries`
    receipts = Number(rows[0]?.count)
  }
  const deliverMs = performance.now() - deliverStart
  await consumer.stop()
  await client.end()
  return {
    publishPerSecond: (eventCount / publishMs) * 1000,
    deliverPerSecond: (expected / deliverMs) * 1000,
    allInEventsPerSecond: (eventCount / (publishMs + deliverMs)) * 1000,
    receipts,
  }
}

const server = await startPostgres()
try {
  const latency = await measureLatency(await createDatabase(server.url, `measure_latency_${process.pid}`))
  const throughput = await measureThroughput(
    await createDatabase(server.url, `measure_throughput_${process.pid}`),
  )
  if (values.json) {
    console.log(
      JSON.stringify({
        server: server.description,
        eventCount,
        subscriptionCount,
        latencyCount,
        latency,
        throughput,
      }),
    )
  } else {
    console.log(`on ${server.description}`)
    console.log(
      `latency, idle, ${latencyCount} events: p50 ${latency.p50Ms.toFixed(1)} ms, p99 ${latency.p99Ms.toFixed(1)} ms, max ${latency.maxMs.toFixed(1)} ms`,
    )
    console.log(`publishMany(500), ${eventCount} events: ${Math.round(throughput.publishPerSecond)} events/s`)
    console.log(
      `deliver to ${subscriptionCount} subscriptions: ${Math.round(throughput.deliverPerSecond)} deliveries/s, ${throughput.receipts} receipts`,
    )
    console.log(`publish and deliver: ${Math.round(throughput.allInEventsPerSecond)} events/s`)
  }
} finally {
  await server.stop()
}
