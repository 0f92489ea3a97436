/** A process that publishes one event per transaction, as fast as it can on a number of connections. */
import { sql } from 'drizzle-orm'
import { drizzle, type PostgresJsDatabase } from 'drizzle-orm/postgres-js'
import postgres from 'postgres'
import { createBus } from '../../../src/index.ts'
import { benchEvents } from '../catalogue.ts'
import { serve } from '../child.ts'
import { makePayload } from '../contestant.ts'

/** A way to publish. */
export type PublishKind = 'bossbus' | 'bare' | 'notify'

/**
 * The contents of a transaction: Drizzle's `begin`, publish, `commit`; the same with a business row first; or one plain
 * insert.
 */
export type TransactionShape = 'publish' | 'business-row' | 'plain-sql'

export interface PublishTask {
  readonly kind: PublishKind
  readonly url: string
  readonly connectionCount: number
  readonly durationMs: number
  readonly shape: TransactionShape
}

type Transaction = Parameters<Parameters<PostgresJsDatabase['transaction']>[0]>[0]

const warmUpShare = 0.25
const payloadBytes = 200

serve({
  async run({ kind, url, connectionCount, durationMs, shape }: PublishTask) {
    const client = postgres(url, { max: connectionCount, onnotice: () => {} })
    const transact = shape === 'plain-sql' ? insertBy(kind, client) : transactBy(kind, url, client, shape)
    let next = 0
    let commits = 0
    let counting = false
    let stopped = false
    async function connection(): Promise<void> {
      while (!stopped) {
        next += 1
        await transact(next)
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

type Transact = (number: number) => Promise<unknown>

/** Like a service: Drizzle's transaction on postgres.js. */
function transactBy(kind: PublishKind, url: string, client: postgres.Sql, shape: TransactionShape): Transact {
  const db = drizzle(client)
  const publish = publishBy(kind, url)
  return async (number) =>
    db.transaction(async (tx) => {
      if (shape === 'business-row')
        await tx.execute(sql`insert into payments (amount_cents, status) values (${number}, 'paid')`)
      await publish(tx, number)
    })
}

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

/** With a minimal client: one prepared statement, which is its own transaction. */
function insertBy(kind: PublishKind, client: postgres.Sql): Transact {
  return async (number) => {
    const payload = JSON.stringify(makePayload(number, payloadBytes))
    const table = client.unsafe(kind === 'bossbus' ? 'bus.events' : 'bare_events')
    const insert = client`
      insert into ${table} (tenant_id, type, source, schema_version, payload, metadata)
      values ('tenant', 'order.placed', 'bench', 1, ${payload}::text::jsonb, '{}')`
    return kind === 'notify'
      ? client`with e as (${insert} returning id) select pg_notify('bench_bell', '') from e`
      : insert
  }
}

async function pause(durationMs: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, durationMs))
}
