import { expect, test } from 'vitest'
import type { DeadLetter } from '../../../src/index.ts'
import { testBus } from '../../support/bus.ts'
import { createTestDatabase, until } from '../../support/database.ts'
import { subscribeDoomed, untilDead } from '../../support/dead-letters.ts'
import { publish } from '../../support/ledger.ts'

const note = { type: 'note', tenantId: 'acme' } as const

test('pages follow each other without a gap and without repeating one, parked events among them', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  subscribeDoomed(bus, 'doomed')
  subscribeDoomed(bus, 'parks', { ordered: true, onKeyFailure: 'park' })
  await bus.start()
  await publish(
    database,
    bus,
    ...Array.from({ length: 20 }, (_, n) => ({ ...note, payload: n, orderingKey: `k${n % 4}` })),
  )
  await untilDead(database, 24)
  const all = await bus.deadLetters.list()
  expect(all).toHaveLength(40)
  // Many have become dead letters in the same transaction, at the same time.
  await database.rows(`update bus.failing set failed_at = '2026-01-01'`)
  await database.rows(`update bus.ordered_keys set failed_at = '2026-01-01' where failed_at is not null`)
  const seen: DeadLetter[] = []
  for (let page = await bus.deadLetters.list({ limit: 7 }); page.length > 0;) {
    seen.push(...page)
    page = await bus.deadLetters.list({ limit: 7, after: page.at(-1)?.cursor })
  }
  const nameOf = ({ id, subscription }: DeadLetter): string => `${id} ${subscription}`
  expect(seen.map(nameOf).toSorted()).toEqual(all.map(nameOf).toSorted())
  const ofTypes = await bus.deadLetters.list({ type: ['note', 'other'], limit: 30 })
  expect(ofTypes.map(nameOf)).toEqual(seen.slice(0, 30).map(nameOf))
  expect(await bus.deadLetters.list({ type: 'payment.paid' })).toEqual([])
  await expect(bus.deadLetters.list({ after: 'x' })).rejects.toMatchObject({ code: 'BUS_INVALID_OPTION' })
})

test('one error in several subscriptions is one group, with its tenants', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  subscribeDoomed(bus, 'first')
  subscribeDoomed(bus, 'second')
  subscribeDoomed(bus, 'other', { retry: { maxAttempts: 1 } }).fails = () => {
    throw new RangeError('beyond')
  }
  await bus.start()
  const ids = await publish(
    database,
    bus,
    { ...note, payload: 1 },
    { ...note, tenantId: 'rival', payload: 2 },
  )
  await untilDead(database, 6)
  const groups = await bus.deadLetters.groups()
  expect(groups).toMatchObject([
    {
      ...{ errorName: 'TypeError', message: 'account 1 is unknown', count: 4, tenantCount: 2 },
      ...{ subscriptions: ['first', 'second'], isTenantCountPartial: false },
    },
    { errorName: 'RangeError', message: 'beyond', count: 2, subscriptions: ['other'] },
  ])
  expect(ids).toContain(groups[0]?.newestId)
  expect(await bus.deadLetters.groups({ tenantId: 'rival', errorName: 'RangeError' })).toMatchObject([
    { count: 1, tenantCount: 1 },
  ])
  expect(await bus.deadLetters.groups({ fingerprint: 'none' })).toEqual([])
})

test('a tenant reads its own with every filter, and none of another one', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  subscribeDoomed(bus, 'doomed')
  await bus.start()
  const [mine, theirs] = await publish(
    database,
    bus,
    { ...note, payload: 1 },
    { ...note, tenantId: 'rival', payload: 2 },
  )
  await untilDead(database, 2)
  await until('both are listed', async () => (await bus.deadLetters.list()).length === 2)
  const [letter] = await bus.tenant('acme').deadLetters.list()
  expect(letter).toMatchObject({ id: mine, tenantId: 'acme', type: 'note', state: 'dead' })
  const filters = [
    { subscription: 'doomed' },
    { fingerprint: letter?.fingerprint },
    { errorName: 'TypeError' },
    { state: 'dead' as const },
    { type: 'note' },
    { from: new Date(0), to: new Date(Date.now() + 60_000) },
  ]
  for (const filter of filters) {
    expect((await bus.tenant('acme').deadLetters.list(filter)).map(({ id }) => id)).toEqual([mine])
    expect((await bus.tenant('rival').deadLetters.list(filter)).map(({ id }) => id)).toEqual([theirs])
    expect(await bus.tenant('nobody').deadLetters.list(filter)).toEqual([])
  }
  await expect(bus.tenant('acme').deadLetters.list({ tenantId: 'rival' } as object)).rejects.toMatchObject({
    code: 'BUS_INVALID_OPTION',
  })
  // What plain SQL in a tenant's scope asks for is still the tenant's.
  for (const filter of [`'{"tenantId": "rival"}'`, 'null', `'[]'`, `'["tenantId"]'`, `'1'`, `'null'`]) {
    const found = await bus
      .tenant('acme')
      .query(async (db) => db.execute(`select event_id from bus.tenant_dead_letters(${filter}::jsonb, 10)`))
    expect([filter, found.rows]).toEqual([filter, [{ event_id: mine }]])
  }
})
