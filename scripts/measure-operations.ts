/**
 * Measures every read for operators in a large database, by the public API.
 *
 *   node scripts/measure-operations.ts [--events 5000000] [--waiting 1000000] [--dead 100000] [--database <url>]
 *
 * The log has so many events of 1,000 tenants in bursts of a hundred, evenly over six months; three subscriptions have received them, and a
 * fourth has waiting events and dead letters. With --database, that one is filled if it is empty, and kept.
 */
import { parseArgs } from 'node:util'
import pg from 'pg'
import { startOwnPostgres } from '../src/testing/postgres.ts'
import { behind, fillLargeDatabase, openLargeBus, subjectOf, tenantOf, types } from './large-database.ts'

const { values } = parseArgs({
  options: {
    events: { type: 'string', default: '5000000' },
    waiting: { type: 'string', default: '1000000' },
    dead: { type: 'string', default: '100000' },
    database: { type: 'string' },
    only: { type: 'string', default: '' },
  },
})
const eventCount = Number(values.events)
const waitingCount = Number(values.waiting)
const deadCount = Number(values.dead)

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

/** A random event of the log, with the number that its attributes are made of. */
interface Sample {
  readonly n: number
  readonly id: string
}

type LargeBus = ReturnType<typeof openLargeBus>

const any = (below: number): number => Math.floor(Math.random() * below)

async function measure(client: pg.Client, bus: LargeBus): Promise<void> {
  const firstDead = eventCount - waitingCount - deadCount
  const sample = async (from: number, to: number): Promise<Sample> => {
    const n = from + any(to - from)
    const { rows } = await client.query<{ id: string }>('select id from public.ids where n = $1', [n])
    return { n, id: rows[0]?.id ?? '' }
  }
  const anyEvent = async (): Promise<Sample> => sample(0, eventCount)
  const rootOf = async ({ n }: Sample): Promise<string> => {
    const { rows } = await client.query<{ id: string }>('select id from public.ids where n = $1', [
      Math.floor(n / 10) * 10,
    ])
    return rows[0]?.id ?? ''
  }
  const ago = (ms: number): Date => new Date(Date.now() - ms)
  const reads: Record<string, () => Promise<unknown>> = {
    'find()': async () => bus.events.find(),
    'find({ tenantId })': async () => bus.events.find({ tenantId: tenantOf((await anyEvent()).n) }),
    'find({ type })': async () => bus.events.find({ type: types[any(40)] ?? '' }),
    'find({ type: 20 types })': async () => bus.events.find({ type: types.slice(0, 20) }),
    'find({ tenantId, type })': async () =>
      bus.events.find({ tenantId: tenantOf((await anyEvent()).n), type: types[any(40)] ?? '' }),
    'find({ pattern })': async () => bus.events.find({ pattern: `area-${any(8)}.*` }),
    'find({ causationId })': async () => bus.events.find({ causationId: await rootOf(await anyEvent()) }),
    'find({ tenantId, correlationId })': async () => {
      const event = await anyEvent()
      return bus.events.find({ tenantId: tenantOf(event.n), correlationId: await rootOf(event) })
    },
    'find({ tenantId, subject })': async () => {
      const event = await anyEvent()
      return bus.events.find({ tenantId: tenantOf(event.n), subject: subjectOf(event.n) })
    },
    'find({ tenantId, eventId })': async () => {
      const event = await sample(0, eventCount / 5)
      return bus.events.find({
        tenantId: tenantOf(event.n * 5),
        eventId: `business-${event.n * 5}`,
      })
    },
    'find({ eventId })': async () => bus.events.find({ eventId: `business-${any(eventCount / 5) * 5}` }),
    'search({ source })': async () => bus.events.search({ source: 'service-3' }),
    'search({ payload }), found': async () =>
      bus.events.search({ payload: { n: eventCount - 1 - any(20_000) } }),
    'search({ payload }), not found': async () =>
      bus.events.search({ payload: { order: { number: 'never' } } }),
    'search({ tenantId, payload }), not found': async () =>
      bus.events.search({
        tenantId: tenantOf((await anyEvent()).n),
        payload: { order: { number: 'never' } },
      }),
    'search({ correlationId })': async () => bus.events.search({ correlationId: 'never' }),
    'search({ subject })': async () => bus.events.search({ subject: 'customer-7' }),
    "search({ status: 'dead' })": async () => bus.events.search({ status: 'dead' }),
    "search({ status: 'dead', tenantId })": async () =>
      bus.events.search({ status: 'dead', tenantId: tenantOf((await anyEvent()).n) }),
    "search({ status: 'retrying' })": async () => bus.events.search({ status: 'retrying' }),
    "search({ status: 'waiting' })": async () => bus.events.search({ status: 'waiting' }),
    "search({ status: 'delivering' })": async () => bus.events.search({ status: 'delivering' }),
    "search({ status: 'delivered' })": async () => bus.events.search({ status: 'delivered' }),
    "search({ status: 'expired' })": async () => bus.events.search({ status: 'expired' }),
    'get(id)': async () => bus.events.get((await anyEvent()).id),
    'trace(id), 10 events': async () => bus.events.trace(await rootOf(await anyEvent())),
    'trace(id, { tenantId })': async () => {
      const event = await anyEvent()
      return bus.events.trace(await rootOf(event), { tenantId: tenantOf(event.n) })
    },
    'traceTree(event)': async () => bus.events.traceTree((await anyEvent()).id),
    'explain, delivered': async () => bus.explain((await sample(0, firstDead)).id),
    'explain, dead': async () => bus.explain((await sample(firstDead, firstDead + deadCount)).id),
    'explain, waiting': async () => bus.explain((await sample(firstDead + deadCount, eventCount)).id),
    'explain, not in the log': async () => bus.explain(crypto.randomUUID()),
    'lookup(event)': async () => bus.lookup((await anyEvent()).id),
    'lookup(business id)': async () => bus.lookup(`business-${any(eventCount / 5) * 5}`),
    'lookup(subject)': async () => bus.lookup(`customer-${any(5000)}`),
    'lookup(nothing)': async () => bus.lookup('nothing'),
    'lookup(unknown id)': async () => bus.lookup(crypto.randomUUID()),
    'tenant.find()': async () => bus.tenant(tenantOf((await anyEvent()).n)).events.find(),
    'tenant.find({ type })': async () =>
      bus.tenant(tenantOf((await anyEvent()).n)).events.find({ type: types[any(40)] ?? '' }),
    'tenant.search({ payload })': async () =>
      bus.tenant(tenantOf((await anyEvent()).n)).events.search({ payload: { order: { number: 'never' } } }),
    "tenant.search({ status: 'dead' })": async () =>
      bus.tenant(tenantOf((await anyEvent()).n)).events.search({ status: 'dead' }),
    'tenant.explain': async () => {
      const event = await anyEvent()
      return bus.tenant(tenantOf(event.n)).explain(event.id)
    },
    'tenant.lookup': async () => {
      const event = await anyEvent()
      return bus.tenant(tenantOf(event.n)).lookup(subjectOf(event.n))
    },
    'deliveries, delivered': async () => bus.deliveries((await sample(0, firstDead)).id),
    'deliveries, dead': async () => bus.deliveries((await sample(firstDead, firstDead + deadCount)).id),
    'deliveries, waiting': async () => bus.deliveries((await sample(firstDead + deadCount, eventCount)).id),
    'deadLetters.list()': async () => bus.deadLetters.list(),
    'deadLetters.list({ subscription })': async () => bus.deadLetters.list({ subscription: behind }),
    'deadLetters.list({ tenantId })': async () =>
      bus.deadLetters.list({ tenantId: tenantOf(any(eventCount)) }),
    'deadLetters.list({ errorName })': async () => bus.deadLetters.list({ errorName: 'Error' }),
    'deadLetters.list({ errorCode }), none': async () => bus.deadLetters.list({ errorCode: 'NONE' }),
    'deadLetters.groups()': async () => bus.deadLetters.groups(),
    'deadLetters.get()': async () =>
      bus.deadLetters.get((await sample(firstDead, firstDead + deadCount)).id, behind),
    'deadLetters.redrive({ subscription }), dry run': async () =>
      bus.deadLetters.redrive({ subscription: behind }, { by: 'measure', dryRun: true }),
    'replay({ tenantId }), dry run': async () =>
      bus.replay({
        tenantId: tenantOf(any(eventCount)),
        subscriptions: ['first'],
        by: 'measure',
        dryRun: true,
      }),
    'tenant.deadLetters.list()': async () => bus.tenant(tenantOf(any(eventCount))).deadLetters.list(),
    'tenant.deliveries': async () => {
      const event = await anyEvent()
      return bus.tenant(tenantOf(event.n)).deliveries(event.id)
    },
    'blockedKeys.list()': async () => bus.blockedKeys.list(),
    'operations.list()': async () => bus.operations.list(),
    'audit.list()': async () => bus.audit.list(),
    'subscriptions.list()': async () => bus.subscriptions.list(),
    'queries.depth()': async () => bus.queries.depth(),
    'queries.lag()': async () => bus.queries.lag(),
    'queries.throughput(), an hour': async () => bus.queries.throughput({ from: ago(3_600_000) }),
    'queries.latency(), an hour': async () => bus.queries.latency({ from: ago(3_600_000) }),
    'queries.deadByError()': async () => bus.queries.deadByError(),
    'queries.retries()': async () => bus.queries.retries(),
    'queries.active()': async () => bus.queries.active(),
    'queries.instances()': async () => bus.queries.instances(),
    'queries.subscriptionState()': async () => bus.queries.subscriptionState(),
    'queries.tenants()': async () => bus.queries.tenants(),
    'queries.blockedKeys()': async () => bus.queries.blockedKeys(),
    'queries.scheduled()': async () => bus.queries.scheduled(),
    'queries.storage()': async () => bus.queries.storage(),
    'queries.recentFailures()': async () => bus.queries.recentFailures(),
    'queries.eventsByKey()': async () =>
      bus.queries.eventsByKey({ key: `business-${any(eventCount / 5) * 5}` }),
    'stats()': async () => bus.stats(),
    "stats({ by: 'minute' }), a day": async () => bus.stats({ by: 'minute', from: ago(86_400_000) }),
    "stats({ by: 'day' }), 30 days": async () => bus.stats({ by: 'day' }),
    "stats({ by: 'subscription' }), 30 days": async () =>
      bus.stats({ by: 'subscription', from: ago(30 * 86_400_000) }),
    "stats({ by: 'tenant' }), a day": async () => bus.stats({ by: 'tenant' }),
    "stats({ by: 'tenant' }), 30 days": async () => bus.stats({ by: 'tenant', from: ago(30 * 86_400_000) }),
    'stats({ tenantId }), a day': async () => bus.stats({ tenantId: 'tenant-7' }),
    'health()': async () => bus.health(),
    'health({ full })': async () => bus.health({ full: true }),
    'prune(), dry run': async () => bus.prune({ by: 'measure', dryRun: true }),
  }
  for (const [what, call] of Object.entries(reads)) {
    if (!what.includes(values.only)) continue
    await call()
    const sorted = await time(100, call)
    console.log(`${what}: p50 ${at(sorted, 0.5)} ms, p99 ${at(sorted, 0.99)} ms`)
  }
}

const server = values.database === undefined ? await startOwnPostgres() : undefined
const url =
  values.database ?? Object.assign(new URL(server?.url ?? ''), { pathname: '/measure_find' }).toString()
const admin = new pg.Client(Object.assign(new URL(url), { pathname: '/postgres' }).toString())
await admin.connect()
const name = new URL(url).pathname.slice(1)
const { rowCount } = await admin.query('select from pg_database where datname = $1', [name])
if (rowCount === 0) await admin.query(`create database ${name}`)
await admin.end()
const client = new pg.Client(url)
await client.connect()
const { rows: known } = await client.query<{ there: boolean }>(
  `select to_regclass('public.ids') is not null as there`,
)
if (known[0]?.there !== true)
  await fillLargeDatabase(client, url, { eventCount, waitingCount, deadCount, days: 180 })
const bus = openLargeBus(url)
await measure(client, bus)
await bus.stop()
await client.end()
await server?.stop()
