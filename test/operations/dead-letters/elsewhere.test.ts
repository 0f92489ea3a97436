import { expect, test } from 'vitest'
import { testBus } from '../../support/bus.ts'
import { createTestDatabase, until } from '../../support/database.ts'
import { subscribeDoomed, untilDead } from '../../support/dead-letters.ts'
import { publish } from '../../support/ledger.ts'

const note = { type: 'note', tenantId: 'acme' } as const

test('a discarded event is found by that state, and explained by who discarded it and why', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  subscribeDoomed(bus, 'doomed')
  await bus.start()
  const [id = ''] = await publish(database, bus, { ...note, payload: 1 })
  await untilDead(database, 1)
  const discard = { by: 'ana', reason: 'a test payment' }
  await bus.deadLetters.discard({ subscription: 'doomed', ids: [id] }, discard)
  await until('it is discarded', async () => (await bus.deliveries(id))[0]?.state === 'discarded')
  const found = async (status: 'discarded' | 'expired' | 'delivered' | 'dead'): Promise<string[]> =>
    (await bus.events.find({ status })).map((event) => event.id)
  expect(await found('discarded')).toEqual([id])
  for (const status of ['expired', 'delivered', 'dead'] as const)
    expect([status, await found(status)]).toEqual([status, []])
  // A tenant sees that it was, and not by whom.
  const own = await bus.tenant('acme').explain(id)
  expect(own.subscriptions).toMatchObject([{ subscription: 'doomed', state: 'discarded' }])
  expect(JSON.stringify(own)).not.toMatch(/ana|a test payment/)
  const { sentence, subscriptions } = await bus.explain(id)
  expect(sentence).toMatch(/^Discarded .* by ana: a test payment\.$/)
  expect(subscriptions).toMatchObject([
    {
      subscription: 'doomed',
      state: 'discarded',
      reason: { reason: 'discarded', by: 'ana', because: 'a test payment' },
    },
  ])
})

test('an edited copy is for its subscription alone, in a replay and in a catch-up too', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const doomed = subscribeDoomed(bus, 'doomed')
  const other = subscribeDoomed(bus, 'other')
  doomed.fails = (payload) => payload === 'wrong'
  other.fails = false
  await bus.start()
  const [id = ''] = await publish(database, bus, { ...note, payload: 'wrong' })
  await untilDead(database, 1)
  await bus.deadLetters.redriveEdited(id, 'doomed', { payload: 'right', by: 'ana', reason: 'a typo' })
  await until('the copy is delivered', () => doomed.done.includes('right'))
  const { id: replayId } = await bus.replay({ type: 'note', subscriptions: ['doomed', 'other'], by: 'ana' })
  await until('it is replayed', async () => (await bus.operations.get(replayId)).state === 'done')
  // Not the original, which was discarded in favour of the copy.
  expect(doomed.done).toEqual(['right', 'right'])
  expect(doomed.tried.filter(({ payload }) => payload === 'wrong')).toHaveLength(2)
  expect(other.done).toEqual(['wrong', 'wrong'])
  const late: unknown[] = []
  await bus
    .subscribe({
      ...{ name: 'late', events: ['note'], startFrom: 'beginning' },
      handler: ({ payload }) => void late.push(payload),
    })
    .ready()
  await until('it has caught up', async () => {
    const [operation] = await bus.operations.list({ kind: 'catch-up' })
    return operation?.state === 'done'
  })
  await publish(database, bus, { ...note, payload: 'next' })
  await until('the next event is delivered', () => late.includes('next'))
  expect(late).toEqual(['wrong', 'next'])
})
