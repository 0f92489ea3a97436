import { drizzle, type NodePgDatabase } from 'drizzle-orm/node-postgres'
import pg from 'pg'
import { onTestFinished } from 'vitest'
import type { DrizzleTransaction } from '../../src/index.ts'

type Transaction = Parameters<Parameters<NodePgDatabase['transaction']>[0]>[0]

/** Runs a Drizzle transaction on a pool of the test's own. */
export type Transact = <T>(work: (tx: Transaction) => Promise<T>) => Promise<T>

/**
 * As docs/drivers.md advises: `db.transaction` of Drizzle on a pool never gives a connection back whose BEGIN failed
 * (drizzle-orm #6241), and soon there is none left.
 */
export function openTransact(url: string, max: number): Transact {
  const pool = new pg.Pool({ connectionString: url, max, connectionTimeoutMillis: 5000 })
  pool.on('error', () => {})
  pool.on('connect', (client) => void client.on('error', () => {}))
  onTestFinished(() => void pool.end())
  return async (work) => {
    const client = await pool.connect()
    let failed = true
    try {
      const result = await drizzle(client).transaction(work)
      failed = false
      return result
    } finally {
      client.release(failed)
    }
  }
}

/** A handle that is no transaction, but looks like one: it is the server that finds it out. */
export function asIfTransaction<H extends object>(handle: H): H & DrizzleTransaction {
  const rollback = (): never => {
    throw new Error('not used')
  }
  return Object.assign(Object.create(handle) as H & Pick<DrizzleTransaction, 'execute'>, { rollback })
}
