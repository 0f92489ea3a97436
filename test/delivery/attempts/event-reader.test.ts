import { expect, test } from 'vitest'
import type { StoredEvent } from '../../../src/events/envelope.ts'
import { createEventReader, type EventReader } from '../../../src/delivery/attempts/event-reader.ts'
import type { Executor } from '../../../src/database/database.ts'
import { testBus } from '../../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'

/** Reads a test database and counts the statements. */
function countingExecutor({ rows }: TestDatabase): Executor & { readonly statementCount: () => number } {
  let count = 0
  return {
    statementCount: () => count,
    query: async <R>(text: string, values?: unknown[]) => {
      count += 1
      return { rows: (await rows(text, values)) as R[] }
    },
  }
}

async function publishNotes(database: TestDatabase, payloads: readonly unknown[]): Promise<string[]> {
  const bus = testBus(database.url)
  const published = await database.db.transaction(async (tx) =>
    bus.publishMany(
      tx,
      payloads.map((payload) => ({ type: 'note', tenantId: 'a', payload }) as const),
    ),
  )
  return published.map(({ id }) => id)
}

/** What a reader has of some events, in their order. */
async function read(reader: EventReader, ids: readonly string[]): Promise<readonly StoredEvent[]> {
  const events = await reader.load(ids)
  return ids.flatMap((id) => events.get(id) ?? [])
}

test('what is asked for at once is read in one statement, and again from memory', async () => {
  const database = await createTestDatabase()
  const ids = await publishNotes(database, ['a', 'b', 'c'])
  const executor = countingExecutor(database)
  const reader = createEventReader(executor, () => 2)
  const [first, second] = await Promise.all([read(reader, ids.slice(0, 2)), read(reader, ids.slice(1))])
  expect(first.map(({ payload }) => payload)).toEqual(['a', 'b'])
  expect(second.map(({ payload }) => payload)).toEqual(['b', 'c'])
  expect((await read(reader, ids)).map(({ id }) => id)).toEqual(ids)
  expect(executor.statementCount()).toBe(1)
})

test('for a single worker nothing is kept', async () => {
  const database = await createTestDatabase()
  const ids = await publishNotes(database, ['a'])
  const executor = countingExecutor(database)
  const reader = createEventReader(executor, () => 1)
  expect(await read(reader, ids)).toHaveLength(1)
  expect(await read(reader, ids)).toHaveLength(1)
  expect(executor.statementCount()).toBe(2)
})

test('an event that a statement does not give is asked for in another one at once, then left out, and asked for again', async () => {
  const database = await createTestDatabase()
  const [id = ''] = await publishNotes(database, ['a'])
  const unknown = '01900000-0000-7000-8000-000000000000'
  const executor = countingExecutor(database)
  const reader = createEventReader(executor, () => 2)
  expect((await read(reader, [unknown, id])).map((event) => event.id)).toEqual([id])
  expect(executor.statementCount()).toBe(2)
  expect(await read(reader, [unknown])).toEqual([])
  expect(executor.statementCount()).toBe(4)
})

test('a read that failed fails everybody who waited for it, and the next one reads anew', async () => {
  const database = await createTestDatabase()
  const ids = await publishNotes(database, ['a'])
  let broken = true
  const working = countingExecutor(database)
  const failing: Executor = {
    query: async (text, values) => {
      if (broken) throw new Error('the connection is gone')
      return working.query(text, values)
    },
  }
  const reader = createEventReader(failing, () => 2)
  const results = await Promise.allSettled([reader.load(ids), reader.load(ids)])
  expect(results.map(({ status }) => status)).toEqual(['rejected', 'rejected'])
  broken = false
  expect(await read(reader, ids)).toHaveLength(1)
})

test('a handler that changes its event changes no other subscription’s', async () => {
  const { url, db } = await createTestDatabase()
  const bus = testBus(url)
  const seen: unknown[] = []
  for (const name of ['one', 'two', 'three']) {
    bus.subscribe({
      name,
      events: ['note'],
      handler: (event) => {
        const { payload } = event as { payload: { list: number[] } }
        seen.push([...payload.list])
        payload.list.push(99)
        event.createdAt.setTime(0)
        ;(event.metadata as Record<string, string>)['more'] = 'x'
      },
    })
  }
  await bus.start()
  await db.transaction(async (tx) => bus.publish(tx, { type: 'note', tenantId: 'a', payload: { list: [1] } }))
  await until('all three have it', () => seen.length === 3)
  expect(seen).toEqual([[1], [1], [1]])
})

test('a delivery whose receipt is there already is settled all the same, beside others', async () => {
  const { url, db, rows, count } = await createTestDatabase()
  const bus = testBus(url)
  bus.subscribe({
    name: 'twice',
    events: ['note'],
    handler: async (event) => {
      // Another worker was faster with this one.
      if (event.payload === 'b')
        await rows(
          `insert into bus.receipts (subscription_id, event_id, attempts, duration_ms) select id, $1, 1, 1 from bus.subscriptions`,
          [event.id],
        )
    },
  })
  await db.transaction(async (tx) =>
    bus.publishMany(
      tx,
      ['a', 'b', 'c'].map((payload) => ({ type: 'note', tenantId: 'a', payload }) as const),
    ),
  )
  await bus.start()
  await until('all have receipts', async () => (await count('select count(*) from bus.deliveries')) === 3)
  await until(
    'the job is completed',
    async () => (await count(`select count(*) from pgboss.job where state <> 'completed'`)) === 0,
  )
  expect(await count('select count(*) from pgboss.job')).toBe(1)
})
