/**
 * A process of one version of a service that is deployed while events flow: `node deployed-process.ts URL 1|2`. Each of its four
 * subscriptions writes down what it was handed, and by which version. Ends on SIGTERM, after draining.
 */
import pg from 'pg'
import { createBus, type ExactlyOnceContext } from '../../src/index.ts'
import { sql } from 'drizzle-orm'
import { shopEvents, variants, type ShopVersion } from './deployed-versions.ts'

const [, , url = '', number = '1'] = process.argv
const version = Number(number) as ShopVersion
const pool = new pg.Pool({ connectionString: url, max: 5 })
pool.on('error', () => {})
const bus = createBus({ database: url, events: shopEvents, source: 'shop' })
const variant = variants[version]

async function note(
  subscription: string,
  event: { readonly id: string; readonly type: string },
): Promise<void> {
  await pool.query('insert into handled (subscription, version, event_id, type) values ($1, $2, $3, $4)', [
    subscription,
    version,
    event.id,
    event.type,
  ])
}

const common = { events: variant.events, heartbeatSeconds: 10 } as const
bus.subscribe({ ...common, name: 'mail', handler: async (event) => note('mail', event) })
bus.subscribe({
  ...common,
  name: 'large',
  where: variant.where,
  handler: async (event) => note('large', event),
})
bus.subscribe({ ...common, name: 'stock', ordered: true, handler: async (event) => note('stock', event) })
bus.subscribe({
  ...common,
  name: 'ledger',
  mode: 'exactly-once',
  handler: async (event, ctx) => {
    const { tx } = ctx as unknown as ExactlyOnceContext<never>
    await tx.execute(
      sql`insert into handled (subscription, version, event_id, type) values ('ledger', ${version}, ${event.id}, ${event.type})`,
    )
  },
})
await bus.start()
process.on('SIGTERM', () => {
  void bus
    .stop({ graceMs: 10_000 })
    .then(async () => pool.end())
    .then(() => process.exit(0))
})
console.log('started')
