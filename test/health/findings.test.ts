import { expect, onTestFinished, test, vi } from 'vitest'
import type { HealthOptions } from '../../src/index.ts'
import { publish, retryAtOnce } from '../support/ledger.ts'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { connect, findingsOf, note, startBus, waitFor } from '../support/health.ts'
import { startOwnServer } from '../support/own-server.ts'
import { pgbouncerPath, startPgbouncer } from '../support/pgbouncer.ts'

test('a bus that delivers is live and ready, and there is nothing to find', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({ name: 'steady', events: ['note'], lagLimitSeconds: 60, handler: () => {} })
  expect(await bus.health()).toMatchObject({ live: true, ready: false, ok: false, state: 'created' })
  expect(await findingsOf(bus)).toContain('not-started')
  await bus.start()
  await until('it listens', async () => (await bus.health()).listening)
  await publish(database, bus, note)
  await until(
    'it is delivered',
    async () => (await database.count('select count(*) from bus.deliveries')) === 1,
  )
  const health = await bus.health({ full: true })
  expect(health).toMatchObject({
    ...{ ok: true, live: true, ready: true, database: 'up', findings: [], canary: undefined },
    subscriptions: [{ name: 'steady', state: 'active', lagSeconds: 0, lagLimitSeconds: 60 }],
    outbox: { depth: 0, lagSeconds: 0 },
  })
  expect((await bus.health()).subscriptions).toBeUndefined()
})

test('a process that only publishes is ready without a relay, and does not miss notifications', async () => {
  const database = await createTestDatabase()
  await startBus(database)
  const publisher = testBus(database.url, { source: 'shop' })
  await publisher.start({ run: 'nothing' })
  expect(await publisher.health()).toMatchObject({ live: true, ready: true, findings: [] })
})

test('options other than `full` are refused', async () => {
  const { url } = await createTestDatabase()
  const bus = testBus(url)
  await expect(bus.health({ everything: true } as HealthOptions)).rejects.toMatchObject({
    code: 'BUS_INVALID_OPTION',
  })
  expect(() => testBus(url, { health: { loopLimitSeconds: 0 } })).toThrow('`health.loopLimitSeconds`')
})

test('events that no relay dispatches are found by their age', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  await bus.start({ run: 'nothing' })
  await database.rows(
    `insert into bus.events (id, tenant_id, type, source, payload, created_at)
     select overlay(bus.uuid_v7_floor(t)::text placing '7' from 15)::uuid, 'acme', 'note', 'sql', '1', t from (select now() - interval '90 seconds' as t) x`,
  )
  const finding = await waitFor(bus, 'relay-behind')
  expect(finding.data['lagSeconds']).toBeGreaterThanOrEqual(90)
  expect((await bus.health({ full: true })).outbox).toMatchObject({ depth: 1 })
  const relay = await startBus(database)
  await until('it is gone', async () => !(await findingsOf(relay, { full: true })).includes('relay-behind'))
})

test('notifications that do not arrive while a lost connection is replaced are found', async () => {
  const database = await createTestDatabase()
  const bus = await startBus(database)
  await until('it is found', async () => {
    await database.rows(
      `select pg_terminate_backend(pid) from pg_locks
       where locktype = 'advisory' and classid = 1651864320 and objid in (1, 2) and granted
         and database = (select oid from pg_database where datname = current_database())`,
    )
    return (await findingsOf(bus)).includes('notifications-lost')
  })
  await until('it listens again', async () => (await bus.health()).listening)
  expect(await findingsOf(bus)).toEqual([])
})

test.skipIf(pgbouncerPath === undefined)('notifications that a pooler loses are found', async () => {
  const database = await createTestDatabase()
  const bus = testBus(await startPgbouncer(database.url, 'transaction'))
  bus.subscribe({ name: 'steady', events: ['note'], handler: () => {} })
  await bus.start()
  await until('it polls', async () => (await bus.health()).relay === 'polling')
  const health = await bus.health()
  expect(health).toMatchObject({ ready: true, live: true })
  expect(health.findings).toMatchObject([{ code: 'notifications-lost', severity: 'warning' }])
})

test('a handler that runs on is found', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  let end: () => void = () => {}
  onTestFinished(() => end())
  const { promise, resolve } = Promise.withResolvers<void>()
  end = resolve
  bus.subscribe({ name: 'stubborn', events: ['note'], timeoutSeconds: 1, handler: async () => promise })
  await bus.start()
  await publish(database, bus, note)
  expect((await waitFor(bus, 'handlers-overrunning')).data).toEqual({ count: 1 })
  end()
})

test('a clock that differs from that of the database is found', async () => {
  const database = await createTestDatabase()
  const bus = await startBus(database)
  const real = Date.now.bind(Date)
  const clock = vi.spyOn(Date, 'now').mockImplementation(() => real() - 20_000)
  onTestFinished(() => clock.mockRestore())
  const { findings } = await bus.health()
  clock.mockRestore()
  const finding = findings.find(({ code }) => code === 'clock-differs')
  expect(finding?.message).toMatch(/ahead of/)
  expect(finding?.data['differenceMs']).toBeGreaterThan(19_000)
  expect(await findingsOf(bus)).toEqual([])
})

test('a paused, a halted and an unserved subscription are found, each with who and why', async () => {
  const database = await createTestDatabase()
  const bus = await startBus(database)
  await bus.subscriptions.pause('steady', { by: 'ana', reason: 'a look' })
  expect((await waitFor(bus, 'subscription-paused')).data).toMatchObject({
    subscriptions: [{ name: 'steady', pausedBy: 'ana' }],
    count: 1,
  })
  await bus.subscriptions.resume('steady')
  await database.rows(
    `update bus.subscriptions set circuit_opened_at = now(), circuit_reason = 'refused', circuit_probe_at = now() + interval '1 hour' where name = 'steady'`,
  )
  expect((await waitFor(bus, 'circuit-open')).data).toMatchObject({
    subscriptions: [{ name: 'steady', circuitReason: 'refused' }],
  })
  await bus.subscriptions.resume('steady')
  await database.rows(
    `insert into bus.subscriptions (name, service, patterns, options) values ('left', 'shop', '{note}', '{}')`,
  )
  const health = await bus.health({ full: true })
  expect(health.findings).toMatchObject([
    {
      code: 'subscription-unserved',
      severity: 'warning',
      data: { subscriptions: [{ name: 'left', service: 'shop' }] },
    },
  ])
  expect(health.unservedSubscriptions).toEqual(['left'])
  expect(health.subscriptions).toMatchObject([
    { name: 'left', state: 'unserved' },
    { name: 'steady', state: 'active' },
  ])
})

test('a subscription that no process runs is an error as soon as something waits for it', async () => {
  const database = await createTestDatabase()
  const left = testBus(database.url)
  left.subscribe({ name: 'left', events: ['note'], handler: () => {} })
  await left.start()
  await left.stop()
  const bus = await startBus(database)
  const unserved = async () =>
    (await bus.health({ full: true })).findings.filter(({ code }) => code === 'subscription-unserved')
  expect(await unserved()).toMatchObject([
    { severity: 'warning', message: 'No process runs `left`. Nothing waits for them yet' },
  ])
  await publish(database, bus, note)
  await until('it waits', async () => (await bus.subscriptions.get('left')).waitingCount === 1)
  expect(await unserved()).toMatchObject([
    { severity: 'error', message: 'No process runs `left`. Their events wait', data: { count: 1 } },
  ])
})

test('a subscription is behind when a due event has waited longer than its limit; later ones and retries do not count', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  let open: () => void = () => {}
  const gate = new Promise<void>((resolve) => (open = resolve))
  onTestFinished(() => open())
  bus.subscribe({
    ...{ name: 'slow', events: ['note'], concurrency: 1, batchSize: 1, lagLimitSeconds: 1 },
    handler: async () => gate,
  })
  bus.subscribe({
    ...{
      name: 'retrying',
      events: ['note'],
      retry: { delaySeconds: 3600 },
      lagLimitSeconds: 1,
      circuitBreaker: false,
    },
    handler: () => {
      throw new Error('refused')
    },
  })
  bus.subscribe({ name: 'unlimited', events: ['note'], handler: () => {} })
  await bus.start()
  await publish(database, bus, ...Array.from({ length: 8 }, () => note))
  await publish(database, bus, { ...note, availableAt: new Date(Date.now() + 3_600_000) })
  // The others may have been late for a moment, on a busy machine.
  let health = await bus.health({ full: true })
  await until('only the slow one is behind', async () => {
    health = await bus.health({ full: true })
    return health.subscriptions?.map(({ state }) => state).join() === 'active,behind,active'
  })
  expect(health.findings.find(({ code }) => code === 'subscription-behind')?.data).toMatchObject({
    subscriptions: [{ name: 'slow', state: 'behind', lagLimitSeconds: 1 }],
    count: 1,
  })
  expect(health.subscriptions).toMatchObject([
    { name: 'retrying', lagSeconds: 0 },
    { name: 'slow' },
    { name: 'unlimited', lagSeconds: 0, lagLimitSeconds: undefined },
  ])
  await bus.subscriptions.pause('slow')
  await until(
    'it is paused instead',
    async () => !(await findingsOf(bus, { full: true })).includes('subscription-behind'),
  )
  await bus.subscriptions.resume('slow')
  open()
  await until(
    'it has caught up',
    async () => (await bus.health({ full: true })).subscriptions?.[1]?.state === 'active',
  )
})

test('new dead letters are found, and old ones are not', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({
    ...{ name: 'broken', events: ['note'], retry: { ...retryAtOnce, maxAttempts: 1 } },
    handler: () => {
      throw new Error('refused')
    },
  })
  await bus.start()
  await publish(database, bus, note, note)
  await until('both are dead', async () => (await bus.deadLetters.list()).length === 2)
  expect((await waitFor(bus, 'dead-letters-growing')).data).toMatchObject({
    subscriptions: [{ name: 'broken', count: 2 }],
    count: 2,
  })
  await database.rows(`update bus.failing set failed_at = now() - interval '20 minutes'`)
  expect(await findingsOf(bus, { full: true })).toEqual([])
})

test('keys that wait for a person are found with what waits behind them, and one that is released is not', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  let isBroken = true
  bus.subscribe({
    ...{ name: 'in-order', events: ['note'], ordered: true, retry: { ...retryAtOnce, maxAttempts: 1 } },
    circuitBreaker: false,
    handler: () => {
      if (isBroken) throw new Error('refused')
    },
  })
  await bus.start()
  const key = { ...note, orderingKey: 'a' }
  await publish(database, bus, key, key, key)
  await until('they wait', async () => (await bus.blockedKeys.list())[0]?.waitingCount === 2)
  // Its dead letter is not new any more.
  await database.rows(`update bus.failing set failed_at = now() - interval '20 minutes'`)
  const since = (await bus.blockedKeys.list())[0]?.since
  const { findings } = await bus.health({ full: true })
  expect(findings).toMatchObject([
    {
      ...{ code: 'keys-blocked', severity: 'warning' },
      message: '1 key waits for a person after an event that failed, and 2 events wait behind it: `in-order`',
      remedy: expect.stringContaining('bossbus keys list') as string,
      data: { subscriptions: [{ name: 'in-order', count: 1 }], count: 1, waitingCount: 2 },
    },
  ])
  const [first] = (findings[0]?.data['subscriptions'] ?? []) as readonly { readonly since: string }[]
  expect(new Date(first?.since ?? 0)).toEqual(since)
  isBroken = false
  expect(
    await bus.blockedKeys.release({ subscription: 'in-order', tenantId: 'acme', orderingKey: 'a' }),
  ).toBe(true)
  await until('it is gone', async () => (await findingsOf(bus, { full: true })).length === 0)
})

test('of very many keys that wait, a bounded number is read', async () => {
  const database = await createTestDatabase()
  const bus = await startBus(database)
  await database.rows(
    `insert into bus.ordered_keys (subscription_id, key_hash, tenant_id, ordering_key, state, failed_event_id, failed_at)
     select s.id, gen_random_uuid(), 'acme', n::text, case when n % 1000 = 0 then 'overrunning' else 'blocked' end, gen_random_uuid(), now() + n * interval '1 ms'
     from bus.subscriptions s, generate_series(1, 5000) n`,
  )
  await database.rows(
    `insert into bus.ordered_events (key_id, event_id, payload_bytes) select k.id, gen_random_uuid(), 1 from bus.ordered_keys k, generate_series(1, 2)`,
  )
  const { message, data } = await waitFor(bus, 'keys-blocked')
  expect(message).toMatch(
    /^999 or more keys wait for a person .* 1000 or more events wait behind them: `steady`$/,
  )
  expect(data).toMatchObject({ count: 999, waitingCount: 1000 })
})

test('an operation that has stopped is found, and one that is done is not', async () => {
  const database = await createTestDatabase()
  const bus = await startBus(database)
  await database.rows(
    `insert into bus.operations (kind, state, actor, state_reason, selection, subscription_ids)
     values ('redrive', 'stopped', 'ana', 'the first five failed again', '{}', '{}'), ('discard', 'done', 'ana', null, '{}', '{}')`,
  )
  const finding = await waitFor(bus, 'operation-stopped')
  expect(finding.message).toContain('redrive: the first five failed again')
  expect(finding.data['operations']).toHaveLength(1)
})

test('what probes ask for is read again after five seconds, and with `full` at once', async () => {
  const database = await createTestDatabase()
  const bus = await startBus(database)
  expect(await findingsOf(bus)).not.toContain('subscription-paused')
  await database.rows('update bus.subscriptions set paused_at = now()')
  await database.rows(
    `insert into bus.events_default (id, tenant_id, type, source, payload) values ('00000000-0000-7000-8000-000000000001', 'acme', 'note', 'psql', '1')`,
  )
  const { findings, defaultPartition } = await bus.health()
  expect(findings).toEqual([])
  expect(defaultPartition).toBeUndefined()
  expect(await findingsOf(bus, { full: true })).toEqual(['subscription-paused', 'default-partition-used'])
  // And then probes say so too.
  expect(await findingsOf(bus)).toEqual(['subscription-paused', 'default-partition-used'])
})

test('a lost process, several versions and a newer schema are found', async () => {
  const database = await createTestDatabase()
  const bus = await startBus(database)
  await database.rows(
    `insert into bus.instances (id, service, host, pid, version, seen_at, relay, declarations) values
       (gen_random_uuid(), 'shop', 'host-1', 17, '0.0.1', now() - interval '100 seconds', 'awake', '{}'),
       (gen_random_uuid(), 'shop', 'host-2', 18, '0.0.2', now(), 'awake', '{}')`,
  )
  const { findings } = await bus.health({ full: true })
  expect(findings.map(({ code }) => code)).toEqual(['instance-lost', 'versions-differ'])
  expect(findings[0]).toMatchObject({ data: { count: 1, instances: [{ host: 'host-1', pid: 17 }] } })
  expect(findings[1]).toMatchObject({ severity: 'info', data: { versions: { '0.0.2': 1 } } })
  await database.rows(`delete from bus.instances where service = 'shop'`)
  await database.rows(`insert into bus.migrations (hash, created_at) values ('x', 9999999999999)`)
  expect((await waitFor(bus, 'schema-differs')).message).toContain('before the database was migrated')
})

test('missing partitions and rows in the default partitions are found', async () => {
  const database = await createTestDatabase()
  const bus = await startBus(database)
  const [month] = await database.rows(
    `select c.relname as name from pg_inherits i join pg_class c on c.oid = i.inhrelid
     where i.inhparent = 'bus.events'::regclass and c.relname ~ '^events_2' order by 1 desc limit 1`,
  )
  await database.rows(`drop table bus.${String(month?.['name'])}`)
  expect((await waitFor(bus, 'partitions-missing')).data).toEqual({ missing: [month?.['name']] })
  await database.rows(
    `insert into bus.events (id, tenant_id, type, source, payload, created_at)
     select overlay(bus.uuid_v7_floor(t)::text placing '7' from 15)::uuid, 'acme', 'note', 'sql', '1', t from (select timestamptz '2020-05-05' as t) x`,
  )
  expect((await waitFor(bus, 'default-partition-used')).data).toMatchObject({ eventCount: 1 })
})

test('an old transaction is found, with the session that holds it', async () => {
  const database = await createTestDatabase()
  const bus = await startBus(database, { health: { transactionLimitSeconds: 1 } })
  const client = await connect(database, 'a report')
  await client.query('begin isolation level repeatable read; select 1')
  const [pid] = await client.query<{ pid: number }>('select pg_backend_pid() as pid').then(({ rows }) => rows)
  const finding = await waitFor(bus, 'old-transaction')
  expect(finding.message).toContain('a report')
  expect(finding.data).toMatchObject({
    transactions: [{ pid: pid?.pid, applicationName: 'a report', state: 'idle in transaction' }],
  })
  await client.query('rollback')
  expect(await findingsOf(bus, { full: true })).toEqual([])
})

test('a prepared transaction and a replication slot that nobody reads are found', async () => {
  const server = await startOwnServer(['max_prepared_transactions=5', 'wal_level=logical'])
  const bus = testBus(server.url, { health: { transactionLimitSeconds: 1 } })
  await bus.start()
  const client = await connect(server, 'two-phase')
  await client.query('create table public.numbers (n int)')
  await client.query(`begin; insert into public.numbers values (1); prepare transaction 'half'`)
  await client.query(`select pg_create_physical_replication_slot('replica', true)`)
  await until('it is old', async () =>
    (await findingsOf(bus, { full: true })).includes('prepared-transaction'),
  )
  const { findings } = await bus.health({ full: true })
  expect(findings.filter(({ code }) => code !== 'notifications-lost')).toMatchObject([
    { code: 'prepared-transaction', data: { prepared: [{ gid: 'half' }] } },
    { code: 'replication-slot-inactive', data: { slots: [{ name: 'replica' }] } },
  ])
  await client.query(`rollback prepared 'half'`)
  await client.query(`select pg_drop_replication_slot('replica')`)
  await until('nothing is left', async () => (await findingsOf(bus, { full: true })).length === 0)
})
