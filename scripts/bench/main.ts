/**
 * Publish and deliver against what people would use instead: every contestant in a process of its own, on an empty
 * database of one server, in turn, round after round; medians, and ratios within the run.
 *
 *   npm run bench                                    50,000 events, 1, 3 and 10 subscribers, 3 rounds
 *   npm run bench -- --quick                         a smaller one, under a minute
 *   npm run bench -- --events 20000 --subscribers 3 --rounds 5 --payload 4096 --json
 */
import { parseArgs } from 'node:util'
import { runChild } from './child.ts'
import type { ThroughputResult } from './contestant.ts'
import { contestants } from './contestants/all.ts'
import { startBenchServer } from './server.ts'
import { median } from './statistics.ts'

const { values } = parseArgs({
  options: {
    events: { type: 'string' },
    subscribers: { type: 'string' },
    rounds: { type: 'string' },
    payload: { type: 'string', default: '200' },
    quick: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
})
const eventCount = Number(values.events ?? (values.quick ? 10_000 : 50_000))
const subscriberCounts = (values.subscribers ?? (values.quick ? '3' : '1,3,10')).split(',').map(Number)
const rounds = Number(values.rounds ?? (values.quick ? 2 : 3))
const payloadBytes = Number(values.payload)

const server = await startBenchServer()
try {
  if (!values.json) {
    console.log(`PostgreSQL ${server.version}, ${server.description}; ${JSON.stringify(server.settings)}`)
    for (const { name, note } of contestants) console.log(`  ${name}: ${note}`)
  }
  const report = []
  for (const subscriberCount of subscriberCounts) {
    const rates = new Map<string, number[]>(contestants.map(({ name }) => [name, []]))
    for (let round = 0; round < rounds; round += 1) {
      for (const { name } of contestants) {
        const database = await server.createDatabase()
        const task = { url: database.url, eventCount, subscriberCount, payloadBytes }
        const { result } = await runChild<ThroughputResult>('contestants/run.ts', { contestant: name, task })
        await database.drop()
        const rate = (eventCount / result.totalMs) * 1000
        rates.get(name)?.push(rate)
        if (!values.json)
          console.log(
            `round ${round + 1}, ${subscriberCount} subscribers, ${name}: ${Math.round(rate)} events/s`,
          )
      }
    }
    const own = median(rates.get('bossbus') ?? [])
    for (const [name, measured] of rates) {
      const eventsPerSecond = Math.round(median(measured))
      report.push({
        subscriberCount,
        name,
        eventsPerSecond,
        bossbusRatio: Number((own / eventsPerSecond).toFixed(2)),
      })
    }
  }
  if (values.json)
    console.log(
      JSON.stringify({
        version: server.version,
        settings: server.settings,
        eventCount,
        payloadBytes,
        rounds,
        report,
      }),
    )
  else console.table(report)
} finally {
  await server.stop()
}
