import { expect, test } from 'vitest'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { publish, retryAtOnce } from '../support/ledger.ts'
import { createLogin } from '../support/roles.ts'
import { openSession } from '../support/session.ts'

const note = { type: 'note', payload: 1 } as const

test('a login that is only bus_operator finds, explains and looks up; one that is only bus_worker does not', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({
    ...{ name: 'doomed', events: ['note'], where: '$ == 1', retry: { ...retryAtOnce, maxAttempts: 1 } },
    handler: () => {
      throw new Error('refused')
    },
  })
  await bus.start()
  const [id = '', other = ''] = await publish(
    database,
    bus,
    { ...note, tenantId: 'acme', eventId: 'one', subject: 's', orderingKey: 'k' },
    { ...note, tenantId: 'acme', payload: 2 },
  )
  await until('it is dead', async () => (await bus.deadLetters.list()).length === 1)
  const operator = testBus((await createLogin(database, ['bus_operator'])).url)
  expect(await operator.events.find({ eventId: 'one', status: 'dead' })).toMatchObject([{ id }])
  expect(await operator.events.find({ subject: 's', status: 'waiting' })).toEqual([])
  for (const status of ['waiting', 'delivering', 'delivered', 'expired'] as const)
    expect([status, (await operator.events.search({ status })).events]).toEqual([status, []])
  expect((await operator.explain(id)).subscriptions).toMatchObject([{ reason: { reason: 'dead' } }])
  expect((await operator.explain(other)).subscriptions).toMatchObject([
    { reason: { reason: 'predicate-false' } },
  ])
  expect((await operator.lookup('one')).matches).toEqual([{ kind: 'business-id', tenantId: 'acme', id }])
  expect((await operator.lookup(crypto.randomUUID())).matches).toEqual([])
  expect((await operator.events.traceTree(id)).eventCount).toBe(1)
  // `where` leaves it out, so the replay has no dead letters.
  const { id: replayId } = await operator.replay({ ids: [other], subscriptions: ['doomed'], by: 'ana' })
  await until('it is over', async () => (await bus.operations.get(replayId)).state === 'done')
  expect(await operator.deadLetters.list({ replayId, subscription: 'doomed' })).toEqual([])
  await expect(operator.deadLetters.list({ subscription: 'domed' })).rejects.toMatchObject({
    code: 'BUS_SUBSCRIPTION_NOT_FOUND',
  })
  expect(await operator.subscriptions.list()).toMatchObject([
    { name: 'doomed', lagSeconds: 0, isBehind: false },
  ])
  expect(await operator.audit.list({ subscription: 'doomed' })).toMatchObject([{ action: 'replay' }])
  const worker = testBus((await createLogin(database, ['bus_worker'])).url)
  const denied = { code: 'BUS_PERMISSION_DENIED' }
  await expect(worker.events.search({ eventId: 'one' })).rejects.toMatchObject(denied)
  await expect(worker.explain(id)).rejects.toMatchObject(denied)
  await expect(worker.lookup('one')).rejects.toMatchObject(denied)
})

test('in the scope of a tenant, the functions answer nothing of another one, whatever they are given', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({
    ...{ name: 'doomed', events: ['note'], retry: { ...retryAtOnce, maxAttempts: 1 } },
    handler: ({ tenantId }) => {
      throw new Error(`canary of ${tenantId}`)
    },
  })
  bus.subscribe({
    name: 'unrelated',
    events: ['payment.paid'],
    where: '$.amountCents > 1',
    handler: () => {},
  })
  await bus.start()
  const [mine = '', theirs = ''] = await publish(
    database,
    bus,
    { ...note, tenantId: 'acme', eventId: 'one' },
    { ...note, tenantId: 'rival', eventId: 'two' },
  )
  await until('both are dead', async () => (await bus.deadLetters.list()).length === 2)
  const session = await openSession(database)
  await session.rows('set role bus_tenant')
  await session.rows(`select set_config('bus.tenant_id', 'acme', false)`)
  const bounds = `'00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff', 100`
  expect(
    await session.rows(
      `select bus.tenant_events_in_state(bus.subscription_ids(null), 'dead', 'rival', ${bounds}) as ids`,
    ),
  ).toEqual([{ ids: [mine] }])
  for (const state of ['dead', 'delivered', 'waiting', 'delivering', 'retrying', 'expired'])
    expect([
      state,
      await session.rows(`select bus.tenant_events_with_state($1, bus.subscription_ids(null), $2) as id`, [
        [mine, theirs],
        state,
      ]),
    ]).toEqual([state, state === 'dead' ? [{ id: mine }] : []])
  expect(await session.rows(`select bus.tenant_event_facts($1, null) as facts`, [theirs])).toEqual([
    { facts: null },
  ])
  const [row] = await session.rows(`select bus.tenant_event_facts($1, null)::text as facts`, [mine])
  const facts = String(row?.['facts'])
  expect(facts).toContain('canary of acme')
  for (const hidden of [
    'rival',
    'unrelated',
    'amountCents',
    theirs,
    process.pid,
    'relayCount',
    'payment-service',
  ])
    expect([hidden, facts.includes(String(hidden))]).toEqual([hidden, false])
  expect(await session.rows('select key from bus.event_keys')).toEqual([{ key: 'one' }])
  for (const call of [
    `bus.event_facts('${mine}', null)`,
    `bus.events_in_state('{1}', 'dead', null, ${bounds})`,
    `bus.events_with_state('{}', '{1}', 'dead')`,
    `bus.find_jobs('${mine}', 10)`,
    `bus.event_jobs('${mine}', '{1}')`,
    `bus.find_in_outbox('${mine}', 'acme', null)`,
  ]) {
    const error: unknown = await session.rows(`select * from ${call}`).catch((thrown: unknown) => thrown)
    expect([call, (error as { code?: unknown }).code]).toEqual([call, '42501'])
  }
})
