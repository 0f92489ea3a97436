/** A process that publishes one event a transaction, as fast as it can on so many connections, in one of three ways. */
import { sql } from 'drizzle-orm'
import { drizzle, type PostgresJsDatabase } from 'drizzle-orm/postgres-js'
import postgres from 'postgres'
import { createBus } from '../../../src/index.ts'
import { benchEvents } from '../catalogue.ts'
import { serve } from '../child.ts'
import { makePayload } from '../contestant.ts'

/** One way to publish: the statement between `begin` and `commit`. */
export type PublishKind = 'bossbus' | 'bare' | 'notify'

export interface PublishTask {
  readonly kind: PublishKind
  readonly url: string
  readonly connectionCount: number
  readonly durationMs: number
  /** Whether the transaction writes a row of the business first. */
  readonly withBusinessRow: boolean
}

type Transaction = Parameters<Parameters<PostgresJsDatabase['transaction']>[0]>[0]

const warmUpShare = 0.25
const payloadBytes = 200

serve({
  async run({ kind, url, connectionCount, durationMs, withBusinessRow }: PublishTask) {
    const client = postgres(url, { max: connectionCount, onnotice: () => {} })
    const db = drizzle(client)
    const publish = publishBy(kind, url)
    let next = 0
    let commits = 0
    let counting = false
    let stopped = false
    async function connection(): Promise<void> {
      while (!stopped) {
        next += 1
        const number = next
        await db.transaction(async (tx) => {
          if (withBusinessRow)
            await tx.execute(sql`insert into payments (amount_cents, status) values (${number}, 'paid')`)
          await publish(tx, number)
        })
        if (counting) commits += 1
      }
    }
    const connections = Promise.all(Array.from({ length: connectionCount }, connection))
    await pause(durationMs * warmUpShare)
    counting = true
    const start = performance.now()
    await pause(durationMs)
    counting = false
    const elapsedMs = performance.now() - start
    stopped = true
    await connections
    await client.end()
    return { commitsPerSecond: (commits / elapsedMs) * 1000 }
  },
})

function publishBy(kind: PublishKind, url: string): (tx: Transaction, number: number) => Promise<unknown> {
  if (kind === 'bossbus') {
    const bus = createBus({ database: url, events: benchEvents, source: 'bench' })
    return async (tx, number) =>
      bus.publish(tx, {
        type: 'order.placed',
        tenantId: 'tenant',
        payload: makePayload(number, payloadBytes),
      })
  }
  return async (tx, number) => {
    const payload = JSON.stringify(makePayload(number, payloadBytes))
    const insert = sql`
      insert into bare_events (tenant_id, type, source, schema_version, payload, metadata)
      values (${'tenant'}, ${'order.placed'}, ${'bench'}, 1, ${payload}::text::jsonb, '{}') returning id`
    return tx.execute(
      kind === 'bare' ? insert : sql`with e as (${insert}) select id, pg_notify('bench_bell', '') from e`,
    )
  }
}

async function pause(durationMs: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, durationMs))
}
