import { sql } from 'drizzle-orm'
import { expect, test } from 'vitest'
import { testBus } from '../support/bus.ts'
import { createTestDatabase } from '../support/database.ts'
import { openSession } from '../support/session.ts'

test('a lock that was taken inside query does not stay with the connection', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  await bus.migrate()
  await bus.tenant('acme').query(async (db) => db.execute(sql`select pg_advisory_lock(1651864320, 4711)`))
  const another = await openSession(database)
  await another.rows(`set lock_timeout = '5s'`)
  expect(await another.rows('select pg_advisory_lock(1651864320, 4711) as held')).toEqual([{ held: '' }])
})
