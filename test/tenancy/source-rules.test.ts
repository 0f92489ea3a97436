import { expect, test } from 'vitest'
import { createBus, defineEvents } from '../../src/index.ts'
import { z } from 'zod'
import { recordingLogger, testBus } from '../support/bus.ts'
import { createTestDatabase, type TestDatabase } from '../support/database.ts'
import { createLogin } from '../support/roles.ts'
import { openSession } from '../support/session.ts'

const insert = (source: string, type: string): string =>
  `insert into bus.events (tenant_id, type, source, payload) values ('acme', '${type}', '${source}', '1')`

const refused = { code: '42501' }

async function addRule({ rows }: TestDatabase, role: string, source: string, type = '**'): Promise<void> {
  await rows('insert into bus.source_rules (role, source, type) values ($1, $2, $3)', [role, source, type])
}

test('an adapter cannot emit billable usage events: not through its catalogue, nor with plain SQL', async () => {
  const database = await createTestDatabase()
  const adapter = await createLogin(database, ['bus_publisher'])
  const billing = await createLogin(database, ['bus_publisher'])
  // In the catalogue: who may publish the type at all.
  const events = defineEvents({
    'usage.billed': { schema: z.object({ units: z.number() }), sources: ['billing'] },
    'message.received': { schema: z.object({ text: z.string() }) },
  })
  const bus = createBus({ database: adapter.url, events, source: 'adapter', logger: recordingLogger() })
  const usage = { type: 'usage.billed', tenantId: 'acme', payload: { units: 1 } } as const
  await expect(adapter.db.transaction(async (tx) => bus.publish(tx, usage))).rejects.toMatchObject({
    code: 'BUS_SOURCE_NOT_ALLOWED',
  })
  // In the database: what the adapter's role may publish, whatever its program says.
  await addRule(database, adapter.name, 'adapter', 'message.**')
  await adapter.db.transaction(async (tx) =>
    bus.publish(tx, { type: 'message.received', tenantId: 'acme', payload: { text: 'hello' } }),
  )
  await adapter.rows(insert('adapter', 'message.sent'))
  for (const [source, type] of [
    ['billing', 'usage.billed'],
    ['adapter', 'usage.billed'],
    ['billing', 'message.received'],
    ['adapter', 'message'],
    ['adapter', 'messages.received'],
  ] as const) {
    await expect(adapter.rows(insert(source, type))).rejects.toMatchObject(refused)
    const published = `[{"tenantId": "acme", "type": "${type}", "source": "${source}", "payload": 1}]`
    await expect(adapter.rows('select * from bus.publish($1)', [published])).rejects.toMatchObject(refused)
  }
  // One that is refused takes the others of its statement with it.
  await expect(
    adapter.rows(`${insert('adapter', 'message.sent')}, ('acme', 'usage.billed', 'adapter', '1')`),
  ).rejects.toMatchObject(refused)
  expect(await database.count('select count(*) from bus.events')).toBe(2)
  expect(await database.count('select count(*) from bus.outbox')).toBe(2)
  // Who has no rule is bound by none.
  await billing.rows(insert('billing', 'usage.billed'))
  const program = createBus({ database: billing.url, events, source: 'billing', logger: recordingLogger() })
  await billing.db.transaction(async (tx) => program.publish(tx, usage))
  expect(await database.count(`select count(*) from bus.events where type = 'usage.billed'`)).toBe(2)
})

test('a rule binds through membership, and set role does not shake it off', async () => {
  const database = await createTestDatabase()
  const login = await createLogin(database, ['bus_publisher'])
  await addRule(database, login.name, 'adapter')
  const session = await openSession({ ...database, url: login.url })
  for (const statement of [`set role bus_publisher`, 'reset role', `set role ${login.name}`]) {
    await session.rows(statement)
    await expect(session.rows(insert('billing', 'note'))).rejects.toMatchObject(refused)
    await session.rows(insert('adapter', 'note'))
  }
  // A superuser's session that has become the role is bound as the role.
  const admin = await openSession(database)
  await admin.rows(insert('billing', 'note'))
  await admin.rows(`set role ${login.name}`)
  await expect(admin.rows(insert('billing', 'note'))).rejects.toMatchObject(refused)
  await admin.rows('set role bus_publisher')
  await admin.rows(insert('billing', 'note'))
})

test('a rule for bus_publisher makes the list closed: each adds what its own rules say', async () => {
  const database = await createTestDatabase()
  const plain = await createLogin(database, ['bus_publisher'])
  const billing = await createLogin(database, ['bus_publisher'])
  await plain.rows(insert('anything', 'note'))
  await addRule(database, 'bus_publisher', 'adapter', 'message.sent')
  await addRule(database, billing.name, 'billing', 'usage.**')
  await expect(plain.rows(insert('anything', 'note'))).rejects.toMatchObject(refused)
  await expect(plain.rows(insert('billing', 'usage.billed'))).rejects.toMatchObject(refused)
  await plain.rows(insert('adapter', 'message.sent'))
  await billing.rows(insert('billing', 'usage.billed'))
  await billing.rows(insert('adapter', 'message.sent'))
  await expect(billing.rows(insert('billing', 'note'))).rejects.toMatchObject(refused)
})

test('what a handler publishes under a worker role is bound, and a refusal has a code', async () => {
  const database = await createTestDatabase()
  const login = await createLogin(database, ['bus_worker'])
  await addRule(database, login.name, 'somebody-else')
  const bus = testBus(login.url)
  const note = { type: 'note', tenantId: 'acme', payload: 'canary-4711' } as const
  const error: unknown = await login.db
    .transaction(async (tx) => bus.publish(tx, note))
    .catch((thrown: unknown) => thrown)
  expect(error).toMatchObject({ code: 'BUS_PERMISSION_DENIED', retryable: false })
  expect(JSON.stringify(error, Object.getOwnPropertyNames(error))).not.toContain('canary-4711')
  await database.rows(`delete from bus.source_rules`)
  await login.db.transaction(async (tx) => bus.publish(tx, note))
})

test('rules that cannot match anything are refused', async () => {
  const database = await createTestDatabase()
  for (const type of ['*', 'a.*', 'a**', '**.a', 'a.**.b', '*.a', ''])
    await expect(addRule(database, 'bus_publisher', 'x', type)).rejects.toMatchObject({ code: '23514' })
  for (const type of ['**', 'a', 'a.b', 'a.**', 'a.b.**', 'a_b-c'])
    await addRule(database, 'bus_publisher', 'x', type)
})

test('a rule for a role that is not there is refused: it would bind nobody', async () => {
  const database = await createTestDatabase()
  const insert = `insert into bus.source_rules (role, source) values ($1, 'adapter')`
  await expect(database.rows(insert, ['no_such_role'])).rejects.toMatchObject({ code: '42704' })
  expect(await database.count('select count(*) from bus.source_rules')).toBe(0)
  await database.rows(insert, ['bus_publisher'])
  expect(await database.count('select count(*) from bus.source_rules')).toBe(1)
})
