import { expect, test } from 'vitest'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { ended, subscribeDoomed, untilDead } from '../support/dead-letters.ts'
import { publish } from '../support/ledger.ts'

test('a tenant sees the operations over its events alone, without who has started them, and groups of its own errors', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const doomed = subscribeDoomed(bus, 'doomed')
  await bus.start()
  await publish(
    database,
    bus,
    ...['acme', 'acme', 'rival'].map((tenantId, payload) => ({ type: 'note', tenantId, payload }) as const),
  )
  await untilDead(database, 3)
  const acme = bus.tenant('acme')
  const rival = bus.tenant('rival')
  expect(await acme.deadLetters.groups()).toMatchObject([
    {
      errorName: 'TypeError',
      count: 2,
      subscriptions: ['doomed'],
      tenantCount: 1,
      isTenantCountPartial: false,
    },
  ])
  expect(await rival.deadLetters.groups({ subscription: 'doomed' })).toMatchObject([{ count: 1 }])
  expect(await bus.tenant('nobody').deadLetters.groups()).toEqual([])
  expect(await acme.deadLetters.groups({ errorName: 'RangeError' })).toEqual([])
  for (const filter of [{ tenantId: 'rival' }, { limit: 0 }, null])
    await expect(acme.deadLetters.groups(filter as never)).rejects.toMatchObject({
      code: 'BUS_INVALID_OPTION',
    })

  doomed.fails = false
  const own = await bus.deadLetters.redrive({ tenantId: 'acme' }, { by: 'ana', reason: 'secret', probe: 0 })
  const everybodys = await bus.deadLetters.redrive({ subscription: 'doomed' }, { by: 'ben' })
  await ended(bus, own)
  await ended(bus, everybodys)
  const replayed = await bus.replay({
    tenantId: 'acme',
    subscriptions: ['doomed'],
    by: 'ana',
    reason: 'secret',
  })
  await until('it is replayed', async () => (await bus.operations.get(replayed.id)).state === 'done')
  const seen = await acme.operations.list()
  expect(seen.map(({ id, kind, state }) => [id, kind, state])).toEqual([
    [replayed.id, 'replay', 'done'],
    [own.id, 'redrive', 'done'],
  ])
  const known = await bus.operations.get(own.id)
  const { by: _by, reason: _reason, stateBy: _stateBy, options: _options, error: _error, ...shown } = known
  expect(await acme.operations.get(own.id)).toEqual(shown)
  expect((await acme.operations.get(replayed.id)).counts).toEqual(
    (await bus.operations.get(replayed.id)).counts,
  )
  expect(JSON.stringify(seen)).not.toMatch(/ana|secret/)
  expect(await acme.operations.list({ after: replayed.id, limit: 1 })).toMatchObject([{ id: own.id }])
  expect(await acme.operations.list({ after: own.id })).toEqual([])
  expect(await rival.operations.list()).toEqual([])
  for (const id of [own.id, everybodys.id, crypto.randomUUID()])
    await expect(rival.operations.get(id)).rejects.toMatchObject({ code: 'BUS_OPERATION_NOT_FOUND' })
  await expect(acme.operations.get('7')).rejects.toMatchObject({ code: 'BUS_INVALID_OPTION' })
  for (const filter of [{ kind: 'redrive' }, { after: 'x' }, { limit: 1001 }, null])
    await expect(acme.operations.list(filter as never)).rejects.toMatchObject({ code: 'BUS_INVALID_OPTION' })
})
