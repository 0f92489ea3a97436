import { expect, test } from 'vitest'
import { testBus, type PaymentBus } from '../../support/bus.ts'
import { createTestDatabase, until } from '../../support/database.ts'
import { ended, subscribeDoomed, untilDead, type Doomed } from '../../support/dead-letters.ts'
import { publish } from '../../support/ledger.ts'
import { createLogin } from '../../support/roles.ts'

const note = { type: 'note', tenantId: 'acme', orderingKey: 'k' } as const

test('a login that is only bus_operator asks for everything, and one that is only bus_worker does it', async () => {
  const database = await createTestDatabase()
  const subscribe = (bus: PaymentBus): readonly Doomed[] => [
    subscribeDoomed(bus, 'plain', { onDeadLetter: () => {} }),
    subscribeDoomed(bus, 'blocks', { ordered: true }),
    subscribeDoomed(bus, 'skips', { ordered: true, onKeyFailure: 'skip' }),
  ]
  const owner = testBus(database.url)
  subscribe(owner)
  await owner.migrate()
  const service = testBus((await createLogin(database, ['bus_worker'])).url)
  const doomed = subscribe(service)
  await service.start()
  const ids = await publish(database, owner, ...[1, 2, 3, 4].map((payload) => ({ ...note, payload })))
  await untilDead(database, 4 + 1 + 4)
  for (const each of doomed) each.fails = false

  const { deadLetters, operations, deliveries } = testBus((await createLogin(database, ['bus_operator'])).url)
  expect(await deadLetters.list()).toHaveLength(9)
  expect(await deadLetters.groups()).toMatchObject([{ count: 9 }])
  const [first = '', second = ''] = ids
  for (const subscription of ['plain', 'blocks', 'skips']) {
    expect(await deadLetters.get(first, subscription)).toMatchObject({ id: first })
    const copy = await deadLetters.redriveEdited(first, subscription, { payload: 'edited', by: 'ana' })
    await until(
      'the copy is delivered',
      async () => (await deliveries(copy.id ?? ''))[0]?.state === 'delivered',
    )
  }
  const discard = await deadLetters.discard(
    { subscription: 'plain', ids: [second] },
    { by: 'ana', reason: 'refunded' },
  )
  expect(await ended(service, discard)).toMatchObject({ state: 'done', counts: { discarded: 1 } })
  const selection = { from: new Date(0) }
  expect(await deadLetters.redrive(selection, { by: 'ana', dryRun: true })).toMatchObject({ count: 5 })
  const redrive = await deadLetters.redrive(selection, { by: 'ana' })
  expect(await ended(service, redrive)).toMatchObject({ state: 'done', counts: { redriven: 5 } })
  expect(await operations.list()).toHaveLength(2)
  await until('nothing fails', async () => (await database.count('select count(*) from bus.failing')) === 0)
  const [plain, blocks, skips] = doomed.map(({ done }) => done)
  expect(plain?.toSorted()).toEqual([3, 4, 'edited'])
  expect(blocks).toEqual(['edited', 2, 3, 4])
  expect(skips).toEqual(['edited', 2, 3, 4])
})
