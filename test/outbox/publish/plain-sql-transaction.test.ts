import { expect, test } from 'vitest'
import { createTestDatabase } from '../../support/database.ts'
import { openSession, type Session } from '../../support/session.ts'

interface Reply {
  readonly proof: string
  readonly published?: string | undefined
}

/** One call of `bus.publish_in_transaction`, as a driver sends it. */
async function call(
  { rows }: Session,
  proof: string | null,
  { payload = 1, eventId }: { payload?: unknown; eventId?: string } = {},
): Promise<Reply> {
  const [row] = await rows(
    `select bus.publish_in_transaction($1, payloads => $2, tenant_ids => '{acme}', types => '{note}',
       sources => '{psql}', event_ids => array[$3]::text[]) as reply`,
    [proof, JSON.stringify(payload), eventId ?? null],
  )
  return toReply(row?.['reply'])
}

function toReply(reply: unknown): Reply {
  const [proof = '', published] = String(reply).split(' ')
  return { proof, published }
}

const id = /^[0-9a-f-]{36}$/

const events = 'select count(*) from bus.events'

test('outside a transaction block nothing is written, however often it is called', async () => {
  const database = await createTestDatabase()
  const session = await openSession(database)
  const first = await call(session, null)
  expect(first).toEqual({ proof: expect.stringMatching(/^\d+\/\d{16}$/) as string, published: undefined })
  const second = await call(session, null)
  expect(second.published).toBeUndefined()
  expect(second.proof).not.toBe(first.proof)
  await expect(call(session, first.proof)).rejects.toMatchObject({ code: 'BUS01' })
  await expect(call(session, second.proof)).rejects.toMatchObject({ code: 'BUS01' })
  expect(await database.count(events)).toBe(0)
  await session.rows('begin')
  const { proof } = await call(session, null)
  expect((await call(session, proof)).published).toMatch(id)
  await session.rows('commit')
  expect(await database.count(events)).toBe(1)
})

test('in a block that has written nothing the second call publishes, with the proof of the first', async () => {
  const database = await createTestDatabase()
  const session = await openSession(database)
  await session.rows('begin')
  const first = await call(session, null)
  expect(first.published).toBeUndefined()
  const second = await call(session, first.proof, { eventId: 'e' })
  expect(second).toEqual({ proof: first.proof, published: expect.stringMatching(id) as string })
  // From then on the proof is at hand, or not needed.
  expect((await call(session, second.proof, { eventId: 'e' })).published).toBe(`${second.published}*`)
  expect((await call(session, null)).published).toMatch(id)
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
  expect((await call(session, null)).published).toMatch(id)
  await session.rows('commit')
  expect(await database.count(events)).toBe(1)
})

test('inside a savepoint, after one, and after rolling back to one, the transaction is the same', async () => {
  const database = await createTestDatabase()
  const session = await openSession(database)
  await session.rows('begin')
  const { proof } = await call(session, null)
  await session.rows('savepoint a')
  expect((await call(session, proof, { payload: 'undone' })).published).toMatch(id)
  await session.rows('rollback to savepoint a')
  // The transaction has an id now, although what it wrote is gone.
  expect((await call(session, null, { payload: 'without proof' })).published).toMatch(id)
  expect((await call(session, proof, { payload: 'with proof' })).published).toMatch(id)
  await session.rows('savepoint b')
  expect((await call(session, proof, { payload: 'released' })).published).toMatch(id)
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
  expect((await call(session, proof)).published).toMatch(id)
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
  expect((await call(one, proof)).published).toMatch(id)
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
  expect((await call(session, proof)).published).toMatch(id)
  await session.rows('commit')
  expect(await database.count(events)).toBe(1)
})

test('asked without events, it names the transaction and writes nothing, whatever was written before', async () => {
  const database = await createTestDatabase()
  const session = await openSession(database)
  await session.rows('begin')
  const { proof } = await call(session, null)
  expect((await call(session, proof)).published).toMatch(id)
  const [row] = await session.rows('select bus.publish_in_transaction(null) as reply')
  expect(toReply(row?.['reply'])).toEqual({ proof, published: undefined })
  await session.rows('commit')
  expect(await database.count(events)).toBe(1)
})
