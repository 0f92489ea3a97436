// A service without an ORM: the transaction of a node-postgres client.
import pg from 'pg'
import { createBus, fromPg, type AdaptedTransaction } from '../../src/index.ts'
import type { Environment } from './environment.ts'
import { events } from './events.ts'

/** Runs work in a transaction of a client from the pool. */
async function transact<T>(
  pool: pg.Pool,
  work: (client: pg.PoolClient, tx: AdaptedTransaction) => Promise<T>,
): Promise<T> {
  const client = await pool.connect()
  let broken = true
  try {
    await client.query('begin')
    const result = await work(client, fromPg(client))
    await client.query('commit')
    broken = false
    return result
  } catch (error) {
    await client.query('rollback')
    broken = false
    throw error
  } finally {
    client.release(broken)
  }
}

export async function run({ url }: Environment) {
  const pool = new pg.Pool({ connectionString: url })
  const bus = createBus({ database: url, events, source: 'payment-service' })
  await pool.query('create table payments (id text primary key, cents int)')

  const pay = async (paymentId: string, amountCents: number): Promise<boolean> =>
    transact(pool, async (client, tx) => {
      await bus.publish(tx, { type: 'payment.paid', tenantId: 'acme', payload: { paymentId, amountCents } })
      await client.query('insert into payments values ($1, $2)', [paymentId, amountCents])
      return true
    }).catch(() => false)

  const committed = [await pay('42', 4200), await pay('42', 4200), await pay('43', 100)]
  const stored = await bus.events.find()
  await Promise.all([bus.stop(), pool.end()])
  return { committed, stored: stored.map(({ payload }) => payload).toReversed() }
}
