import type { CommitTimes, LatencyTask } from '../programs/latency.ts'
import type { Handled } from '../handled.ts'
import { findVariant, medianOf, ratioWithin, type Figures } from '../results.ts'
import { percentile } from '../statistics.ts'
import type { Bench, Case, Workload } from '../workload.ts'

type Size = Pick<LatencyTask, 'subscriberCount' | 'eventCount' | 'everyMs'>

const contestants = [
  {
    kind: 'bossbus',
    note: 'from the commit of bus.publish in one process to the handler in another: notification, claim, job, fetch',
  },
  {
    kind: 'pg-boss',
    note: "send in one process to the worker in another, woken by pg-boss's LISTEN/NOTIFY: one hop, one send a subscriber, no fan-out",
  },
] as const

/** The first events use cold connections and code, and are excluded. */
const warmUpCount = 20

async function measure(bench: Bench, kind: LatencyTask['kind'], size: Size): Promise<Figures> {
  const database = await bench.server.createMigratedDatabase()
  const publisher = bench.startChild('latency.ts')
  const consumer = bench.startChild(kind === 'bossbus' ? 'bus.ts' : 'pg-boss.ts')
  try {
    const { subscriberCount } = size
    await consumer.call('start', {
      url: database.url,
      subscriptionCount: subscriberCount,
      keepTimes: true,
    })
    const eventCount = size.eventCount + warmUpCount
    const committed = await publisher.call<CommitTimes>('run', {
      ...size,
      kind,
      url: database.url,
      eventCount,
    } satisfies LatencyTask)
    await consumer.call('waitHandled', { count: eventCount * subscriberCount })
    const handled = await consumer.call<Handled[]>('takeHandled')
    const latencies = handled
      .filter(({ number }) => number >= warmUpCount)
      .map(({ number, subscriber, atMs }) => atMs - (committed[number]?.[subscriber] ?? Number.NaN))
    return {
      p50Ms: percentile(latencies, 50),
      p95Ms: percentile(latencies, 95),
      p99Ms: percentile(latencies, 99),
      maxMs: percentile(latencies, 100),
    }
  } finally {
    await publisher.end()
    await consumer.end()
    await database.drop()
  }
}

function toCase(name: string, size: Size): Case {
  return {
    name,
    size: `${size.eventCount.toLocaleString('en-US')} events`,
    reference: 'pg-boss',
    own: 'bossbus',
    variants: contestants.map(({ kind, note }) => ({
      name: kind,
      note,
      run: async (bench) => measure(bench, kind, size),
    })),
  }
}

function idleName(subscriberCount: number): string {
  return `idle system, ${subscriberCount} ${subscriberCount === 1 ? 'subscriber' : 'subscribers'}`
}

export const latency: Workload = {
  letter: 'c',
  name: 'latency',
  measures: 'from the commit to the handler, publisher and handler in two processes',
  figures: [
    { key: 'p50Ms', label: 'p50 ms', decimals: 1, lowerIsBetter: true },
    { key: 'p95Ms', label: 'p95 ms', decimals: 1, lowerIsBetter: true },
    { key: 'p99Ms', label: 'p99 ms', decimals: 1, lowerIsBetter: true },
    { key: 'maxMs', label: 'max ms', decimals: 1, lowerIsBetter: true },
  ],
  cases({ quick, eventCount, subscriberCounts }) {
    const idleCount = eventCount ?? (quick ? 15 : 200)
    return [
      ...(subscriberCounts ?? (quick ? [1] : [1, 3])).map((subscriberCount) =>
        toCase(idleName(subscriberCount), { subscriberCount, eventCount: idleCount, everyMs: 40 }),
      ),
      toCase('500 events/s, 1 subscriber', {
        subscriberCount: 1,
        eventCount: eventCount ?? (quick ? 100 : 2000),
        everyMs: 2,
      }),
    ]
  },
  targets: [
    {
      text: "latency idle, 1 subscriber: p50 against pg-boss's own single hop",
      bound: { atMost: 1.3 },
      measure: (cases) => ratioWithin(cases, idleName(1), 'p50Ms', 'bossbus', 'pg-boss'),
    },
    {
      text: 'latency idle, 1 subscriber: p99',
      bound: { atMost: 20 },
      unit: 'ms',
      measure: (cases) => medianOf(findVariant(cases, idleName(1), 'bossbus'), 'p99Ms'),
    },
  ],
}
