import pg from 'pg'
import type { PublishKind, PublishTask, TransactionShape } from '../programs/publisher.ts'
import { ratioWithin, type Figures } from '../results.ts'
import type { Bench, Case, Target, Variant, Workload } from '../workload.ts'

interface Way {
  readonly name: string
  readonly note: string
  readonly kind: PublishKind
  /** The number of subscriptions of a bus in a separate process. If omitted, no bus runs. */
  readonly subscriptionCount?: number
}

const bare = 'bare insert'
const notify = 'NOTIFY'
const relayAlone = 'bossbus'
const delivering = 'bossbus, delivering'

/** The same driver and the same transaction for all: begin, one call, commit. */
const ways: readonly Way[] = [
  {
    name: bare,
    note: 'the row that bossbus writes, into a table of the same columns and indexes; no trigger, no partitions, nothing picks it up',
    kind: 'bare',
  },
  {
    name: relayAlone,
    note: 'bus.publish, which proves the transaction first; the relay of another process claims the events, nobody subscribes',
    kind: 'bossbus',
    subscriptionCount: 0,
  },
  {
    name: delivering,
    note: 'the same, and the other process delivers every event to one subscription, on the same cores',
    kind: 'bossbus',
    subscriptionCount: 1,
  },
  {
    name: notify,
    note: 'the bare insert and pg_notify in one statement, one session listening',
    kind: 'notify',
  },
]

async function measure(
  bench: Bench,
  { kind, subscriptionCount }: Way,
  task: Omit<PublishTask, 'kind' | 'url'>,
): Promise<Figures> {
  const database = await bench.server.createMigratedDatabase()
  await database.query('create table bare_events (like bus.events including all)')
  await database.query(
    'create table payments (id uuid primary key default gen_random_uuid(), amount_cents int not null, status text not null)',
  )
  const publisher = bench.startChild('publisher.ts')
  const consumer = subscriptionCount === undefined ? undefined : bench.startChild('bus.ts')
  const listener = new pg.Client({ connectionString: database.url })
  listener.on('error', () => {})
  try {
    await consumer?.call('start', { url: database.url, subscriptionCount })
    await listener.connect()
    await listener.query('listen bench_bell')
    return await publisher.call<Figures>('run', { kind, url: database.url, ...task } satisfies PublishTask)
  } finally {
    await listener.end().catch(() => {})
    await publisher.end()
    await consumer?.end()
    await database.drop()
  }
}

const shapeNames: Readonly<Record<TransactionShape, string>> = {
  publish: 'begin, publish, commit in Drizzle',
  'business-row': 'begin, a business row, publish, commit in Drizzle',
  'plain-sql': 'one plain SQL insert, no begin',
}

function caseName(connectionCount: number, shape: TransactionShape): string {
  return `${connectionCount} ${connectionCount === 1 ? 'connection' : 'connections'}: ${shapeNames[shape]}`
}

function toCase(connectionCount: number, shape: TransactionShape, durationMs: number): Case {
  // The cost of delivery on the same cores is shown once, for the largest load.
  const shown = connectionCount === 32 && shape === 'publish'
  return {
    name: caseName(connectionCount, shape),
    reference: bare,
    own: relayAlone,
    variants: ways
      .filter(({ name }) => shown || name !== delivering)
      .map((way): Variant => ({
        name: way.name,
        note: way.note,
        run: async (bench) => measure(bench, way, { connectionCount, durationMs, shape }),
      })),
  }
}

function target(shape: TransactionShape, other: string, atLeast: number): Target {
  return {
    text: `publish, 32 connections, ${shapeNames[shape]}: against ${other}`,
    bound: { atLeast },
    measure: (cases) => ratioWithin(cases, caseName(32, shape), 'commitsPerSecond', relayAlone, other),
  }
}

export const publish: Workload = {
  letter: 'b',
  name: 'publish',
  measures: 'transactions a second that publish one event each',
  figures: [{ key: 'commitsPerSecond', label: 'commits/s' }],
  cases({ quick }) {
    if (quick) return [toCase(8, 'publish', 500)]
    const durationMs = 2500
    return [
      ...[1, 8, 32].map((connectionCount) => toCase(connectionCount, 'publish', durationMs)),
      toCase(32, 'business-row', durationMs),
      toCase(32, 'plain-sql', durationMs),
    ]
  },
  targets: (['publish', 'plain-sql'] as const).flatMap((shape) => [
    target(shape, bare, 0.8),
    target(shape, notify, 2.5),
  ]),
}
