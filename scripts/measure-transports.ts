/**
 * Measures how many events a second `bus.forward` sends to a system, beside what the client sends alone, with the same messages, and beside
 * what it sends nowhere: what the bus itself takes. Systems that are not there are left out.
 *
 *   node scripts/measure-transports.ts                     20,000 events, all systems
 *   node scripts/measure-transports.ts kafka --events 5000
 */
import { parseArgs } from 'node:util'
import { createBus } from '../src/index.ts'
import { createDatabase } from '../src/testing/databases.ts'
import { startPostgres } from '../src/testing/postgres.ts'
import { noop } from '../src/transports/index.ts'
import { measureEventBridge, measureSns, measureSqs } from './transports/aws.ts'
import { measureKafka } from './transports/kafka.ts'
import { measureEvents, type MeasuredSystem } from './transports/measured-system.ts'

const systems: Readonly<Record<string, () => Promise<MeasuredSystem | undefined>>> = {
  kafka: measureKafka,
  sqs: measureSqs,
  sns: measureSns,
  eventbridge: measureEventBridge,
}

const { values, positionals } = parseArgs({
  options: { events: { type: 'string', default: '20000' } },
  allowPositionals: true,
})
const eventCount = Number(values.events)

/** Events a second of a bus that has them in its log when it begins to forward. */
async function forwardRate(system: MeasuredSystem, database: string): Promise<number> {
  const bus = createBus({ database, events: measureEvents, source: 'measure' })
  await bus.migrate()
  let done = 0
  const all = Promise.withResolvers<void>()
  const { transport } = system
  bus.forward({
    name: 'measured',
    concurrency: 1000,
    events: ['order.placed'],
    to: {
      ...transport,
      async publish(events, call) {
        const results = await transport.publish(events, call)
        done += results.filter(({ status }) => status === 'delivered').length
        if (done >= eventCount) all.resolve()
        return results
      },
    },
  })
  for (let n = 0; n < eventCount; n += 500)
    await Promise.all(
      Array.from({ length: 500 }, async (_, i) =>
        bus.tryPublish({
          type: 'order.placed',
          tenantId: `tenant-${i % 10}`,
          orderingKey: `order-${n + i}`,
          payload: { number: n + i, note: system.note },
        }),
      ),
    )
  const startedAt = performance.now()
  await bus.start()
  await all.promise
  const rate = (eventCount / (performance.now() - startedAt)) * 1000
  await bus.stop()
  return rate
}

const server = await startPostgres({ settings: ['max_wal_size=4GB'] })
try {
  for (const [name, measure] of Object.entries(systems)) {
    if (positionals.length > 0 && !positionals.includes(name)) continue
    const system = await measure()
    if (system === undefined) {
      console.log(`${name}: not there`)
      continue
    }
    const nowhere = { ...system, transport: noop() }
    const bare = await forwardRate(nowhere, await createDatabase(server.url, `nowhere_${name}`))
    const raw = await system.rawRate(eventCount)
    const forwarded = await forwardRate(system, await createDatabase(server.url, `measure_${name}`))
    console.log(
      `${name}: client alone ${Math.round(raw)} events/s, bus.forward ${Math.round(forwarded)} events/s, nowhere ${Math.round(bare)} events/s; of the client alone ${(forwarded / raw).toFixed(2)}, of nowhere ${(forwarded / bare).toFixed(2)}`,
    )
    await system.stop()
  }
} finally {
  await server.stop()
}
