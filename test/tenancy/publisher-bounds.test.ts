import { randomUUID } from 'node:crypto'
import { expect, test } from 'vitest'
import { createTestDatabase } from '../support/database.ts'
import { createLogin } from '../support/roles.ts'
import { openSession } from '../support/session.ts'

const event = (fields: Record<string, unknown>): string =>
  JSON.stringify([{ tenantId: 'acme', type: 'note', source: 'billing', payload: 1, ...fields }])

const claim = 'select bus.claim_event_keys(array[$1::uuid], array[$2], array[$3], array[$4]) as ids'

test('a publisher cannot make the key of a stored event mean another event', async () => {
  const database = await createTestDatabase()
  const publisher = await createLogin(database, ['bus_publisher'])
  const publish = async (fields: Record<string, unknown>): Promise<Record<string, unknown> | undefined> =>
    (await publisher.rows('select id, duplicate from bus.publish($1)', [event(fields)]))[0]
  const first = await publish({ idempotencyKey: 'order-1' })
  // Its own key, which means an event that there is not.
  const forged = randomUUID()
  await publisher.rows(claim, [forged, 'acme', 'mine', null])
  await expect(publisher.rows(claim, [first?.['id'], 'acme', 'mine', 'order-1'])).rejects.toMatchObject({
    code: '22023',
  })
  expect(await publish({ idempotencyKey: 'order-1' })).toEqual({ id: first?.['id'], duplicate: true })
  // What is a duplicate by one key and brings another still gives that one its meaning.
  expect(await publish({ eventId: 'new', idempotencyKey: 'order-1' })).toMatchObject({ duplicate: true })
  expect(await publish({ eventId: 'new' })).toEqual({ id: first?.['id'], duplicate: true })
})

test('who is bound by source rules cancels what it may publish, and nothing else', async () => {
  const database = await createTestDatabase()
  const adapter = await createLogin(database, ['bus_publisher'])
  const billing = await createLogin(database, ['bus_publisher'])
  await database.rows('insert into bus.source_rules (role, source) values ($1, $2)', [
    adapter.name,
    'adapter',
  ])
  const schedule = async (source: string): Promise<unknown> =>
    (
      await billing.rows('select id from bus.publish($1)', [
        event({ source, availableAt: '2999-01-01T00:00:00Z' }),
      ])
    )[0]?.['id']
  const [billed, second, own] = [
    await schedule('billing'),
    await schedule('billing'),
    await schedule('adapter'),
  ]
  const session = await openSession({ ...database, url: adapter.url })
  for (const statement of ['reset role', 'set role bus_publisher']) {
    await session.rows(statement)
    await expect(session.rows('select bus.cancel($1)', [billed])).rejects.toMatchObject({ code: '42501' })
    expect(await session.rows('select bus.cancel($1) as done', [randomUUID()])).toEqual([{ done: false }])
  }
  expect(await session.rows('select bus.cancel($1) as done', [own])).toEqual([{ done: true }])
  // Who has no rule is bound by none, and the owner is not bound by rules at all.
  expect(await billing.rows('select bus.cancel($1) as done', [billed])).toEqual([{ done: true }])
  expect(await database.rows('select bus.cancel($1) as done', [second])).toEqual([{ done: true }])
})
