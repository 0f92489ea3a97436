/**
 * Measures the reads of the ledger in a large database, by the public API.
 *
 *   node scripts/measure-ledger.ts [--events 5000000] [--waiting 1000000] [--dead 100000] [--subscriptions 1000]
 *
 * The database has a log of so many events, 115 a second, three subscriptions that have received them, and a fourth with waiting events
 * and dead letters. Another database has many subscriptions: each read is timed, and the locks that its statements hold are counted.
 */
import { parseArgs } from 'node:util'
import pg from 'pg'
import { z } from 'zod'
import { createBus, defineEvents, type Bus } from '../src/index.ts'
import { startOwnPostgres } from '../src/testing/postgres.ts'
import { behind, fillLargeDatabase, openLargeBus } from './large-database.ts'

const { values } = parseArgs({
  options: {
    events: { type: 'string', default: '5000000' },
    waiting: { type: 'string', default: '1000000' },
    dead: { type: 'string', default: '100000' },
    subscriptions: { type: 'string', default: '1000' },
  },
})
const eventCount = Number(values.events)
const waitingCount = Number(values.waiting)
const deadCount = Number(values.dead)
const subscriptionCount = Number(values.subscriptions)

const events = defineEvents({ 'order.placed': { schema: z.object({ n: z.number() }) } })
const server = await startOwnPostgres()

async function createDatabase(name: string): Promise<{ url: string; client: pg.Client }> {
  const admin = new pg.Client(server.url)
  await admin.connect()
  await admin.query(`create database ${name}`)
  await admin.end()
  const url = Object.assign(new URL(server.url), { pathname: `/${name}` }).toString()
  const client = new pg.Client(url)
  await client.connect()
  return { url, client }
}

const silent = { debug() {}, info() {}, warn() {}, error() {} }

function newBus(url: string): Bus<typeof events> {
  return createBus({ database: url, events, source: 'measure', logger: silent })
}

/** Milliseconds of some calls, sorted. */
async function time(count: number, call: (n: number) => Promise<unknown>): Promise<number[]> {
  const all: number[] = []
  for (let n = 0; n < count; n += 1) {
    const startedAt = performance.now()
    await call(n)
    all.push(performance.now() - startedAt)
  }
  return all.toSorted((a, b) => a - b)
}

const at = (sorted: readonly number[], share: number): string =>
  (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0).toFixed(1)

function report(what: string, sorted: readonly number[]): void {
  console.log(`${what}: p50 ${at(sorted, 0.5)} ms, p99 ${at(sorted, 0.99)} ms, most ${at(sorted, 1)} ms`)
}

async function measureLarge(): Promise<void> {
  const { url, client } = await createDatabase('large')
  const bus = openLargeBus(url)
  console.log(
    `${eventCount} events × 3 subscriptions received; in a fourth ${waitingCount} wait and ${deadCount} are dead letters`,
  )
  // At 115 events a second: five million are half a day.
  await fillLargeDatabase(client, url, {
    eventCount,
    waitingCount,
    deadCount,
    days: eventCount / 115 / 86_400,
  })
  const random = async (from: number, to: number): Promise<string> => {
    const n = from + Math.floor(Math.random() * (to - from))
    const { rows } = await client.query<{ id: string }>('select id from public.ids where n = $1', [n])
    return rows[0]?.id ?? ''
  }
  const kinds = {
    'received by three': [0, eventCount - waitingCount - deadCount, 3, 'delivered'],
    'a dead letter of the fourth': [
      eventCount - waitingCount - deadCount,
      eventCount - waitingCount,
      4,
      'dead',
    ],
    'waiting for the fourth': [eventCount - waitingCount, eventCount, 4, 'waiting'],
  } as const
  for (const [what, [from, to, rowCount, state]] of Object.entries(kinds)) {
    const ids: string[] = []
    while (ids.length < 500) ids.push(await random(from, to))
    report(
      `bus.deliveries(id), ${what}`,
      await time(ids.length, async (n) => {
        const found = await bus.deliveries(ids[n] ?? '')
        if (found.length !== rowCount || !found.some((delivery) => delivery.state === state))
          throw new Error(`Expected ${rowCount} rows, one ${state}, got ${JSON.stringify(found)}`)
      }),
    )
  }
  report(
    'deadLetters.list(), 100',
    await time(100, async () => {
      if ((await bus.deadLetters.list()).length !== 100) throw new Error('Expected 100 dead letters')
    }),
  )
  report(
    'deadLetters.list({ subscription: behind }), 100',
    await time(100, async () => bus.deadLetters.list({ subscription: behind })),
  )
  report(
    'deadLetters.groups()',
    await time(50, async () => {
      const groups = await bus.deadLetters.groups()
      if (groups.reduce((sum, { count }) => sum + count, 0) !== deadCount)
        throw new Error('Expected all dead letters')
    }),
  )
  report(
    "tenant('tenant-1').deadLetters.list(), 100",
    await time(50, async () => bus.tenant('tenant-1').deadLetters.list()),
  )
  await bus.stop()
  await client.end()
}

async function measureMany(): Promise<void> {
  const { url, client } = await createDatabase('many')
  const bus = newBus(url)
  await bus.migrate()
  for (let n = 0; n < subscriptionCount; n += 1)
    bus.subscribe({
      name: `subscription-${n}`,
      events: ['order.placed'],
      handler: async () => {},
      retry: { maxAttempts: 1 },
    })
  await bus.start()
  const published = await bus.tryPublish({ type: 'order.placed', tenantId: 'acme', payload: { n: 1 } })
  const id = published?.id ?? ''
  while ((await bus.deliveries(id)).filter(({ state }) => state === 'delivered').length < subscriptionCount)
    await new Promise((resolve) => setTimeout(resolve, 500))
  await bus.stop()
  const reader = newBus(url)
  const reads: Record<string, () => Promise<unknown>> = {
    'bus.deliveries(id)': async () => reader.deliveries(id),
    'bus.events.find()': async () => reader.events.find(),
    'subscriptions.list()': async () => reader.subscriptions.list(),
    'deadLetters.list()': async () => reader.deadLetters.list(),
    'deadLetters.groups()': async () => reader.deadLetters.groups(),
    'blockedKeys.list()': async () => reader.blockedKeys.list(),
    'bus.health()': async () => reader.health(),
    'bus.health({ full })': async () => reader.health({ full: true }),
    "bus.stats({ by: 'subscription' })": async () => reader.stats({ by: 'subscription' }),
    "tenant('acme').deliveries(id)": async () => reader.tenant('acme').deliveries(id),
    "tenant('acme').stats()": async () => reader.tenant('acme').stats(),
    "tenant('acme').deadLetters.list()": async () => reader.tenant('acme').deadLetters.list(),
  }
  console.log(`${subscriptionCount} subscriptions`)
  for (const [what, read] of Object.entries(reads)) {
    await read()
    report(what, await time(5, read))
    // Sampled while the read is repeated, because it may be over before a sample is taken.
    let locks = 0
    let isDone = false
    const reading = (async () => {
      for (const endAt = performance.now() + 1500; performance.now() < endAt;) await read()
    })().finally(() => (isDone = true))
    while (!isDone) {
      const { rows } = await client.query<{ locks: number }>(
        `select coalesce(max(n), 0)::int as locks from (
           select count(*) as n from pg_locks where locktype = 'relation' and pid <> pg_backend_pid() group by pid) l`,
      )
      locks = Math.max(locks, rows[0]?.locks ?? 0)
    }
    await reading
    console.log(`  locks seen: ${locks}`)
  }
  await reader.stop()
  await client.end()
}

await measureLarge()
await measureMany()
await server.stop()
