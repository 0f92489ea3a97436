import type { Mode, ModesTask } from '../programs/modes.ts'
import type { Bench, Variant, Workload } from '../workload.ts'
import type { Figures } from '../results.ts'

const orderingKeyCount = 1000

async function measure(bench: Bench, mode: Mode, eventCount: number): Promise<Figures> {
  const database = await bench.server.createMigratedDatabase()
  const child = bench.startChild('modes.ts')
  try {
    return await child.call<Figures>('run', {
      mode,
      url: database.url,
      eventCount,
      orderingKeyCount,
    } satisfies ModesTask)
  } finally {
    await child.end()
    await database.drop()
  }
}

export const modes: Workload = {
  letter: 'h',
  name: 'modes',
  measures: 'publish and deliver to 1 subscription, exactly once and in order against the default',
  figures: [
    { key: 'eventsPerSecond', label: 'events/s' },
    { key: 'cpuUsPerEvent', label: 'µs of CPU of the process an event', lowerIsBetter: true },
    { key: 'outOfOrder', label: 'out of order', lowerIsBetter: true },
  ],
  cases({ quick, eventCount }) {
    const count = eventCount ?? (quick ? 1000 : 20_000)
    const variant = (mode: Mode, name: string, note: string): Variant => ({
      name,
      note,
      run: async (bench) => measure(bench, mode, count),
    })
    return [
      {
        name: 'a handler that does nothing',
        size: `${count.toLocaleString('en-US')} events`,
        reference: 'default',
        variants: [
          variant('default', 'default', 'at least once, in no order'),
          variant('ordered', 'ordered', `in the order of publishing within each of ${orderingKeyCount} keys`),
        ],
      },
      {
        name: 'a handler that writes one row',
        size: `${count.toLocaleString('en-US')} events`,
        reference: 'default, own row',
        variants: [
          variant(
            'default-row',
            'default, own row',
            'at least once; the handler writes through a pool of its own',
          ),
          variant(
            'exactly-once',
            'exactly-once',
            'the handler writes through ctx.tx; row, receipt and completion commit together',
          ),
          variant(
            'ordered-row',
            'ordered, own row',
            `as the first one, ordered within each of ${orderingKeyCount} keys`,
          ),
          variant(
            'exactly-once-ordered',
            'exactly-once and ordered',
            `row, receipt and what is next of the key commit together, in the order of each of ${orderingKeyCount} keys`,
          ),
        ],
      },
    ]
  },
  targets: [],
}
