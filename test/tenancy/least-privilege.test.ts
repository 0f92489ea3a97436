import { sql } from 'drizzle-orm'
import { expect, test } from 'vitest'
import { openBoss } from '../../src/delivery/jobs/boss.ts'
import { createDatabase } from '../../src/database/database.ts'
import { recordingLogger, testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { allWith, createLogin, outcomesOf } from '../support/roles.ts'

const note = { type: 'note', tenantId: 'acme', payload: 1 } as const
const denied = { code: 'BUS_PERMISSION_DENIED', sqlState: '42501', retryable: false }

test('a login that is only bus_publisher publishes and cancels through Drizzle and plain SQL, and does nothing else', async () => {
  const database = await createTestDatabase()
  const login = await createLogin(database, ['bus_publisher'])
  // It publishes with the connection of the service: its own needs no rights at all.
  const bus = testBus(login.url)
  const later = new Date(Date.now() + 3_600_000)
  await login.db.transaction(async (tx) => {
    const [first] = await bus.publishMany(tx, [
      { ...note, eventId: 'one' },
      { ...note, tenantId: 'rival', idempotencyKey: 'key' },
    ])
    expect(await bus.publish(tx, { ...note, eventId: 'one' })).toEqual({ id: first?.id, duplicate: true })
    const { id } = await bus.publish(tx, { ...note, availableAt: later })
    expect(await bus.cancel(tx, id)).toBe(true)
    expect(await bus.cancel(tx, id)).toBe(false)
  })
  expect(await bus.tryPublish(note)).toMatchObject({ duplicate: false })
  await login.rows(
    `insert into bus.events (tenant_id, type, source, payload) values ('acme', 'note', 'psql', '1')`,
  )
  await login.rows(
    `select * from bus.publish('[{"tenantId": "acme", "type": "note", "source": "psql", "payload": {}, "eventId": "42"}]')`,
  )
  expect(await database.count('select count(*) from bus.events')).toBe(6)
  expect(await database.count('select count(*) from bus.outbox')).toBe(5)
  expect(await database.count('select count(*) from bus.cancellations')).toBe(1)
  const refused = [
    'select * from bus.events',
    `insert into bus.events (tenant_id, type, source, payload) values ('acme', 'note', 'psql', '1') returning id`,
    'update bus.events set payload = payload',
    'select * from bus.event_keys',
    'delete from bus.outbox',
    'select bus.create_partitions()',
    `select * from bus.tenant_dead_letters(null, 10)`,
    'select * from pgboss.job',
    'set role bus_worker',
  ]
  expect(await outcomesOf(login, refused)).toEqual(allWith('42501', refused))
  await expect(bus.events.find()).rejects.toMatchObject(denied)
  await expect(bus.deadLetters.list()).rejects.toMatchObject(denied)
  await expect(bus.tenant('acme').events.find()).rejects.toMatchObject({ code: 'BUS_ROLE_MISSING' })
  await expect(bus.start()).rejects.toMatchObject(denied)
})

test('a login that is only bus_worker runs a bus, in every mode, once the queues are there', async () => {
  const database = await createTestDatabase()
  const login = await createLogin(database, ['bus_worker'])
  const handled: string[] = []
  const declare = (bus: ReturnType<typeof testBus>): void => {
    const retry = { maxAttempts: 2, delaySeconds: 0, backoff: false }
    bus.subscribe({
      name: 'at-least-once',
      events: ['note'],
      handler: () => void handled.push('at-least-once'),
    })
    bus.subscribe({
      ...{ name: 'exactly-once', events: ['note'], mode: 'exactly-once' },
      handler: async ({ tenantId }, ctx) => {
        await ctx.tx.execute(sql`select 1`)
        await ctx.publish({ type: 'payment.refunded', tenantId, payload: { paymentId: 'p' } })
        handled.push('exactly-once')
      },
    })
    bus.subscribe({
      ...{ name: 'in-order', events: ['note'], ordered: true },
      handler: () => void handled.push('in-order'),
    })
    bus.subscribe({
      ...{ name: 'failing', events: ['note'], retry },
      handler: () => {
        handled.push('failing')
        throw new Error('refused')
      },
    })
  }
  const logger = recordingLogger()
  const early = testBus(login.url, { logger })
  declare(early)
  await expect(early.start()).rejects.toMatchObject({
    code: 'BUS_PERMISSION_DENIED',
    message: expect.stringContaining('bus.migrate()') as string,
  })
  // At deploy, as the owner: the queues, and nothing registered yet.
  const deploy = testBus(database.url)
  declare(deploy)
  await deploy.migrate()
  expect(await database.count('select count(*) from bus.subscriptions')).toBe(0)
  await deploy.stop()

  const bus = testBus(login.url, { logger })
  declare(bus)
  await bus.start()
  const owner = testBus(database.url)
  await database.db.transaction(async (tx) => {
    await owner.publishMany(tx, [
      { ...note, orderingKey: 'line' },
      { ...note, orderingKey: 'line' },
      { ...note, availableAt: new Date(Date.now() + 300) },
    ])
  })
  await bus.tryPublish(note)
  await until('all were handled', () => handled.filter((name) => name !== 'failing').length === 12)
  await until('all that fail are dead', async () => (await bus.deadLetters.list()).length === 4)
  await until(
    'the receipts are written',
    async () => (await database.count('select count(*) from bus.deliveries')) === 12,
  )
  expect(await database.count(`select count(*) from bus.events where type = 'payment.refunded'`)).toBe(4)
  expect(await bus.health()).toMatchObject({ ok: true, listening: true })
  await bus.stop()
  const troubles = logger.lines.filter(({ level }) => level === 'warn' || level === 'error')
  expect(troubles.filter(({ fields }) => fields['subscription'] !== 'failing')).toEqual([])
  // What a leader does every five minutes.
  const own = createDatabase(login.url, logger)
  const boss = await openBoss(own, 'upkeep', logger)
  await boss.supervise()
  await own.query('select bus.create_partitions()')
  await boss.stop({ graceful: false })
  await own.close()
  expect(logger.lines.filter(({ message }) => message.startsWith('pg-boss reported an error'))).toEqual([])
  const refused = [
    'update bus.events set payload = payload',
    'delete from bus.receipt_batches',
    'select * from bus.event_keys',
    'create table bus.mine ()',
    'create table pgboss.mine ()',
    'drop table bus.outbox',
    'alter table bus.events disable row level security',
    'drop policy tenant_reads on bus.events',
    'insert into bus.source_rules (role, source) values (current_user, current_user)',
    'select * from bus.events_default',
    'set role bus_operator',
  ]
  expect(await outcomesOf(login, refused)).toEqual(allWith('42501', refused))
})

test('a login that is only bus_operator sees all tenants and releases keys, and neither publishes nor changes events', async () => {
  const database = await createTestDatabase()
  const worker = testBus(database.url)
  let fails = true
  const seen: unknown[] = []
  worker.subscribe({
    ...{ name: 'in-order', events: ['note'], ordered: true, retry: { maxAttempts: 1 } },
    handler: ({ payload, tenantId }) => {
      if (fails && tenantId === 'acme') throw new Error('refused')
      seen.push(payload)
    },
  })
  await worker.start()
  const [first] = await database.db.transaction(async (tx) =>
    worker.publishMany(tx, [
      { ...note, orderingKey: 'line', payload: 'first' },
      { ...note, orderingKey: 'line', payload: 'second' },
      { ...note, tenantId: 'rival', payload: 'alone' },
    ]),
  )
  const login = await createLogin(database, ['bus_operator'])
  const bus = testBus(login.url)
  await until('the key is blocked', async () => (await bus.blockedKeys.list()).length === 1)
  expect(await bus.events.find()).toHaveLength(3)
  expect(await bus.deadLetters.list()).toMatchObject([{ id: first?.id }])
  expect(await bus.deliveries(first?.id ?? '')).toMatchObject([
    { subscription: 'in-order', state: 'dead', attempts: 1 },
  ])
  expect(await bus.health()).toMatchObject({ database: 'up' })
  fails = false
  expect(
    await bus.blockedKeys.release({ subscription: 'in-order', tenantId: 'acme', orderingKey: 'line' }),
  ).toBe(true)
  await until('all were delivered', () => seen.length === 3)
  await expect(login.db.transaction(async (tx) => bus.publish(tx, note))).rejects.toMatchObject(denied)
  const refused = [
    `insert into bus.events (tenant_id, type, source, payload) values ('acme', 'note', 'psql', '1')`,
    'update bus.events set payload = payload',
    'delete from bus.events',
    'delete from bus.receipt_batches',
    'insert into bus.source_rules (role, source) values (current_user, current_user)',
    'set role bus_worker',
  ]
  expect(await outcomesOf(login, refused)).toEqual(allWith('42501', refused))
})

test('a login that is only bus_tenant sees the tenant that it sets, and writes nothing', async () => {
  const database = await createTestDatabase()
  const owner = testBus(database.url)
  await database.db.transaction(async (tx) => owner.publishMany(tx, [note, { ...note, tenantId: 'rival' }]))
  const login = await createLogin(database, ['bus_tenant'])
  const bus = testBus(login.url)
  expect(await bus.tenant('acme').events.find()).toMatchObject([{ tenantId: 'acme' }])
  expect(await bus.tenant('acme').stats()).toMatchObject({ eventCount: 1 })
  // Without a tenant there is nothing, not everything; and it is no operator.
  expect(await login.rows('select * from bus.events')).toEqual([])
  expect(await bus.events.find()).toEqual([])
  await expect(bus.deadLetters.list()).rejects.toMatchObject(denied)
  await expect(login.db.transaction(async (tx) => bus.publish(tx, note))).rejects.toMatchObject(denied)
  await expect(bus.start()).rejects.toMatchObject(denied)
})
