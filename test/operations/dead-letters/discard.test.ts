import { expect, test } from 'vitest'
import { testBus } from '../../support/bus.ts'
import { createTestDatabase, until } from '../../support/database.ts'
import { ended, subscribeDoomed, untilDead } from '../../support/dead-letters.ts'
import { publish } from '../../support/ledger.ts'

const note = { type: 'note', tenantId: 'acme' } as const
const by = { by: 'ana', reason: 'the account was closed' }

test('a discarded event is never delivered, and its delivery says by whom and why', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const doomed = subscribeDoomed(bus, 'doomed')
  const other = subscribeDoomed(bus, 'other')
  await bus.start()
  const ids = await publish(database, bus, { ...note, payload: 1 }, { ...note, payload: 2 })
  await untilDead(database, 4)
  const [id = ''] = ids
  const selection = { subscription: 'doomed', ids: [id] }
  expect(await bus.deadLetters.discard(selection, { ...by, dryRun: true })).toMatchObject({ count: 1 })
  expect(await ended(bus, await bus.deadLetters.discard(selection, by))).toMatchObject({
    ...{ kind: 'discard', state: 'done', counts: { discarded: 1 } },
  })
  expect(await bus.deliveries(id)).toMatchObject([
    {
      ...{
        subscription: 'doomed',
        state: 'discarded',
        attempts: 2,
        lastError: undefined,
        deliveredAt: undefined,
      },
      discard: { by: 'ana', reason: by.reason, replacedBy: undefined },
      timeline: [{ attempt: 1 }, { attempt: 2 }],
    },
    { subscription: 'other', state: 'dead', discard: undefined },
  ])
  // A tenant learns that, and not by whom.
  expect((await bus.tenant('acme').deliveries(id))[0]).toMatchObject({
    ...{ state: 'discarded', discard: { by: undefined, reason: undefined } },
  })
  expect(await bus.tenant('rival').deliveries(id)).toEqual([])
  expect(await database.rows('select event_id, expired, discarded from bus.deliveries')).toEqual([
    { event_id: id, expired: true, discarded: true },
  ])
  for (const each of [doomed, other]) each.fails = false
  const rest = await bus.deadLetters.redrive({ from: new Date(0) }, { by: 'ana' })
  expect(await ended(bus, rest)).toMatchObject({ counts: { redriven: 3 } })
  await until('the others are delivered', () => doomed.done.length === 1 && other.done.length === 2)
  expect(doomed.done).toEqual([2])
  expect(await bus.audit.list({ action: 'deadLetters.discard' })).toMatchObject([
    { by: 'ana', reason: by.reason, outcome: { counts: { discarded: 1 } } },
  ])
})

test.each(['block', 'park'] as const)(
  'discarding the event that holds its key (%s) delivers those behind it',
  async (onKeyFailure) => {
    const database = await createTestDatabase()
    const bus = testBus(database.url)
    const doomed = subscribeDoomed(bus, 'in-order', { ordered: true, onKeyFailure })
    doomed.fails = (payload) => payload === 1
    await bus.start()
    const [id = ''] = await publish(
      database,
      bus,
      ...[1, 2, 3].map((payload) => ({ ...note, payload, orderingKey: 'k' })),
    )
    await untilDead(database, 1)
    expect(doomed.done).toEqual([])
    const operation = await bus.deadLetters.discard({ subscription: 'in-order' }, by)
    expect(await ended(bus, operation)).toMatchObject({ state: 'done', counts: { discarded: 1 } })
    await until('the others are delivered', () => doomed.done.length === 2)
    expect(doomed.done).toEqual([2, 3])
    expect(await bus.blockedKeys.list()).toEqual([])
    expect(await bus.deliveries(id)).toMatchObject([{ state: 'discarded' }])
    expect(await database.count(`select count(*) from pgboss.job where name = 'bus.in-order.dead'`)).toBe(0)
  },
)

test('a dead letter that is being tried again is not discarded', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const doomed = subscribeDoomed(bus, 'doomed')
  await bus.start()
  await publish(database, bus, ...Array.from({ length: 30 }, (_, payload) => ({ ...note, payload })))
  await untilDead(database, 30)
  doomed.fails = false
  const [redrive, discard] = await Promise.all([
    bus.deadLetters.redrive({ subscription: 'doomed' }, { by: 'ana', probe: 0 }),
    bus.deadLetters.discard({ subscription: 'doomed' }, by),
  ])
  const [redriven = 0, discarded = 0] = [
    (await ended(bus, redrive)).counts['redriven'],
    (await ended(bus, discard)).counts['discarded'],
  ]
  expect(redriven + discarded).toBe(30)
  await until('nothing fails', async () => (await database.count('select count(*) from bus.failing')) === 0)
  expect(new Set(doomed.done).size).toBe(redriven)
  expect(doomed.done).toHaveLength(redriven)
})
