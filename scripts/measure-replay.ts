/**
 * Measures a replay and a catch-up of a large log while events are published, by the public API.
 *
 *   node scripts/measure-replay.ts [--events 1000000] [--per-second 500] [--ordered]
 *
 * Three subscriptions have received the whole log. All of it is replayed to the first one: how long a new event takes from its insert to the
 * handler of the first subscription, before and during the replay, and what the other two see. Then a new subscription starts from the
 * beginning of the log: whether the ledger has every event exactly once. With --ordered the first and the new one are ordered, by 1,000 keys.
 */
import { parseArgs } from 'node:util'
import { setTimeout as pause } from 'node:timers/promises'
import pg from 'pg'
import { z } from 'zod'
import { createBus, defineEvents, type Bus } from '../src/index.ts'
import { startOwnPostgres } from '../src/testing/postgres.ts'

const { values } = parseArgs({
  options: {
    events: { type: 'string', default: '1000000' },
    'per-second': { type: 'string', default: '500' },
    ordered: { type: 'boolean', default: false },
  },
})
const eventCount = Number(values.events)
const perSecond = Number(values['per-second'])
const { ordered } = values

const events = defineEvents({ 'order.placed': { schema: z.object({ n: z.number() }) } })
const server = await startOwnPostgres()
const client = new pg.Client(server.url)
await client.connect()
const silent = { debug() {}, info() {}, warn() {}, error() {} }
const newBus = (): Bus<typeof events> =>
  createBus({ database: server.url, events, source: 'measure', logger: silent })

/** What the handlers of a subscription have seen: live events with the time from their commit, and replayed ones. */
interface Seen {
  live: number
  replayed: number
  times: number[]
}
let measuredSince = Number.POSITIVE_INFINITY

function subscribe(bus: Bus<typeof events>, name: string, startFrom?: 'beginning'): Seen {
  const its: Seen = { live: 0, replayed: 0, times: [] }
  bus.subscribe({
    name,
    events: ['order.placed'],
    startFrom,
    ordered: ordered && (name === 'first' || name === 'new'),
    handler: ({ createdAt }, { isReplay }) => {
      if (isReplay) its.replayed += 1
      else its.live += 1
      // From the insert on; the clock of the database is that of this machine.
      if (!isReplay && createdAt.getTime() >= measuredSince) its.times.push(Date.now() - createdAt.getTime())
    },
  })
  return its
}

/** The log, of the last days, with packed receipts of three subscriptions. */
async function fillLog(): Promise<void> {
  const step = 10_000
  const id = (n: string): string =>
    `overlay(overlay(bus.uuid_v7_floor(now() - (${eventCount} - ${n}) * interval '1 second' / 100)::text placing '7' from 15)
       placing lpad(to_hex(${n} % 4096), 3, '0') || '-8000-' || lpad(to_hex(${n}), 12, '0') from 16)::uuid`
  await client.query('alter table bus.events disable trigger user')
  for (let from = 0; from < eventCount; from += step)
    await client.query(
      `insert into bus.events (id, tenant_id, type, source, payload, ordering_key, created_at)
       select ${id('n')}, 'tenant-' || n % 100, 'order.placed', 'measure', jsonb_build_object('n', n), 'k' || n % 1000, now()
       from generate_series($1::int, $2::int) n`,
      [from, Math.min(eventCount, from + step) - 1],
    )
  await client.query('alter table bus.events enable trigger user')
  await client.query(
    `insert into bus.receipt_batches (subscription_id, event_id, last_event_id, event_ids, durations_ms)
     select s.id, (array_agg(e.id order by e.id))[1], (array_agg(e.id order by e.id desc))[1], array_agg(e.id order by e.id),
       array_agg(1::real)
     from (select id, row_number() over (order by id) / 90 as part from bus.events) e cross join bus.subscriptions s
     group by s.id, bus.receipt_span_floor(e.id), e.part`,
  )
  await client.query('analyze bus.events; analyze bus.receipt_batches')
}

/** Publishes at a constant rate, in transactions of its own, until told to stop. */
function publish(bus: Bus<typeof events>): { stop: () => Promise<void> } {
  let isOver = false
  let count = 0
  const running = (async () => {
    const startedAt = performance.now()
    const open = new Set<Promise<unknown>>()
    while (!isOver) {
      const due = Math.floor(((performance.now() - startedAt) / 1000) * perSecond)
      for (; count < due; count += 1) {
        const n = count
        const one = bus.tryPublish({
          ...{ type: 'order.placed', tenantId: `tenant-${n % 100}`, orderingKey: `k${n % 1000}` },
          payload: { n },
        })
        open.add(one)
        void one.then(() => open.delete(one))
      }
      await pause(2)
    }
    await Promise.all(open)
  })()
  return {
    async stop() {
      isOver = true
      await running
    },
  }
}

function report(what: string, times: number[]): void {
  const sorted = times.splice(0).toSorted((a, b) => a - b)
  const at = (share: number): string =>
    (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0).toFixed(1)
  console.log(
    `${what}: ${sorted.length} live events, p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, most ${at(1)} ms`,
  )
}

async function untilDone(bus: Bus<typeof events>, id: string): Promise<void> {
  for (;;) {
    // A machine that is busy may take long to answer.
    const operation = await bus.operations.get(id).catch(() => undefined)
    await pause(500)
    if (operation === undefined) continue
    const { state, counts, stateReason } = operation
    if (state === 'done') return
    if (state !== 'running') throw new Error(`${state}: ${String(stateReason)} ${JSON.stringify(counts)}`)
  }
}

const bus = newBus()
await bus.migrate()
const first = subscribe(bus, 'first')
const others = ['second', 'third'].map((name) => subscribe(bus, name))
await bus.start()
const publisher = newBus()
await publisher.start({ run: 'nothing' })
await fillLog()
console.log(`a log of ${eventCount} events${ordered ? ', ordered' : ''}; ${perSecond} events/s are published`)

let publishing = publish(publisher)
await pause(2000)
measuredSince = Date.now()
await pause(8000)
report('before', first.times)
const replayedAt = performance.now()
const [{ id: untilId } = { id: '' }] = (
  await client.query<{ id: string }>('select max(id::text) as id from bus.events')
).rows
const { id } = await bus.replay({
  ...{ from: new Date(0), to: new Date(Number.parseInt(untilId.replaceAll('-', '').slice(0, 12), 16)) },
  ...{ subscriptions: ['first'], by: 'measure' },
})
await untilDone(bus, id)
const replaySeconds = (performance.now() - replayedAt) / 1000
report('during the replay', first.times)
const { counts } = await bus.operations.get(id)
console.log(
  `replayed in ${replaySeconds.toFixed(0)} s, ${Math.round(first.replayed / replaySeconds)} events/s: ${JSON.stringify(counts)}; ` +
    `the other two saw ${others.reduce((sum, { replayed }) => sum + replayed, 0)} replayed events`,
)
await publishing.stop()
const publishedCount = (await countLog()) - eventCount
while ([first, ...others].some(({ live }) => live < publishedCount)) await pause(100)
console.log(
  `each of the three got its ${publishedCount} new events; the ledger of the first: ${await receiptsOf('first')}`,
)

publishing = publish(publisher)
const late = newBus()
const its = subscribe(late, 'new', 'beginning')
const startedAt = performance.now()
await late.start()
const [catchUp] = await late.operations.list({ kind: 'catch-up' })
await untilDone(late, catchUp?.id ?? '')
console.log(
  `caught up in ${((performance.now() - startedAt) / 1000).toFixed(0)} s: ${JSON.stringify((await late.operations.get(catchUp?.id ?? '')).counts)}`,
)
await publishing.stop()
const total = await countLog()
for (let left = 600; its.live < total && left > 0; left -= 1) await pause(500)
await pause(1000)
report('new events of the new subscription, and those that it waited for', its.times)
console.log(
  `the ledger of the new subscription: ${await receiptsOf('new')} of ${total} events; handled ${its.live}`,
)
await Promise.all([late.stop(), bus.stop(), publisher.stop()])
await client.end()
await server.stop()

/** A publish that was given up on may have been stored all the same. */
async function countLog(): Promise<number> {
  await pause(3000)
  const { rows } = await client.query<{ count: string }>('select count(*) from bus.events')
  return Number(rows[0]?.count ?? 0)
}

/** How many events have a receipt, and whether one has two. */
async function receiptsOf(name: string): Promise<string> {
  const { rows } = await client.query<{ receipts: string; events: string }>(
    `select count(*) as receipts, count(distinct event_id) as events from bus.deliveries
     where subscription_id = (select id from bus.subscriptions where name = $1)`,
    [name],
  )
  return `${rows[0]?.receipts ?? '0'} receipts of ${rows[0]?.events ?? '0'} events`
}
