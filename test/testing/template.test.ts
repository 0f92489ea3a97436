import { expect, test } from 'vitest'
import { databaseUrl } from '../../src/testing/databases.ts'
import { createTestDatabase, openTestDatabase } from '../../src/testing/test-database.ts'
import { startOwnServer } from '../support/own-server.ts'

test('processes that connect through different databases create the template at once, and each gets a database', async () => {
  const { url, rows } = await startOwnServer()
  const names = ['one', 'two', 'three']
  for (const name of names) await rows(`create database ${name}`)
  const databases = await Promise.all(names.map(async (name) => createTestDatabase(databaseUrl(url, name))))
  for (const database of databases) {
    expect(await database.query('select count(*)::int as count from bus.events')).toEqual([{ count: 0 }])
    await database.drop()
  }
  // Neither drafts nor the databases are left.
  expect(await rows("select from pg_database where datname like 'bossbus_%'")).toHaveLength(1)
})

test('a template of last month is brought up to date before it is cloned', async () => {
  const { url, rows } = await startOwnServer()
  const partitions =
    "select inhrelid::regclass::text as name from pg_inherits where inhparent = 'bus.events'::regclass order by 1 desc"
  const first = await createTestDatabase(url)
  const before = await first.query(partitions)
  await first.drop()
  const [template] = await rows(
    "select datname as name from pg_database where datname like 'bossbus_template_%'",
  )
  const old = openTestDatabase(databaseUrl(url, String(template?.['name'])))
  const newest = before.find(({ name }) => /\d$/.test(String(name)))
  await old.query(`drop table ${String(newest?.['name'])}`)
  expect(await old.query(partitions)).toHaveLength(before.length - 1)
  await old.drop()
  // To this process, by another URL, it is a server that it has not seen.
  await rows('create database other')
  const second = await createTestDatabase(databaseUrl(url, 'other'))
  expect(await second.query(partitions)).toEqual(before)
  await second.drop()
})
