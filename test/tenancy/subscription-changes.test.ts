import { expect, test } from 'vitest'
import { createBus } from '../../src/index.ts'
import { paymentEvents, recordingLogger, testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { allWith, createLogin, outcomesOf } from '../support/roles.ts'

test('a tenant, and who only publishes, changes no subscription and reads nothing about the changes', async () => {
  const database = await createTestDatabase()
  const owner = testBus(database.url)
  owner.subscribe({ name: 'quick', events: ['note'], handler: () => {} })
  await owner.start()
  await owner.subscriptions.setOptions('quick', { concurrency: 3 }, { by: 'ana', expiresInSeconds: 60 })
  const refused = [
    'select * from bus.subscriptions',
    `update bus.subscriptions set overrides = '{"paused": true}'`,
    'delete from bus.subscriptions',
    'delete from bus.declarations',
    'select * from bus.removed_subscriptions',
    `insert into bus.removed_subscriptions (id, name, service, registered_at, removed_by) values (1, 'x', 'x', now(), 'x')`,
    'select * from bus.audit',
    'select * from bus.operations',
    `insert into bus.operations (kind, actor, selection, subscription_ids) values ('remove', 'x', '{}', '{1}')`,
  ]
  for (const role of ['bus_tenant', 'bus_publisher']) {
    const login = await createLogin(database, [role])
    expect(await outcomesOf(login, refused)).toEqual(allWith('42501', refused))
    const bus = testBus(login.url)
    const denied = { code: 'BUS_PERMISSION_DENIED' }
    const { subscriptions } = bus
    await expect(subscriptions.list()).rejects.toMatchObject(denied)
    await expect(subscriptions.get('quick')).rejects.toMatchObject(denied)
    await expect(subscriptions.pause('quick')).rejects.toMatchObject(denied)
    await expect(subscriptions.resume('quick')).rejects.toMatchObject(denied)
    await expect(subscriptions.setOptions('quick', {}, { by: 'x' })).rejects.toMatchObject(denied)
    await expect(subscriptions.remove('quick', { by: 'x' })).rejects.toMatchObject(denied)
    await expect(subscriptions.rename('quick', 'slow', { by: 'x' })).rejects.toMatchObject({
      code: expect.stringMatching(/^BUS_/) as string,
    })
  }
  expect(Object.keys(owner.tenant('acme'))).not.toContain('subscriptions')
  expect(await owner.subscriptions.get('quick')).toMatchObject({
    state: 'active',
    overrides: { concurrency: 3 },
  })
})

test('an operator sets options, pauses and removes; a worker does the work, and leaves the queues that it does not own', async () => {
  const database = await createTestDatabase()
  const gone = testBus(database.url)
  gone.subscribe({ name: 'old', events: ['note'], ordered: true, handler: () => {} })
  await gone.start()
  await gone.subscriptions.pause('old')
  await database.rows(
    `insert into bus.events (tenant_id, type, source, payload, ordering_key) select 'acme', 'note', 'psql', to_jsonb(n), 'k' from generate_series(1, 5) n`,
  )
  await until('they wait', async () => (await gone.subscriptions.get('old')).waitingCount === 5)
  await gone.stop()
  const operator = testBus((await createLogin(database, ['bus_operator'])).url)
  await operator.subscriptions.setOptions('old', { paused: true }, { by: 'ana', expiresInSeconds: 60 })
  expect(await operator.subscriptions.resume('old', { by: 'ana' })).toBe(true)
  // The queues of the new name would belong to somebody else.
  await expect(operator.subscriptions.rename('old', 'new', { by: 'ana' })).rejects.toMatchObject({
    code: 'BUS_PERMISSION_DENIED',
  })
  expect(await operator.subscriptions.get('old')).toMatchObject({ name: 'old', waitingCount: 5 })
  const { id } = await operator.subscriptions.remove('old', { by: 'ana', waiting: 'discard' })
  const worker = createBus({
    ...{
      database: (await createLogin(database, ['bus_worker'])).url,
      events: paymentEvents,
      source: 'payment-service',
    },
    logger: recordingLogger(),
  })
  await worker.start()
  await until('it is done', async () => (await operator.operations.get(id)).state === 'done')
  await worker.stop()
  expect((await operator.operations.get(id)).counts).toEqual({ discarded: 5, queuesLeft: 2 })
  expect(await database.count('select count(*) from bus.ordered_keys')).toBe(0)
  expect(
    await database.count(`select count(*) from pgboss.job where name like 'bus.%' and state < 'completed'`),
  ).toBe(0)
})
