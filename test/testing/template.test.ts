import { expect, test } from 'vitest'
import { createTestDatabase } from '../../src/testing/test-database.ts'
import { startOwnServer } from '../support/own-server.ts'

test('processes that connect through different databases create the template at once, and each gets a database', async () => {
  const { url, rows } = await startOwnServer()
  const names = ['one', 'two', 'three']
  for (const name of names) await rows(`create database ${name}`)
  const databases = await Promise.all(
    names.map(async (name) =>
      createTestDatabase(Object.assign(new URL(url), { pathname: `/${name}` }).toString()),
    ),
  )
  for (const database of databases) {
    expect(await database.query('select count(*)::int as count from bus.events')).toEqual([{ count: 0 }])
    await database.drop()
  }
  // Neither drafts nor the databases are left.
  expect(await rows("select from pg_database where datname like 'bossbus_%'")).toHaveLength(1)
})
