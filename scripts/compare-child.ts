/** Publishes and delivers events with the bus of a checkout. Called by compare.ts: checkout, database URL, subscribers, events, postmaster. */
import { pathToFileURL } from 'node:url'
import { drizzle } from 'drizzle-orm/postgres-js'
import postgres from 'postgres'
import { z } from 'zod'
import type * as index from '../src/index.ts'
import { makePayload, publishInBatches, waitUntil } from './bench/contestant.ts'
import { serverCpuMs } from './server-cpu.ts'

export interface CompareResult {
  readonly durationMs: number
  /** Of this process and of the server, from the first event on. */
  readonly cpuMs: number
  readonly walBytes: number
  /** Events before the measurement. */
  readonly warmUpCount: number
}

const [checkout = '', url = '', subscribers = '', events = '', postmaster = ''] = process.argv.slice(2)
const { createBus, defineEvents } = (await import(
  pathToFileURL(`${checkout}/src/index.ts`).href
)) as typeof index
const eventCount = Number(events)
const subscriberCount = Number(subscribers)
const payloadBytes = 200
const pollMs = 20

const catalogue = defineEvents({
  'order.placed': { schema: z.object({ number: z.number(), note: z.string() }) },
})
const bus = createBus({ database: url, events: catalogue, source: 'compare' })
await bus.migrate()
let handledCount = 0
for (let n = 0; n < subscriberCount; n += 1)
  bus.subscribe({
    name: `subscriber-${n}`,
    events: ['order.placed'],
    handler: () => void (handledCount += 1),
  })
await bus.start()
const client = postgres(url, { max: 2, onnotice: () => {} })
const db = drizzle(client)

async function publish(from: number, to: number): Promise<void> {
  const batch = Array.from({ length: to - from }, (_, n) => ({
    type: 'order.placed' as const,
    tenantId: `tenant-${n % 10}`,
    payload: makePayload(from + n, payloadBytes),
  }))
  await db.transaction(async (tx) => bus.publishMany(tx, batch))
}

async function isSettled(): Promise<boolean> {
  const [row] = await client<{ settled: boolean }[]>`
    select not exists (select from bus.outbox) and not exists (select from pgboss.job where state < 'completed') as settled`
  return row?.settled === true
}

async function walPosition(): Promise<number> {
  const [row] = await client<
    { bytes: number }[]
  >`select (pg_current_wal_insert_lsn() - '0/0')::float8 as bytes`
  return row?.bytes ?? 0
}

// Once before the measurement, so that both start with compiled code and open connections.
const warmUpCount = 1000
await publishInBatches(warmUpCount, publish, 1)
await waitUntil(async () => handledCount >= warmUpCount * subscriberCount && (await isSettled()), pollMs)
handledCount = 0
const walBefore = await walPosition()
const serverBefore = await serverCpuMs(Number(postmaster))
const cpuBefore = process.cpuUsage()
const startedAt = performance.now()
await publishInBatches(eventCount, publish)
await waitUntil(async () => handledCount >= eventCount * subscriberCount && (await isSettled()), pollMs)
const durationMs = performance.now() - startedAt
const { user, system } = process.cpuUsage(cpuBefore)
const serverMs = (await serverCpuMs(Number(postmaster))) - serverBefore
const walBytes = (await walPosition()) - walBefore
await bus.stop()
await client.end()
const result: CompareResult = { durationMs, cpuMs: (user + system) / 1000 + serverMs, walBytes, warmUpCount }
console.log(JSON.stringify(result))
