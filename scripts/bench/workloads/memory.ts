import { execFile } from 'node:child_process'
import { readdir, stat } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { createWaitingDatabase } from '../fill.ts'
import { findVariant, medianOf, type Figures } from '../results.ts'
import type { Bench, Workload } from '../workload.ts'

const caseName = (eventCount: number): string => `drain of ${eventCount.toLocaleString('en-US')} events`
const fullCount = 1_000_000

const root = new URL('../../../', import.meta.url)

async function measure(bench: Bench, eventCount: number): Promise<Figures> {
  const database = await createWaitingDatabase(bench, eventCount, 1)
  const child = bench.startChild('drain.mjs')
  try {
    const figures = await child.call<Figures>('drain', { url: database.url, eventCount })
    // Stopping waits for the receipts, so all of them exist.
    const [row] = await database.query<{ count: string }>('select count(*) from bus.deliveries')
    if (Number(row?.count) !== eventCount)
      throw new Error(`${row?.count ?? 'no'} receipts for ${eventCount} events`)
    return figures
  } finally {
    await child.end()
    await database.drop()
  }
}

/** Measures what people install: `dist/`, built from the current sources. */
async function buildPackage(bench: Bench): Promise<void> {
  if ((await newest(new URL('dist/', root))) >= (await newest(new URL('src/', root)))) return
  bench.progress('  npm run build')
  await promisify(execFile)('npm', ['run', 'build'], { cwd: fileURLToPath(root) })
}

/** When a file in the folder was last written, in milliseconds; 0 if there is none. */
async function newest(folder: URL): Promise<number> {
  const names = await readdir(folder, { recursive: true }).catch(() => [])
  const files = await Promise.all(names.map(async (name) => stat(new URL(name, folder))))
  return Math.max(0, ...files.filter((file) => file.isFile()).map(({ mtimeMs }) => mtimeMs))
}

export const memory: Workload = {
  letter: 'f',
  name: 'memory',
  measures: 'the most memory resident in a process that does nothing but handle a backlog',
  figures: [
    { key: 'maxRssMb', label: 'max RSS, MB', lowerIsBetter: true },
    { key: 'eventsPerSecond', label: 'events/s' },
  ],
  cases({ quick, eventCount }) {
    const count = eventCount ?? (quick ? 5000 : fullCount)
    return [
      {
        name: caseName(count),
        reference: 'bossbus',
        async prepare(bench) {
          await buildPackage(bench)
          return async () => {}
        },
        variants: [
          {
            name: 'bossbus',
            note: 'the built package in a process of its own, from plain JavaScript; one subscription; from the start to the last receipt',
            run: async (bench) => measure(bench, count),
          },
        ],
      },
    ]
  },
  targets: [
    {
      text: 'memory of the process that drains 1,000,000 events',
      bound: { atMost: 250 },
      unit: 'MB',
      measure: (cases) => medianOf(findVariant(cases, caseName(fullCount), 'bossbus'), 'maxRssMb'),
    },
  ],
}
