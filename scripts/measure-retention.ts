/**
 * Measures retention on a PostgreSQL of its own, while publishers go on.
 *
 *   node scripts/measure-retention.ts [--events 1000000] [--publishers 3]
 *
 * Two months of so many events each. One is dropped with nobody in the way; the other one with a reader that holds the log and the ledger
 * for two seconds, after it was archived. Then a default partition of as many events becomes a partition of its own, and old keys are
 * deleted. For each: how long it took, and how long the slowest publisher waited.
 */
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import pg from 'pg'
import { z } from 'zod'
import { archiveToFolder, createBus, defineEvents, type RetentionOptions } from '../src/index.ts'
import { startOwnPostgres } from '../src/testing/postgres.ts'

const { values } = parseArgs({
  options: { events: { type: 'string', default: '1000000' }, publishers: { type: 'string', default: '3' } },
})
const eventCount = Number(values.events)
const publisherCount = Number(values.publishers)
const events = defineEvents({ 'order.placed': { schema: z.object({ n: z.number() }) } })
const silent = { debug() {}, info() {}, warn() {}, error() {} }
const server = await startOwnPostgres()
const pool = new pg.Pool({ connectionString: server.url, max: publisherCount + 3 })
const folder = await mkdtemp(join(tmpdir(), 'bossbus-measure-'))

function newBus(retention?: RetentionOptions) {
  return createBus({ database: server.url, events, source: 'measure', logger: silent, retention })
}

const ledgerTables = ['events', 'receipts', 'receipt_batches', 'attempts'] as const

/** The first moment of the month so many months ago. */
function month(ago: number): Date {
  const now = new Date()
  return new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() - ago))
}

const nameOf = (date: Date): string => date.toISOString().slice(0, 7).replace('-', '_')

const idOf = (moment: string): string =>
  `(left(bus.uuid_v7_floor(${moment})::text, 14) || '7' || substr(gen_random_uuid()::text, 16))::uuid`

async function fill(table: string, from: Date, seconds: number): Promise<void> {
  const client = await pool.connect()
  await client.query(`set session_replication_role = replica`)
  await client.query(
    `insert into bus.events (id, tenant_id, type, source, subject, payload)
     select ${idOf(`'${from.toISOString()}'::timestamptz + n * interval '1 second' * ${seconds / eventCount}`)}, 'tenant-' || n % 1000, 'order.placed', 'measure',
       'customer-' || n % 50000, jsonb_build_object('n', n, 'text', repeat('x', 160))
     from generate_series(1, ${eventCount}) n`,
  )
  await client.query(
    `insert into bus.receipt_batches (subscription_id, event_id, last_event_id, event_ids, durations_ms)
     select s, (array_agg(e.id order by e.id))[1], (array_agg(e.id order by e.id desc))[1], array_agg(e.id order by e.id), array_agg(1::real)
     from ${table} e cross join generate_series(1, 3) s group by s, bus.receipt_span_floor(e.id)`,
  )
  await client.query('set session_replication_role = default')
  client.release()
}

async function makeMonth(ago: number): Promise<void> {
  const [from, to] = [month(ago), month(ago - 1)]
  for (const table of ledgerTables)
    await pool.query(`do $$ begin execute format('create table bus.${table}_${nameOf(from)} partition of bus.${table} for values from (%L) to (%L)',
      bus.uuid_v7_floor('${from.toISOString()}'), bus.uuid_v7_floor('${to.toISOString()}')); end $$`)
  await fill(`bus.events_${nameOf(from)}`, from, 27 * 86_400)
  await pool.query(`vacuum analyze bus.events_${nameOf(from)}`)
}

/**
 * Publishes one event after the other while something is done, and says how long that took and how long publishers waited.
 *
 * @param work - calls `next` where another part of it begins, which is told apart
 */
async function beside(what: string, work: (next: (part: string) => void) => Promise<unknown>): Promise<void> {
  const bus = newBus()
  let isDone = false
  let waits: number[] = []
  const publishers = Array.from({ length: publisherCount }, async (_, n) => {
    const client = await pool.connect()
    while (!isDone) {
      const startedAt = performance.now()
      await client.query('begin')
      await client.query(
        `select bus.publish('[{"tenantId": "a", "type": "order.placed", "source": "measure", "payload": {"n": ${n}}}]')`,
      )
      await client.query('commit')
      waits.push(performance.now() - startedAt)
      await pause(2)
    }
    client.release()
  })
  await pause(300)
  let part = what
  let beganAt = performance.now()
  waits = []
  const tell = (): void => {
    const sorted = waits.toSorted((a, b) => a - b)
    const at = (share: number): string => (sorted[Math.floor(sorted.length * share)] ?? 0).toFixed(1)
    console.log(
      `${part}: ${(performance.now() - beganAt).toFixed(0)} ms; ${sorted.length} publishes, p50 ${at(0.5)}, p99 ${at(0.99)}, slowest ${(sorted.at(-1) ?? 0).toFixed(1)} ms`,
    )
  }
  await work((next) => {
    tell()
    part = next
    beganAt = performance.now()
    waits = []
  })
  isDone = true
  await Promise.all(publishers)
  tell()
  await bus.stop()
}

const setUp = newBus()
await setUp.migrate()
await setUp.stop()
console.log(`${eventCount} events in each month, 3 subscriptions, ${publisherCount} publishers`)
await makeMonth(5)
await beside('nothing is done for 3 s', async () => pause(3000))

const plain = newBus({ logDays: 60 })
await beside('a month is dropped', async () => plain.prune({ by: 'measure' }))
await plain.stop()

await makeMonth(4)
const archive = archiveToFolder(folder)
const archiving = newBus({ logDays: 60, archive })
const reader = await pool.connect()
await beside('a month is archived', async (next) => {
  const pruned = archiving.prune({ by: 'measure' })
  for (let isArchived = false; !isArchived;) {
    const { rows } = await pool.query<{ archived: boolean }>(
      `select exists (select from bus.archives where state = 'archived') as archived`,
    )
    isArchived = rows[0]?.archived === true
    await pause(5)
  }
  await reader.query('begin')
  for (const table of ledgerTables) await reader.query(`select from bus.${table} limit 1`)
  next('and dropped, with a reader of 2 s in the way')
  void pause(2000).then(async () => reader.query('commit'))
  await pruned
})
const files = await readdir(folder, { recursive: true })
const sizes = await Promise.all(files.map(async (file) => stat(join(folder, file))))
const bytes = sizes.reduce((sum, each) => sum + (each.isFile() ? each.size : 0), 0)
console.log(`  ${sizes.filter((each) => each.isFile()).length} files, ${Math.round(bytes / 1024 / 1024)} MB`)
await archiving.stop()

for (const table of ledgerTables) await pool.query(`drop table bus.${table}_${nameOf(month(0))}`)
await fill('bus.events_default', month(0), Math.max(1, (Date.now() - month(0).getTime()) / 1000 - 60))
const adopting = newBus()
await beside('the default partition of this month becomes a partition', async () =>
  adopting.prune({ by: 'measure' }),
)
const { rows: left } = await pool.query<{ count: string }>('select count(*) from bus.events_default')
console.log(`  ${left[0]?.count ?? ''} events are left in the default partition`)

await pool.query(
  `insert into bus.event_keys (tenant_id, kind, key, event_id, created_at)
   select 'tenant-' || n % 1000, 'event_id', 'key-' || n, bus.uuid_v7(), now() - case when n % 2 = 0 then interval '40 days' else interval '1 day' end
   from generate_series(1, ${eventCount}) n`,
)
await pool.query(`update bus.retention_state set keys_swept_at = null`)
await beside(`${eventCount / 2} keys of ${eventCount} are deleted`, async () =>
  adopting.prune({ by: 'measure' }),
)
await adopting.stop()
reader.release()
await pool.end()
await server.stop()
await rm(folder, { recursive: true, force: true })
