/** A process that publishes to one subscription and delivers, in one of the modes of delivery. */
import { sql, type SQL } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/postgres-js'
import pg from 'pg'
import postgres from 'postgres'
import { createBus, ConfigurationError } from '../../../src/index.ts'
import { benchEvents } from '../catalogue.ts'
import { serve } from '../child.ts'
import { makePayload, publishInBatches, waitUntil } from '../contestant.ts'
import { NotAvailableError } from '../not-available.ts'

export type Mode =
  'default' | 'default-row' | 'exactly-once' | 'ordered' | 'ordered-row' | 'exactly-once-ordered'

export interface ModesTask {
  readonly mode: Mode
  readonly url: string
  readonly eventCount: number
  readonly orderingKeyCount: number
}

const payloadBytes = 200

interface DeliveredEvent {
  readonly payload: { readonly number: number }
  readonly orderingKey?: string | null | undefined
}

/** The context of an exactly-once handler, with a Drizzle transaction. */
interface TransactionalContext {
  readonly tx?: { readonly execute: (query: SQL) => PromiseLike<unknown> } | undefined
}

const cpuMs = (): number => (process.cpuUsage().user + process.cpuUsage().system) / 1000

serve({
  async run({ mode, url, eventCount, orderingKeyCount }: ModesTask) {
    const pool = new pg.Pool({ connectionString: url, max: 10 })
    pool.on('error', () => {})
    await pool.query(
      'create table effects (position bigint generated always as identity, number int not null)',
    )
    const isOrdered = mode.includes('ordered')
    const isOnce = mode.startsWith('exactly-once')
    const bus = createBus({ database: url, events: benchEvents, source: 'bench' })
    let handled = 0
    let outOfOrder = 0
    const lastOfKey = new Map<string, number>()

    async function handle(
      { payload, orderingKey }: DeliveredEvent,
      ctx: TransactionalContext,
    ): Promise<void> {
      if (isOnce) {
        if (ctx.tx === undefined) throw new Error('ctx.tx is missing')
        await ctx.tx.execute(sql`insert into effects (number) values (${payload.number})`)
      }
      if (mode.endsWith('-row'))
        await pool.query('insert into effects (number) values ($1)', [payload.number])
      if (mode === 'ordered') {
        const key = orderingKey ?? ''
        if (payload.number <= (lastOfKey.get(key) ?? -1)) outOfOrder += 1
        lastOfKey.set(key, payload.number)
      }
      handled += 1
    }

    const extra = { ordered: isOrdered, ...(isOnce ? { mode: 'exactly-once' } : {}) }
    const subscription = {
      name: 'subscriber-0',
      events: ['order.placed'] as const,
      handler: handle,
      ...extra,
    }
    try {
      bus.subscribe(subscription as Parameters<typeof bus.subscribe>[0])
    } catch (error) {
      if (error instanceof ConfigurationError) throw new NotAvailableError(error.message)
      throw error
    }
    await bus.start()
    const client = postgres(url, { max: 2 })
    const db = drizzle(client)
    const start = performance.now()
    const cpuBeforeMs = cpuMs()
    await publishInBatches(
      eventCount,
      async (from, to) => {
        const batch = Array.from({ length: to - from }, (_, i) => ({
          type: 'order.placed' as const,
          tenantId: 'tenant',
          payload: makePayload(from + i, payloadBytes),
          ...(isOrdered ? { orderingKey: `key-${(from + i) % orderingKeyCount}` } : {}),
        }))
        await db.transaction(async (tx) => bus.publishMany(tx, batch))
      },
      // Sequential: if two transactions are open at once, their order is undefined.
      1,
    )
    await waitUntil(() => handled >= eventCount)
    await waitUntil(async () => {
      const [row] = await client<{ done: boolean }[]>`
        select (select count(*) from bus.deliveries) >= ${eventCount}
          and not exists (select from pgboss.job where state < 'completed') as done`
      return row?.done === true
    })
    const totalMs = performance.now() - start
    const cpuUsPerEvent = ((cpuMs() - cpuBeforeMs) * 1000) / eventCount
    if (isOrdered && mode !== 'ordered') {
      // Counts commits: a transaction that was rolled back has run its handlers in vain.
      const [row] = await client<{ count: number }[]>`
        select count(*)::int from (
          select number, lag(number) over (partition by number % ${orderingKeyCount}::int order by position) as before from effects) e
        where number <= before`
      outOfOrder = row?.count ?? 0
    }
    await bus.stop()
    await client.end()
    await pool.end()
    const eventsPerSecond = (eventCount / totalMs) * 1000
    return { eventsPerSecond, cpuUsPerEvent, ...(isOrdered ? { outOfOrder } : {}) }
  },
})
