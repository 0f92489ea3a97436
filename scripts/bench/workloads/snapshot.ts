import pg from 'pg'
import { ratioWithin, type Figures } from '../results.ts'
import type { BenchDatabase } from '../server.ts'
import type { Bench, Case, Workload } from '../workload.ts'
import { measureThroughputOn } from './throughput.ts'

const without = 'no snapshot held'
const held = 'snapshot held'

function caseName(contestant: string): string {
  return `${contestant}, publish and deliver to 1 subscriber`
}

async function measure(
  bench: Bench,
  contestant: string,
  eventCount: number,
  isHeld: boolean,
): Promise<Figures> {
  const database = await bench.server.createMigratedDatabase()
  const release = isHeld ? await holdSnapshot(database) : async () => {}
  try {
    return await measureThroughputOn(database, bench, contestant, {
      eventCount,
      subscriberCount: 1,
      payloadBytes: 200,
    })
  } finally {
    await release()
    await database.drop()
  }
}

/** A transaction that has taken its snapshot and stays open: rows that are deleted after it cannot be vacuumed. */
async function holdSnapshot({ url }: BenchDatabase): Promise<() => Promise<void>> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => {})
  await client.connect()
  await client.query('begin isolation level repeatable read')
  await client.query('select 1')
  return async () => {
    await client.end().catch(() => {})
  }
}

export const snapshot: Workload = {
  letter: 'e',
  name: 'snapshot',
  measures: 'throughput while another transaction stays open (idle, repeatable read) for the whole run',
  figures: [
    { key: 'eventsPerSecond', label: 'events/s' },
    { key: 'publishedPerSecond', label: 'published/s' },
  ],
  cases({ quick, eventCount }) {
    const count = eventCount ?? (quick ? 500 : 100_000)
    return (quick ? ['bossbus'] : ['bossbus', 'pg-boss']).map((contestant): Case => ({
      name: caseName(contestant),
      size: `${count.toLocaleString('en-US')} events`,
      reference: without,
      variants: [false, true].map((isHeld) => ({
        name: isHeld ? held : without,
        note: isHeld ? 'dead rows and index entries stay for the whole run' : 'vacuum may clean up',
        run: async (bench) => measure(bench, contestant, count, isHeld),
      })),
    }))
  },
  targets: [
    {
      text: 'throughput with a snapshot held open against without',
      bound: { atLeast: 0.8 },
      measure: (cases) => ratioWithin(cases, caseName('bossbus'), 'eventsPerSecond', held, without),
    },
  ],
}
