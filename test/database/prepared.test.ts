import { expect, test } from 'vitest'
import { createPreparer, queryPrepared, setPreparer } from '../../src/database/prepared.ts'
import { recordingLogger } from '../support/bus.ts'
import { createTestDatabase } from '../support/database.ts'
import { openSession } from '../support/session.ts'

const double = 'select $1::int * 2 as doubled'
const preparedCount = 'select count(*)::int as count from pg_prepared_statements'

test('a statement is prepared once a connection, and each text has its own', async () => {
  const { client, rows } = await openSession(await createTestDatabase())
  const preparer = createPreparer(recordingLogger())
  for (const value of [1, 2, 3])
    expect((await preparer.query(client, double, [value])).rows).toEqual([{ doubled: value * 2 }])
  expect(await rows(preparedCount)).toEqual([{ count: 1 }])
  expect((await preparer.query(client, `${double}, 1 as one`, [4])).rows).toEqual([{ doubled: 8, one: 1 }])
  expect(await rows(preparedCount)).toEqual([{ count: 2 }])
})

test('where a pooler has lost a statement, that call fails and nothing is prepared from then on', async () => {
  const database = await createTestDatabase()
  const { client, rows } = await openSession(database)
  const logger = recordingLogger()
  const preparer = createPreparer(logger)
  setPreparer(client, preparer)
  await queryPrepared(client, double, [1])
  // What a pooler does that gives the next transaction another connection.
  await rows('deallocate all')
  await expect(queryPrepared(client, double, [2])).rejects.toMatchObject({ code: '26000' })
  expect((await queryPrepared(client, double, [3])).rows).toEqual([{ doubled: 6 }])
  expect((await queryPrepared(client, `${double}, 1 as one`, [3])).rows).toHaveLength(1)
  expect(await rows(preparedCount)).toEqual([{ count: 0 }])
  expect(logger.lines.map(({ level }) => level)).toEqual(['info'])
})

test('any other error leaves the statements prepared', async () => {
  const { client, rows } = await openSession(await createTestDatabase())
  const logger = recordingLogger()
  const preparer = createPreparer(logger)
  await expect(preparer.query(client, 'select 1 / $1::int', [0])).rejects.toMatchObject({ code: '22012' })
  await preparer.query(client, double, [1])
  expect(await rows(preparedCount)).toEqual([{ count: 2 }])
  expect(logger.lines).toEqual([])
})
