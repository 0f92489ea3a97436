import { expect, test } from 'vitest'
import { createTestDatabase } from '../support/database.ts'
import { openSession, type Session } from '../support/session.ts'

interface Reply {
  readonly proof: string
  readonly events?: readonly (readonly [id: string, duplicate: boolean])[]
}

/** One call of `bus.publish_in_transaction`, as a driver sends it. */
async function call({ rows }: Session, proof: string | null, more: object = {}): Promise<Reply> {
  const event = { tenantId: 'acme', type: 'note', source: 'psql', payload: 1, ...more }
  const [row] = await rows('select bus.publish_in_transaction($1, $2) as reply', [
    JSON.stringify([event]),
    proof,
  ])
  return JSON.parse(String(row?.['reply'])) as Reply
}

const events = 'select count(*) from bus.events'

test('outside a transaction block nothing is written, however often it is called', async () => {
  const database = await createTestDatabase()
  const session = await openSession(database)
  const first = await call(session, null)
  expect(first).toEqual({ proof: expect.stringMatching(/^\d+\/\d{16}$/) as string })
  const second = await call(session, null)
  expect(second.events).toBeUndefined()
  expect(second.proof).not.toBe(first.proof)
  await expect(call(session, first.proof)).rejects.toMatchObject({ code: 'BUS01' })
  await expect(call(session, second.proof)).rejects.toMatchObject({ code: 'BUS01' })
  expect(await database.count(events)).toBe(0)
  await session.rows('begin')
  const { proof } = await call(session, null)
  expect((await call(session, proof)).events).toHaveLength(1)
  await session.rows('commit')
  expect(await database.count(events)).toBe(1)
})

test('in a block that has written nothing the second call publishes, with the proof of the first', async () => {
  const database = await createTestDatabase()
  const session = await openSession(database)
  await session.rows('begin')
  const first = await call(session, null)
  expect(first.events).toBeUndefined()
  const second = await call(session, first.proof, { eventId: 'e' })
  expect(second).toEqual({ proof: first.proof, events: [[expect.any(String), false]] })
  // From then on the proof is at hand, or not needed.
  expect((await call(session, second.proof, { eventId: 'e' })).events).toEqual([
    [second.events?.[0]?.[0], true],
  ])
  expect((await call(session, null)).events).toHaveLength(1)
  await session.rows('commit')
  expect(await database.count(events)).toBe(2)
  await expect(call(session, second.proof)).rejects.toMatchObject({ code: 'BUS01' })
  expect(await database.count(events)).toBe(2)
})

test('in a block that has written before one call publishes', async () => {
  const database = await createTestDatabase()
  await database.rows('create table public.state (note text)')
  const session = await openSession(database)
  await session.rows('begin')
  await session.rows(`insert into public.state values ('before')`)
  expect((await call(session, null)).events).toHaveLength(1)
  await session.rows('commit')
  expect(await database.count(events)).toBe(1)
})

test('inside a savepoint, after one, and after rolling back to one, the transaction is the same', async () => {
  const database = await createTestDatabase()
  const session = await openSession(database)
  await session.rows('begin')
  const { proof } = await call(session, null)
  await session.rows('savepoint a')
  expect((await call(session, proof, { payload: 'undone' })).events).toHaveLength(1)
  await session.rows('rollback to savepoint a')
  // The transaction has an id now, although what it wrote is gone.
  expect((await call(session, null, { payload: 'without proof' })).events).toHaveLength(1)
  expect((await call(session, proof, { payload: 'with proof' })).events).toHaveLength(1)
  await session.rows('savepoint b')
  expect((await call(session, proof, { payload: 'released' })).events).toHaveLength(1)
  await session.rows('release savepoint b')
  await session.rows('commit')
  const stored = await database.rows('select payload from bus.events order by id')
  expect(stored.map(({ payload }) => payload)).toEqual(['without proof', 'with proof', 'released'])
})

test('a rollback to a savepoint before any write leaves the proof valid', async () => {
  const database = await createTestDatabase()
  const session = await openSession(database)
  await session.rows('begin')
  await session.rows('savepoint a')
  const { proof } = await call(session, null)
  await session.rows('rollback to savepoint a')
  expect((await call(session, proof)).events).toHaveLength(1)
  await session.rows('rollback')
  expect(await database.count(events)).toBe(0)
})

test('the proof of one transaction is refused in another one, of the same and of another session', async () => {
  const database = await createTestDatabase()
  const [one, other] = [await openSession(database), await openSession(database)]
  await one.rows('begin')
  const { proof } = await call(one, null)
  await other.rows('begin')
  await expect(call(other, proof)).rejects.toMatchObject({ code: 'BUS01' })
  await other.rows('rollback')
  expect((await call(one, proof)).events).toHaveLength(1)
  await one.rows('commit')
  await one.rows('begin')
  await expect(call(one, proof)).rejects.toMatchObject({ code: 'BUS01' })
  await one.rows('rollback')
  expect(await database.count(events)).toBe(1)
})

test('the settings of a session do not change its proof', async () => {
  const database = await createTestDatabase()
  const session = await openSession(database)
  await session.rows('begin')
  const { proof } = await call(session, null)
  await session.rows(`set local timezone = 'Pacific/Auckland'`)
  await session.rows(`set local datestyle = 'SQL, DMY'`)
  await session.rows('set local extra_float_digits = -3')
  expect((await call(session, proof)).events).toHaveLength(1)
  await session.rows('commit')
  expect(await database.count(events)).toBe(1)
})

test('an empty array is published as nothing', async () => {
  const session = await openSession(await createTestDatabase())
  await session.rows('begin')
  const { proof } = await call(session, null)
  const [row] = await session.rows(`select bus.publish_in_transaction('[]', $1)::jsonb as reply`, [proof])
  expect(row?.['reply']).toEqual({ proof, events: null })
})
