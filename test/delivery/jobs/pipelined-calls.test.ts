import { PgBoss } from 'pg-boss'
import { expect, onTestFinished, test } from 'vitest'
import { sendTogether, type BossCall } from '../../../src/delivery/jobs/pipelined-calls.ts'
import { stderrLogger } from '../../../src/foundation/logger.ts'
import { BusClient } from '../../../src/database/bus-client.ts'
import { createDatabase } from '../../../src/database/database.ts'
import { testBus } from '../../support/bus.ts'
import { createTestDatabase, until } from '../../support/database.ts'

const insert =
  (text: string): BossCall =>
  async ({ db }) =>
    (await db.executeSql(text, [])).rows as unknown[]

async function setUp() {
  const testDatabase = await createTestDatabase()
  await testDatabase.rows('create table lines (id int primary key)')
  const database = createDatabase(testDatabase.url, stderrLogger)
  onTestFinished(async () => database.close())
  const together = async (calls: readonly BossCall[]): Promise<readonly unknown[]> =>
    database.transaction(async (client, _begun, commit) => sendTogether(client as never, commit, calls))
  const lines = async (): Promise<unknown[]> =>
    (await testDatabase.rows('select id from public.lines order by id')).map(({ id }) => id)
  return { testDatabase, database, together, lines }
}

test('calls are answered in order, and what they wrote is committed', async () => {
  const { together, lines } = await setUp()
  expect(
    await together([1, 2, 3].map((id) => insert(`insert into public.lines values (${id}) returning id`))),
  ).toEqual([[{ id: 1 }], [{ id: 2 }], [{ id: 3 }]])
  expect(await lines()).toEqual([1, 2, 3])
})

test('where one statement fails, nothing is committed, its error is the one that is thrown, and the connection goes on', async () => {
  const { together, lines, database } = await setUp()
  const calls = [
    'insert into public.lines values (1)',
    'insert into public.lines values (1)',
    'insert into public.lines values (2)',
  ]
  await expect(together(calls.map(insert))).rejects.toMatchObject({ sqlState: '23505' })
  expect(await lines()).toEqual([])
  await together([insert('insert into public.lines values (3)')])
  expect(await lines()).toEqual([3])
  expect((await database.query('select 1 as one')).rows).toEqual([{ one: 1 }])
})

test('a call that fails before it has sent anything keeps the others, and the commit, from being sent', async () => {
  const { together, lines } = await setUp()
  const refuses: BossCall = async () => Promise.reject(new Error('no such queue'))
  await expect(
    together([
      insert('insert into public.lines values (1)'),
      refuses,
      insert('insert into public.lines values (2)'),
    ]),
  ).rejects.toThrow('no such queue')
  expect(await lines()).toEqual([])
})

test('a commit whose transaction has failed before is an error, though the server calls it a success', async () => {
  const { database, lines } = await setUp()
  await expect(
    database.transaction(async (client) => {
      await client.query('insert into public.lines values (1)')
      await client.query('select 1 / 0').catch(() => {})
    }),
  ).rejects.toMatchObject({ sqlState: '25P02' })
  expect(await lines()).toEqual([])
})

test('a connection that is lost between the statements and the answer to the commit loses no event', async () => {
  const { testDatabase } = await setUp()
  const bus = testBus(testDatabase.url)
  const seen: unknown[] = []
  bus.subscribe({ name: 'seen', events: ['note'], handler: ({ payload }) => void seen.push(payload) })
  await bus.start()
  for (let round = 0; round < 5; round += 1) {
    await testDatabase.db.transaction(async (tx) =>
      bus.publish(tx, { type: 'note', tenantId: 'acme', payload: round }),
    )
    await testDatabase.rows(
      `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and query ilike '%outbox%'`,
    )
  }
  await until('all were delivered', () => new Set(seen).size === 5)
  expect(await testDatabase.count('select count(*) from bus.outbox')).toBe(0)
})

test('an event whose queue was deleted is delivered once the queue is there again', async () => {
  const { testDatabase } = await setUp()
  const bus = testBus(testDatabase.url)
  const seen: unknown[] = []
  bus.subscribe({ name: 'seen', events: ['note'], handler: ({ payload }) => void seen.push(payload) })
  await bus.start()
  const boss = new PgBoss({ connectionString: testDatabase.url, supervise: false, schedule: false })
  await boss.start()
  await boss.deleteQueue('bus.seen')
  await boss.stop({ graceful: false })
  await testDatabase.db.transaction(async (tx) =>
    bus.publish(tx, { type: 'note', tenantId: 'acme', payload: 'after' }),
  )
  await until('it was delivered', () => seen.length === 1)
  expect(seen).toEqual(['after'])
})

test('statements of a pipelined section reach the server before any is answered', async () => {
  const { testDatabase } = await setUp()
  const client = new BusClient({ connectionString: testDatabase.url })
  onTestFinished(async () => client.end())
  await client.connect()
  const sentAt: number[] = []
  const answeredAt: number[] = []
  await client.pipelined(async () =>
    Promise.all(
      [1, 2].map(async () => {
        sentAt.push(performance.now())
        await client.query('select pg_sleep(0.1)')
        answeredAt.push(performance.now())
      }),
    ),
  )
  expect(Math.max(...sentAt)).toBeLessThan(Math.min(...answeredAt))
  expect((await client.query('select 2 as two')).rows).toEqual([{ two: 2 }])
})
