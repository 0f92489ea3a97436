/**
 * Compares this checkout with another one, in turn on one PostgreSQL: events a second, the processor time of the process and of the server
 * for each event (Linux), the write-ahead log of each event, and the disk that the receipt of each delivery takes after a vacuum.
 *
 *   node scripts/compare.ts <folder of the other checkout> [--subscribers 1,3,10] [--events 20000] [--rounds 5]
 */
import { execFile } from 'node:child_process'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs, promisify } from 'node:util'
import { createDatabase, dropDatabase } from '../src/testing/databases.ts'
import postgres from 'postgres'
import { startOwnPostgres } from '../src/testing/postgres.ts'
import { median } from './bench/statistics.ts'
import type { CompareResult } from './compare-child.ts'

const { values, positionals } = parseArgs({
  options: {
    subscribers: { type: 'string', default: '1,3,10' },
    events: { type: 'string', default: '20000' },
    rounds: { type: 'string', default: '5' },
  },
  allowPositionals: true,
})
const [other] = positionals
if (other === undefined) throw new Error('Expected the folder of another checkout')
const checkouts = { before: resolve(other), after: fileURLToPath(new URL('..', import.meta.url)) } as const
const rounds = Number(values.rounds)
const eventCount = Number(values.events)
const child = fileURLToPath(new URL('compare-child.ts', import.meta.url))

interface Round {
  readonly eventsPerSecond: number
  /** Of the process and of the server. */
  readonly cpuUs: number
  /** Of an event: publishing and all its deliveries. Full pages that are written after a checkpoint are left out. */
  readonly walBytes: number
  /** Of a delivery: its receipt, and its share of the indexes. */
  readonly receiptBytes: number
}

/** Of the tables with receipts, of this version or an earlier one. */
const receiptBytesSql = `
  select coalesce(sum(pg_total_relation_size(c.oid)), 0)::float8 as bytes from pg_class c
  where c.relnamespace = 'bus'::regnamespace and c.relkind = 'r' and c.relname ~ '^(deliveries|receipts|receipt_batches|attempts|failing)(_|$)'
    and pg_relation_size(c.oid) > 0`

async function measure(
  checkout: string,
  subscriberCount: number,
  server: { readonly url: string; readonly postmaster: number },
): Promise<Round> {
  const name = `compare_${Date.now()}`
  const url = await createDatabase(server.url, name)
  try {
    const { stdout } = await promisify(execFile)(process.execPath, [
      child,
      checkout,
      url,
      `${subscriberCount}`,
      `${eventCount}`,
      `${server.postmaster}`,
    ])
    const result = JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as CompareResult
    const client = postgres(url, { max: 1, onnotice: () => {} })
    await client.unsafe('vacuum')
    const [receipts] = await client.unsafe<{ bytes: number }[]>(receiptBytesSql)
    await client.end()
    return {
      eventsPerSecond: (eventCount / result.durationMs) * 1000,
      cpuUs: (result.cpuMs / eventCount) * 1000,
      walBytes: result.walBytes / eventCount,
      receiptBytes: (receipts?.bytes ?? 0) / ((eventCount + result.warmUpCount) * subscriberCount),
    }
  } finally {
    await dropDatabase(server.url, name)
  }
}

function describe(all: readonly Round[], key: keyof Round): string {
  const sorted = all.map((round) => round[key]).toSorted((a, b) => a - b)
  return `${Math.round(median(sorted))} (${Math.round(sorted[0] ?? 0)}–${Math.round(sorted.at(-1) ?? 0)})`
}

const server = await startOwnPostgres()
{
  // Full pages depend on when a checkpoint comes.
  const admin = postgres(server.url, { max: 1 })
  await admin.unsafe(`alter system set full_page_writes = off`)
  await admin.unsafe('select pg_reload_conf()')
  await admin.end()
}
const postmaster = await server.process.pid()
console.log(`${rounds} rounds of ${eventCount} events; median (lowest–highest)`)
for (const subscriberCount of values.subscribers.split(',').map(Number)) {
  const results: Record<keyof typeof checkouts, Round[]> = { before: [], after: [] }
  for (let round = 0; round < rounds; round += 1) {
    // Each round in the other order, so that neither always follows the other.
    const order = round % 2 === 0 ? (['before', 'after'] as const) : (['after', 'before'] as const)
    for (const side of order)
      results[side].push(await measure(checkouts[side], subscriberCount, { url: server.url, postmaster }))
  }
  const ratios = (key: keyof Round): number[] =>
    results.before.map((round, index) => (results.after[index]?.[key] ?? 0) / round[key])
  for (const side of ['before', 'after'] as const)
    console.log(
      `S = ${subscriberCount}, ${side}: ${describe(results[side], 'eventsPerSecond')} events/s, ${describe(results[side], 'cpuUs')} µs of processor time and ${describe(results[side], 'walBytes')} bytes of WAL an event, ${describe(results[side], 'receiptBytes')} bytes of disk a receipt`,
    )
  console.log(
    `S = ${subscriberCount}, after / before: events/s ${median(ratios('eventsPerSecond')).toFixed(3)}, processor time ${median(ratios('cpuUs')).toFixed(3)}, WAL ${median(ratios('walBytes')).toFixed(3)}`,
  )
}
await server.stop()
