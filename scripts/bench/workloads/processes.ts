import { waitUntil } from '../contestant.ts'
import { createWaitingDatabase } from '../fill.ts'
import type { Bench, Workload } from '../workload.ts'
import type { Figures } from '../results.ts'

const subscriptionCount = 3

/** The whole backlog is waiting; the processes are running and start their buses at once. */
async function measure(bench: Bench, processCount: number, eventCount: number): Promise<Figures> {
  const database = await createWaitingDatabase(bench, eventCount, subscriptionCount)
  const session = await database.openSession()
  const workers = Array.from({ length: processCount }, () => bench.startChild('bus.ts'))
  const deliveryCount = eventCount * subscriptionCount
  try {
    await Promise.all(workers.map(async (worker) => worker.call('handledCount')))
    const start = performance.now()
    await Promise.all(
      workers.map(async (worker) => worker.call('start', { url: database.url, subscriptionCount })),
    )
    await waitUntil(async () => {
      const counts = await Promise.all(workers.map(async (worker) => worker.call<number>('handledCount')))
      return counts.reduce((sum, count) => sum + count, 0) >= deliveryCount
    }, 10)
    await waitUntil(async () => {
      const [row] = await session.query<{ done: boolean }>(
        `select (select count(*) from bus.deliveries) >= $1
           and not exists (select from pgboss.job where state < 'completed') as done`,
        [deliveryCount],
      )
      return row?.done === true
    })
    const elapsedMs = performance.now() - start
    return { deliveriesPerSecond: (deliveryCount / elapsedMs) * 1000 }
  } finally {
    await Promise.all(workers.map(async (worker) => worker.end()))
    await session.close()
    await database.drop()
  }
}

function variantName(processCount: number): string {
  return `${processCount} ${processCount === 1 ? 'process' : 'processes'}`
}

export const processes: Workload = {
  letter: 'i',
  name: 'processes',
  measures: 'a backlog handled by several processes of one service, from their start to the last receipt',
  figures: [{ key: 'deliveriesPerSecond', label: 'deliveries/s' }],
  cases({ quick, eventCount }) {
    const count = eventCount ?? (quick ? 500 : 100_000)
    return [
      {
        name: `${count.toLocaleString('en-US')} events waiting for ${subscriptionCount} subscriptions`,
        reference: variantName(1),
        variants: (quick ? [1, 2] : [1, 2, 4]).map((processCount) => ({
          name: variantName(processCount),
          note:
            processCount === 1
              ? 'relay and workers in one process'
              : 'each with a relay and workers for all subscriptions',
          run: async (bench) => measure(bench, processCount, count),
        })),
      },
    ]
  },
  targets: [],
}
