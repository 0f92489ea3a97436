/**
 * Measures the cost of erasing on a separate PostgreSQL: publishing with subjects, with and without the index that
 * erasing needs; the size of that index; and erasing one subject out of many events.
 *
 *   node scripts/measure-erase.ts                     200,000 events, 10,000 of them to erase
 *   node scripts/measure-erase.ts --events 20000
 */
import { parseArgs } from 'node:util'
import { drizzle } from 'drizzle-orm/postgres-js'
import postgres from 'postgres'
import { z } from 'zod'
import { createBus, defineEvents } from '../src/index.ts'
import { createDatabase } from '../src/testing/databases.ts'
import { startPostgres } from '../src/testing/postgres.ts'

const { values } = parseArgs({ options: { events: { type: 'string', default: '200000' } } })
const eventCount = Number(values.events)
const batchSize = 500
const events = defineEvents({
  'order.placed': { schema: z.object({ number: z.number(), note: z.string() }) },
})
const note = 'x'.repeat(160)

const server = await startPostgres({ settings: ['max_wal_size=4GB'] })

async function openDatabase(name: string) {
  const url = await createDatabase(server.url, name)
  const bus = createBus({ database: url, events, source: 'measure' })
  await bus.migrate()
  const client = postgres(url, { max: 1, onnotice: () => {} })
  return { bus, client, db: drizzle(client) }
}

type Opened = Awaited<ReturnType<typeof openDatabase>>

/** Publishes events in statements of 500, and returns events per second. */
async function publishSome({ bus, db }: Opened, count: number, subjectOf: (i: number) => string | undefined) {
  const startedAt = performance.now()
  for (let done = 0; done < count; done += batchSize) {
    const batch = Array.from({ length: batchSize }, (_, i) => {
      const payload = { number: done + i, note }
      return {
        type: 'order.placed' as const,
        tenantId: `tenant-${(done + i) % 100}`,
        subject: subjectOf(done + i),
        payload,
      }
    })
    await db.transaction(async (tx) => bus.publishMany(tx, batch))
  }
  return Math.round((count / (performance.now() - startedAt)) * 1000)
}

const subjectOf = (i: number): string => `customers/${i % 20_000}`
const [withIndex, withoutIndex] = [await openDatabase('with_index'), await openDatabase('without_index')]
await withoutIndex.client.unsafe('drop index bus.events_subject_idx')
const rates: Record<'with' | 'without' | 'noSubject', number[]> = { with: [], without: [], noSubject: [] }
const rounds = 21
const share = Math.max(batchSize, Math.floor(eventCount / rounds / batchSize) * batchSize)
for (let round = 0; round < rounds; round += 1) {
  rates.with.push(await publishSome(withIndex, share, subjectOf))
  rates.without.push(await publishSome(withoutIndex, share, subjectOf))
  rates.noSubject.push(await publishSome(withIndex, share, () => undefined))
}
const median = (list: readonly number[]): number =>
  list.toSorted((a, b) => a - b)[Math.floor(list.length / 2)] ?? 0
console.log(`publishMany(${batchSize}), events/s, medians of ${rounds} rounds of ${share}:`)
console.log(`  with a subject, with the index      ${median(rates.with)}`)
console.log(`  with a subject, without the index   ${median(rates.without)}`)
console.log(`  without a subject, with the index   ${median(rates.noSubject)}`)
const [size] = await withIndex.client.unsafe<{ index: string; log: string }[]>(
  `select round(sum(pg_relation_size(i.indexrelid)) / ${share * rounds}, 1)::text as index,
     (select round(sum(pg_table_size(p.inhrelid)) / ${share * rounds * 2}, 1)::text from pg_inherits p where p.inhparent = 'bus.events'::regclass) as log
   from pg_index i join pg_class c on c.oid = i.indexrelid where c.relname like 'events\\_%hashtext%' or c.relname like 'events\\_%expr%'`,
)
console.log(
  `  the index takes ${size?.index} bytes an event that has a subject, the log ${size?.log} an event`,
)

const subject = 'customers/erased'
await withIndex.client.unsafe(
  `insert into bus.events (tenant_id, type, source, subject, payload)
   select 'tenant-1', 'order.placed', 'measure', '${subject}', jsonb_build_object('number', i, 'note', '${note}') from generate_series(1, 10000) i`,
)
const startedAt = performance.now()
const erased = await withIndex.bus.erase({ tenantId: 'tenant-1', subject, by: 'measure' })
console.log(
  `erase: ${erased.eventCount} events of ${share * rounds * 2 + 10_000} in ${Math.round(performance.now() - startedAt)} ms, 5,250 ms of them waiting`,
)
for (const { bus, client } of [withIndex, withoutIndex]) {
  await bus.stop()
  await client.end()
}
await server.stop()
