import { findVariant, medianOf, type Figures } from '../results.ts'
import type { Bench, Workload } from '../workload.ts'

const caseName = '20 subscriptions, nothing to do'
const subscriptionCount = 20

const contestants = [
  { name: 'bossbus', program: 'bus.ts', note: 'one process, 20 subscriptions, receipts on' },
  {
    name: 'pg-boss',
    program: 'pg-boss.ts',
    note: 'one process, 20 queues with one worker each, LISTEN/NOTIFY on',
  },
] as const

/**
 * Time for the work after a start: statistics, first polls, and after five seconds pg-boss's count of all queues, which
 * it otherwise does once an hour.
 */
const settleMs = 15_000

/** A smoke test, which judges no figure, waits for neither. */
const quickMs = 1000

async function measure(bench: Bench, program: string, durationMs: number): Promise<Figures> {
  const { server } = bench
  const database = await server.createMigratedDatabase()
  await server.countStatements(database, 'top')
  const child = bench.startChild(program)
  try {
    await child.call('start', { url: database.url, subscriptionCount })
    await pause(bench.settings.quick ? quickMs : settleMs)
    const before = await server.countedStatements(database)
    const cpuBeforeMs = await child.call<number>('cpuMs')
    const start = performance.now()
    await pause(durationMs)
    const after = await server.countedStatements(database)
    const cpuAfterMs = await child.call<number>('cpuMs')
    const elapsedMs = performance.now() - start
    return {
      ...(before === undefined || after === undefined
        ? {}
        : { statementsPerMinute: ((after.callCount - before.callCount) / elapsedMs) * 60_000 }),
      cpuPercent: ((cpuAfterMs - cpuBeforeMs) / elapsedMs) * 100,
    }
  } finally {
    await child.end()
    await database.drop()
  }
}

async function pause(durationMs: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, durationMs))
}

export const idle: Workload = {
  letter: 'g',
  name: 'idle',
  measures:
    'what a process with 20 subscriptions costs while nothing happens: statements counted by the server (pg_stat_statements), CPU by the process itself',
  figures: [
    { key: 'statementsPerMinute', label: 'statements/min', decimals: 1, lowerIsBetter: true },
    { key: 'cpuPercent', label: 'CPU %', decimals: 2, lowerIsBetter: true },
  ],
  cases({ quick }) {
    const durationMs = quick ? quickMs : 60_000
    return [
      {
        name: caseName,
        size: `${durationMs / 1000} s`,
        reference: 'bossbus',
        own: 'bossbus',
        // Must include what happens every half minute: one long measurement is better than three short ones.
        rounds: 1,
        variants: contestants.slice(0, quick ? 1 : undefined).map(({ name, program, note }) => ({
          name,
          note,
          run: async (bench) => measure(bench, program, durationMs),
        })),
      },
    ]
  },
  targets: [
    {
      text: 'idle, 20 subscriptions: statements a second and process',
      bound: { atMost: 1 },
      unit: '/s',
      measure(cases) {
        const perMinute = medianOf(findVariant(cases, caseName, 'bossbus'), 'statementsPerMinute')
        return perMinute === undefined ? undefined : perMinute / 60
      },
    },
    {
      text: 'idle, 20 subscriptions: CPU',
      bound: { atMost: 1 },
      unit: '%',
      measure: (cases) => medianOf(findVariant(cases, caseName, 'bossbus'), 'cpuPercent'),
    },
  ],
}
