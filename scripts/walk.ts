/**
 * Counts the source files that an event passes through, from `publish` to its receipt: those of which a function ran meanwhile.
 *
 *   node scripts/walk.ts [--list]      prints the number of files for each folder, or also their names
 *
 * One event, one subscription, one process, on a PostgreSQL of its own, after a first event has warmed everything up. Functions that a
 * timer of the bus happens to call meanwhile are counted too, so the lowest of several rounds is shown.
 */
import { Session } from 'node:inspector/promises'
import { dirname, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { drizzle } from 'drizzle-orm/postgres-js'
import postgres from 'postgres'
import { z } from 'zod'
import { createBus, defineEvents } from '../src/index.ts'
import { startPostgres } from '../src/testing/postgres.ts'

const { values } = parseArgs({ options: { list: { type: 'boolean', default: false } } })
const source = fileURLToPath(new URL('../src/', import.meta.url))
const rounds = 5

const events = defineEvents({ 'payment.paid': { schema: z.object({ paymentId: z.string() }) } })
const server = await startPostgres()
const client = postgres(server.url, { max: 1, onnotice: () => {} })
const db = drizzle(client)
const bus = createBus({ database: server.url, events, source: 'walk' })
await bus.migrate()
bus.subscribe({ name: 'open-case', events: ['payment.paid'], handler: async () => {} })
await bus.start()

async function receiptOf(id: string): Promise<void> {
  for (;;) {
    const [row] = await client`select 1 from bus.deliveries where event_id = ${id}`
    if (row !== undefined) return
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

async function publishOne(): Promise<void> {
  const { id } = await db.transaction(async (tx) =>
    bus.publish(tx, { type: 'payment.paid', tenantId: 'acme', payload: { paymentId: 'p' } }),
  )
  await receiptOf(id)
}

/** The files of which a function ran in a round, other than the code that runs when a file is loaded. */
async function filesOfRound(session: Session): Promise<readonly string[]> {
  await session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: false })
  await publishOne()
  const { result } = await session.post('Profiler.takePreciseCoverage')
  await session.post('Profiler.stopPreciseCoverage')
  return result
    .filter(({ url, functions }) => {
      const ran = functions.some(
        ({ functionName, ranges }) => functionName !== '' && (ranges[0]?.count ?? 0) > 0,
      )
      return url.startsWith('file:') && fileURLToPath(url).startsWith(source) && ran
    })
    .map(({ url }) => relative(source, fileURLToPath(url)))
    .toSorted()
}

const session = new Session()
session.connect()
await session.post('Profiler.enable')
for (let n = 0; n < 5; n += 1) await publishOne()
let fewest: readonly string[] | undefined
for (let round = 0; round < rounds; round += 1) {
  const files = await filesOfRound(session)
  if (fewest === undefined || files.length < fewest.length) fewest = files
}
session.disconnect()
const files = fewest ?? []
console.log(`${files.length} files from publish to receipt`)
for (const [folder, names] of Map.groupBy(files, (file) => dirname(file)))
  console.log(`  ${names.length} ${folder}${values.list ? `: ${names.join(', ')}` : ''}`)
await bus.stop()
await client.end()
await server.stop()
