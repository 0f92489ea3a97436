import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import { BusClient } from '../../src/database/bus-client.ts'
import { createTestDatabase } from '../support/database.ts'

async function connect(): Promise<BusClient> {
  const { url } = await createTestDatabase()
  const client = new BusClient({ connectionString: url })
  onTestFinished(async () => client.end())
  await client.connect()
  return client
}

test('answers by promise, to a callback, and to an object that takes the answer itself', async () => {
  const client = await connect()
  const byText = await client.query<{ n: number }>('select $1::int as n', [1])
  const byConfig = await client.query<{ n: number }>({ text: 'select $1::int as n', values: [2] })
  expect([...byText.rows, ...byConfig.rows]).toEqual([{ n: 1 }, { n: 2 }])
  const toCallback = await new Promise<pg.QueryResult>((resolve, reject) => {
    client.query('select 3 as n', (error: Error | null, result) => (error ? reject(error) : resolve(result)))
  })
  expect(toCallback.rows).toEqual([{ n: 3 }])
  const rows: unknown[] = []
  const query = client.query(new pg.Query('select 4 as n'))
  query.on('row', (row) => rows.push(row))
  await new Promise((resolve) => void query.on('end', resolve))
  expect(rows).toEqual([{ n: 4 }])
})

test('the stack of a statement that failed leads to who sent it', async () => {
  const client = await connect()
  async function sendNonsense(): Promise<unknown> {
    const { rows } = await client.query('select nonsense')
    return rows
  }
  const error = await sendNonsense().catch((thrown: unknown) => thrown)
  expect(error).toMatchObject({ code: '42703', stack: expect.stringContaining('sendNonsense') as string })
})
