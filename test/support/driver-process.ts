/**
 * A service that publishes until it is told to stop, whatever happens to its connections:
 * `node driver-process.ts URL DRIVER`, DRIVER being `postgres.js`, `node-postgres` or `node-postgres-listening`, the last
 * with a listener for the errors of its connections. It prints how its transactions ended when it gets SIGTERM.
 */
import { sql } from 'drizzle-orm'
import { drizzle as drizzleOnNodePostgres } from 'drizzle-orm/node-postgres'
import { drizzle as drizzleOnPostgresJs } from 'drizzle-orm/postgres-js'
import pg from 'pg'
import postgres from 'postgres'
import { BusError, createBus, type DrizzleTransaction } from '../../src/index.ts'
import { paymentEvents } from './catalogue.ts'
import { randomNumbers, seed } from './random.ts'

/** Others than those of the processes beside it. */
const random = randomNumbers(seed + process.pid)

const [, , url = '', driver = ''] = process.argv
const bus = createBus({ database: url, events: paymentEvents, source: 'payment-service' })

function openNodePostgres(listens: boolean): ReturnType<typeof drizzleOnNodePostgres> {
  const pool = new pg.Pool({ connectionString: url, max: 4, application_name: 'victim' })
  pool.on('error', () => {})
  if (listens) pool.on('connect', (client) => void client.on('error', () => {}))
  return drizzleOnNodePostgres(pool)
}

const db =
  driver === 'postgres.js'
    ? drizzleOnPostgresJs(postgres(url, { max: 4, connection: { application_name: 'victim' } }))
    : openNodePostgres(driver === 'node-postgres-listening')

const ends: Record<string, number> = {}
const count = (end: string): void => void (ends[end] = (ends[end] ?? 0) + 1)

async function write(tx: DrizzleTransaction, name: string): Promise<void> {
  await tx.execute(sql`insert into orders values (${name})`)
  // Work between the statements: what a connection that is replaced underneath needs to do harm.
  await new Promise((resolve) => setTimeout(resolve, random() * 10))
  try {
    await bus.publish(tx, { type: 'note', tenantId: 'a', payload: name })
  } catch (error) {
    count(error instanceof BusError ? error.code : 'another error')
    throw error
  }
  await new Promise((resolve) => setTimeout(resolve, random() * 10))
  await tx.execute(sql`insert into lines values (${name})`)
}

const once = async (name: string): Promise<unknown> =>
  'transaction' in db
    ? (db as ReturnType<typeof drizzleOnNodePostgres>).transaction(async (tx) => write(tx, name))
    : undefined

for (let writer = 0; writer < 6; writer += 1) {
  void (async () => {
    for (let n = 0; ; n += 1) {
      await once(`${process.pid}.${writer}.${n}`).then(
        () => count('committed'),
        () => count('failed'),
      )
    }
  })()
}
const report = (): void => console.log(JSON.stringify(ends))
process.on('SIGTERM', () => {
  report()
  process.exit(0)
})
process.on('uncaughtExceptionMonitor', (error) => {
  report()
  console.log(`uncaught: ${error.message}`)
})
console.log('started')
