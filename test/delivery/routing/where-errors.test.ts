import { expect, test } from 'vitest'
import { refusalOf } from '../../foundation/refusal.ts'
import { testBus } from '../../support/bus.ts'
import { createTestDatabase, until } from '../../support/database.ts'

const at = (payload: unknown) => ({ type: 'note', tenantId: 'acme', payload }) as const

test('a payload that a predicate cannot judge does not fulfil it, and holds up nobody', async () => {
  const { url, db, rows } = await createTestDatabase()
  const bus = testBus(url)
  const recent: unknown[] = []
  const all: unknown[] = []
  bus.subscribe({
    name: 'recent',
    events: ['note'],
    // A date without a time zone against a time with one is an error that PostgreSQL raises, in spite of `@@`.
    where: '$.at.datetime() > "2026-01-01T00:00:00+00:00".datetime()',
    handler: ({ payload }) => void recent.push(payload),
  })
  bus.subscribe({ name: 'all', events: ['note'], handler: ({ payload }) => void all.push(payload) })
  await bus.start()
  const filterByPredicate = { at: '2026-11-25T08:00:00+00:00' }
  const payloads = [
    { at: '2025-01-01T00:00:00+00:00' },
    { at: '2026-11-25' },
    { at: 'soon' },
    {},
    filterByPredicate,
  ]
  await expect(
    rows(
      `select '{"at": "2026-11-25"}'::jsonb @@ '$.at.datetime() > "2026-01-01T00:00:00+00:00".datetime()'::jsonpath`,
    ),
  ).rejects.toMatchObject({ code: '0A000' })
  // Together with the one that cannot be judged, and alone.
  await db.transaction(async (tx) => bus.publishMany(tx, payloads.map(at)))
  await db.transaction(async (tx) => bus.publish(tx, at({ at: '2026-11-26' })))
  await db.transaction(async (tx) => bus.publish(tx, at(filterByPredicate)))
  await until('all were delivered', () => all.length === 7 && recent.length === 2)
  expect(recent).toEqual([filterByPredicate, filterByPredicate])
})

test.each(['$.amountCents > $limit', '$"limit" == 1', 'exists($.items[*] ? (@.qty > $min))'])(
  'the predicate %s is refused at the start: nothing gives its variable a value',
  async (where) => {
    const { url } = await createTestDatabase()
    const bus = testBus(url)
    bus.subscribe({ name: 's', events: ['note'], where, handler: () => {} })
    expect(await refusalOf(async () => bus.start())).toMatchObject({
      code: 'BUS_INVALID_WHERE',
      message: expect.stringContaining('without variables') as string,
    })
  },
)

test.each([String.raw`$.name == "costs $\"5\" or $"`, '$."$" == 1', '$.a == "$x"'])(
  'a dollar sign in a text or a key is no variable: %s',
  async (where) => {
    const { url } = await createTestDatabase()
    const bus = testBus(url)
    bus.subscribe({ name: 's', events: ['note'], where, handler: () => {} })
    await bus.start()
    expect(bus.state).toBe('started')
  },
)
