import { waitUntil } from '../contestant.ts'
import { createWaitingDatabase, fillWithEvents, publishBySql } from '../fill.ts'
import { contestants } from '../contestants/all.ts'
import { ratioWithin, type Figures } from '../results.ts'
import type { BenchDatabase, Session } from '../server.ts'
import { type Bench, type Case, type Workload } from '../workload.ts'
import { measureThroughputOn } from './throughput.ts'
import { NotAvailableError } from '../not-available.ts'

const claimCase = 'claim, nobody subscribes'
const deliverCase = 'deliver to 1 subscription'
const logCase = 'publish and deliver to 1 subscription'

/** The backlog of the smallest case, which is repeated: a single such claim is too short to measure. */
const pulseSize = 1000

interface Sizes {
  readonly waitingCounts: readonly number[]
  readonly pulseCount: number
  readonly logCounts: readonly number[]
  readonly eventCount: number
}

/** The relay's claims of the whole backlog, by the server's own statistics of that statement. */
async function measureClaims(bench: Bench, waitingCount: number, pulseCount: number): Promise<Figures> {
  const database = await createDatabaseFor(bench, waitingCount)
  const session = await database.openSession()
  const child = bench.startChild('bus.ts')
  const untilClaimed = async (): Promise<void> => waitUntil(async () => isOutboxEmpty(session))
  try {
    // Without subscriptions the relay claims, finds no recipient for the events, and commits.
    await session.query('delete from bus.subscriptions')
    await bench.server.countStatements(database, 'all')
    await child.call('start', { url: database.url, subscriptionCount: 0 })
    if (waitingCount === pulseSize) await pulse(session, pulseCount, untilClaimed)
    else await untilClaimed()
    const claimedCount = waitingCount === pulseSize ? pulseSize * pulseCount : waitingCount
    // By definition, a claim is the statement that deletes rows of the outbox.
    const counted = await bench.server.countedStatements(database, 'delete from bus\\.outbox')
    if (counted === undefined)
      throw new NotAvailableError('the server does not count statements: pg_stat_statements is not preloaded')
    return { claimMs: (counted.executionMs / claimedCount) * 1000 }
  } finally {
    await child.end()
    await session.close()
    await database.drop()
  }
}

/** Events handled per second while the rest waits. */
async function measureDelivery(
  bench: Bench,
  waitingCount: number,
  pulseCount: number,
  eventCount: number,
): Promise<Figures> {
  const database = await createDatabaseFor(bench, waitingCount)
  const session = await database.openSession()
  const child = bench.startChild('bus.ts')
  try {
    await child.call('start', { url: database.url, subscriptionCount: 1 })
    if (waitingCount === pulseSize) {
      let handledCount = 0
      const elapsedMs = await pulse(session, pulseCount, async () => {
        handledCount += pulseSize
        await child.call('waitHandled', { count: handledCount })
      })
      return { eventsPerSecond: (handledCount / elapsedMs) * 1000 }
    }
    const count = Math.min(eventCount, waitingCount)
    const { firstMs, lastMs } = await child.call<{ firstMs: number; lastMs: number }>('waitHandled', {
      count,
    })
    return { eventsPerSecond: (count / (lastMs - firstMs)) * 1000 }
  } finally {
    await child.end()
    await session.close()
    await database.drop()
  }
}

async function createDatabaseFor(bench: Bench, waitingCount: number): Promise<BenchDatabase> {
  return createWaitingDatabase(bench, waitingCount === pulseSize ? 0 : waitingCount, 1)
}

/** Publishes a thousand events at a time, each thousand after the previous one is done. Returns the duration. */
async function pulse(
  session: Session,
  pulseCount: number,
  untilThrough: () => Promise<void>,
): Promise<number> {
  let elapsedMs = 0
  for (let i = 0; i < pulseCount; i += 1) {
    await publishBySql(session, i * pulseSize, (i + 1) * pulseSize)
    const start = performance.now()
    await untilThrough()
    elapsedMs += performance.now() - start
  }
  return elapsedMs
}

async function isOutboxEmpty(session: Session): Promise<boolean> {
  const [row] = await session.query<{ empty: boolean }>('select not exists (select from bus.outbox) as empty')
  return row?.empty === true
}

/** One database for each size of the log, kept for all rounds. */
function createLogCase({ logCounts, eventCount }: Sizes): Case {
  const databases = new Map<number, BenchDatabase>()
  return {
    name: logCase,
    size: `${eventCount.toLocaleString('en-US')} events`,
    reference: logName(0),
    async prepare(bench) {
      for (const logCount of logCounts) {
        const database = await bench.server.createMigratedDatabase()
        databases.set(logCount, database)
        await fillLog(bench, database, logCount)
      }
      return async () => {
        for (const database of databases.values()) await database.drop()
      }
    },
    variants: logCounts.map((logCount) => ({
      name: logName(logCount),
      note: 'the same events published and delivered, as in (a); the log was filled by SQL, its outbox rows truncated',
      async run(bench) {
        const database = databases.get(logCount)
        const [bossbus] = contestants
        if (database === undefined || bossbus === undefined) throw new Error('no database')
        const { eventsPerSecond = Number.NaN } = await measureThroughputOn(database, bench, bossbus.name, {
          eventCount,
          subscriberCount: 1,
          payloadBytes: 200,
        })
        return { eventsPerSecond }
      },
    })),
  }
}

/** Adds rows to the log that nobody waits for. No trigger is disabled; what the trigger wrote is deleted afterwards. */
async function fillLog(bench: Bench, database: BenchDatabase, logCount: number): Promise<void> {
  if (logCount > 0) bench.progress(`  filling a log with ${logCount.toLocaleString('en-US')} events`)
  await fillWithEvents(database, logCount)
  await database.query('truncate bus.outbox')
  await database.query('vacuum analyze')
  await database.query('checkpoint')
}

function waitingName(count: number): string {
  return `${count.toLocaleString('en-US')} waiting`
}

function logName(count: number): string {
  return count === 0 ? 'empty log' : `${count.toLocaleString('en-US')} in the log`
}

export const growth: Workload = {
  letter: 'd',
  name: 'growth',
  measures: 'the same work with more and more events waiting, and more and more in the log',
  figures: [
    { key: 'claimMs', label: 'claim, ms per 1,000', decimals: 2, lowerIsBetter: true },
    { key: 'eventsPerSecond', label: 'events/s' },
  ],
  cases({ quick, eventCount }) {
    const sizes: Sizes = quick
      ? { waitingCounts: [pulseSize, 2000], pulseCount: 2, logCounts: [0, 2000], eventCount: 500 }
      : {
          waitingCounts: [pulseSize, 100_000, 1_000_000],
          pulseCount: 20,
          logCounts: [0, 1_000_000, 5_000_000],
          eventCount: eventCount ?? 20_000,
        }
    const note = (waitingCount: number): string =>
      waitingCount === pulseSize
        ? `${sizes.pulseCount} times 1,000, each when the one before is through`
        : 'all there before the bus starts'
    return [
      {
        name: claimCase,
        reference: waitingName(pulseSize),
        variants: sizes.waitingCounts.map((count) => ({
          name: waitingName(count),
          note: note(count),
          run: async (bench) => measureClaims(bench, count, sizes.pulseCount),
        })),
      },
      {
        name: deliverCase,
        size: `the first ${sizes.eventCount.toLocaleString('en-US')} events`,
        reference: waitingName(pulseSize),
        variants: sizes.waitingCounts.map((count) => ({
          name: waitingName(count),
          note: note(count),
          run: async (bench) => measureDelivery(bench, count, sizes.pulseCount, sizes.eventCount),
        })),
      },
      createLogCase(sizes),
    ]
  },
  targets: [
    {
      text: 'growth: claim at 1,000,000 waiting against claim at 1,000',
      bound: { atMost: 1.3 },
      measure: (cases) =>
        ratioWithin(cases, claimCase, 'claimMs', waitingName(1_000_000), waitingName(pulseSize)),
    },
    {
      text: 'growth: time of the same work with 5,000,000 in the log against an empty log',
      bound: { atMost: 1.1 },
      // Times are the inverse of rates.
      measure: (cases) => ratioWithin(cases, logCase, 'eventsPerSecond', logName(0), logName(5_000_000)),
    },
  ],
}
