import type { ThroughputResult, ThroughputTask } from '../contestant.ts'
import { contestants } from '../contestants/all.ts'
import { ratioWithin, type Figures } from '../results.ts'
import type { BenchDatabase } from '../server.ts'
import type { Bench, Case, Target, Workload } from '../workload.ts'

/** Publishing and delivery by one contestant, in a process and on a database of its own. */
async function measureThroughput(
  bench: Bench,
  contestant: string,
  size: Omit<ThroughputTask, 'url'>,
): Promise<Figures> {
  const database = await bench.server.createMigratedDatabase()
  try {
    return await measureThroughputOn(database, bench, contestant, size)
  } finally {
    await database.drop()
  }
}

/** The same on an existing database, which is kept. */
export async function measureThroughputOn(
  { url }: BenchDatabase,
  bench: Bench,
  contestant: string,
  size: Omit<ThroughputTask, 'url'>,
): Promise<Figures> {
  const child = bench.startChild('throughput.ts')
  try {
    const { publishMs, totalMs } = await child.call<ThroughputResult>('run', {
      contestant,
      task: { ...size, url },
    })
    return {
      eventsPerSecond: (size.eventCount / totalMs) * 1000,
      publishedPerSecond: (size.eventCount / publishMs) * 1000,
      deliveriesPerSecond: ((size.eventCount * size.subscriberCount) / totalMs) * 1000,
    }
  } finally {
    await child.end()
  }
}

/** Enough for a run of seconds and not more: the slowest contestants handle 10,000 deliveries per second. */
function fullEventCount(subscriberCount: number, payloadBytes: number): number {
  const count = subscriberCount >= 10 ? 20_000 : 50_000
  return payloadBytes > 1000 ? count / 5 : count
}

function caseName(subscriberCount: number, payloadBytes: number): string {
  return `${subscriberCount} ${subscriberCount === 1 ? 'subscriber' : 'subscribers'}, ${payloadBytes} B`
}

/** Compares with a contestant at the most common payload size. */
function target(subscriberCount: number, atLeast: number, other: string): Target {
  return {
    text: `publish and deliver, S = ${subscriberCount}, against ${other}`,
    bound: { atLeast },
    measure: (cases) =>
      ratioWithin(cases, caseName(subscriberCount, 200), 'eventsPerSecond', 'bossbus', other),
  }
}

export const throughput: Workload = {
  letter: 'a',
  name: 'throughput',
  measures:
    'durable publish of N events to S subscribers, until the last one is handled and recorded as done',
  figures: [
    { key: 'eventsPerSecond', label: 'events/s' },
    { key: 'publishedPerSecond', label: 'published/s' },
    { key: 'deliveriesPerSecond', label: 'deliveries/s' },
  ],
  cases({ quick, eventCount, subscriberCounts, payloadBytes }) {
    const payloads = payloadBytes ?? (quick ? [200] : [200, 4096])
    return payloads.flatMap((bytes) =>
      (subscriberCounts ?? (quick ? [3] : [1, 3, 10])).map((subscriberCount): Case => {
        const size = {
          eventCount: eventCount ?? (quick ? 2000 : fullEventCount(subscriberCount, bytes)),
          subscriberCount,
          payloadBytes: bytes,
        }
        return {
          name: caseName(subscriberCount, bytes),
          size: `${size.eventCount.toLocaleString('en-US')} events`,
          reference: 'bossbus',
          own: 'bossbus',
          variants: contestants.map(({ name, note }) => ({
            name,
            note,
            run: async (bench) => measureThroughput(bench, name, size),
          })),
        }
      }),
    )
  },
  targets: [
    target(1, 1.5, 'pg-boss'),
    target(1, 1.1, 'graphile-worker'),
    target(3, 2.5, 'pg-boss'),
    target(3, 1.7, 'graphile-worker'),
    target(10, 5, 'pg-boss'),
    target(10, 5, 'graphile-worker'),
  ],
}
