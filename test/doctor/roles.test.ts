import { expect, onTestFinished, test } from 'vitest'
import { busRoles } from '../../src/database/role-names.ts'
import { examine } from '../../src/doctor/doctor.ts'
import { testBus } from '../support/bus.ts'
import { createTestDatabase } from '../support/database.ts'
import { codesIn, codesOf, findingOf, plant } from '../support/doctor.ts'
import { startOwnServer } from '../support/own-server.ts'
import { createLogin } from '../support/roles.ts'

test('login-unrestricted: a superuser, or a login that row security does not bind', async () => {
  const database = await createTestDatabase()
  expect(await findingOf(database.url, 'login-unrestricted')).toMatchObject({
    severity: 'warning',
    data: { isSuperuser: true },
  })
  const login = await createLogin(database, ['bus_worker', 'bus_tenant'])
  const finding = await plant(login.url, 'login-unrestricted', async () =>
    database.rows(`alter role ${login.name} bypassrls`),
  )
  expect(finding.remedy).toBe(`alter role "${login.name}" nobypassrls;`)
})

test('login-without-privileges, tenant-reads-impossible and sessions-hidden: what a login lacks', async () => {
  const database = await createTestDatabase()
  const login = await createLogin(database)
  const finding = await findingOf(login.url, 'login-without-privileges')
  expect(finding).toMatchObject({
    severity: 'error',
    data: { memberOf: [], mayPublish: false, mayDeliver: false, mayOperate: false, mayMigrate: false },
  })
  expect(finding.remedy).toContain(`grant bus_publisher, bus_worker to "${login.name}";`)
  await database.rows(`grant bus_publisher, bus_worker to ${login.name}`)
  const before = await findingOf(login.url, 'tenant-reads-impossible')
  expect(before).toMatchObject({ severity: 'info', data: { mayPublish: true, mayDeliver: true } })
  expect(await codesOf(login.url)).toContain('sessions-hidden')
  await database.rows(`grant bus_tenant, pg_read_all_stats to ${login.name}`)
  expect(await codesOf(login.url)).toEqual(['not-permitted'])
  const publisher = await createLogin(database, ['bus_publisher', 'bus_tenant'])
  expect(codesIn(await examine({ database: publisher.url }))).toEqual(['sessions-hidden', 'not-permitted'])
})

test('roles-missing: a server without the roles', async () => {
  const server = await startOwnServer()
  expect(await codesOf(server.url)).not.toContain('roles-missing')
  for (const role of busRoles) await server.rows(`drop owned by ${role}`)
  for (const role of busRoles) await server.rows(`drop role ${role}`)
  const finding = await findingOf(server.url, 'roles-missing')
  expect(new Set(finding.data['missing'] as readonly string[])).toEqual(new Set(busRoles))
  expect(await codesOf(server.url)).not.toContain('privileges-missing')
  for (const statement of finding.remedy
    .replace(/^.*?: /, '')
    .split('; ')
    .slice(0, -1))
    await server.rows(statement)
  const again = testBus(server.url)
  onTestFinished(async () => again.stop())
  await again.migrate()
  expect(await codesOf(server.url)).toEqual([])
})

test('privileges-missing: what the roles need, in both schemas', async () => {
  const { url, rows } = await createTestDatabase()
  const finding = await plant(url, 'privileges-missing', async () => {
    await rows('revoke execute on function bus.cancel from bus_operator')
    await rows('revoke insert, select on bus.outbox from bus_worker')
    await rows('drop policy worker_uses on bus.receipts')
    await rows('revoke delete on pgboss.queue from bus_worker')
  })
  expect(finding).toMatchObject({ severity: 'warning', data: { count: 4 } })
  for (const { sql } of finding.data['grants'] as readonly { readonly sql: string }[]) await rows(sql)
  expect(await codesOf(url)).toEqual([])
  await rows('revoke all on all tables in schema bus from bus_worker')
  await rows('revoke usage on schema pgboss from bus_operator')
  const many = await findingOf(url, 'privileges-missing')
  expect(many.remedy).toBe('As the owner of the schemas: npx bossbus migrate')
  await testBus(url).migrate()
  expect(await codesOf(url)).toEqual([])
})

test('privileges-added: what everybody, or a role of the bus, was given beside', async () => {
  const { url, rows } = await createTestDatabase()
  const finding = await plant(url, 'privileges-added', async () => {
    await rows('grant select on bus.events to public')
    await rows('grant execute on function bus.drop_range to public')
    await rows('grant update, delete on bus.events to bus_publisher')
  })
  expect(finding).toMatchObject({ severity: 'warning', data: { count: 3 } })
  for (const { sql } of finding.data['grants'] as readonly { readonly sql: string }[]) await rows(sql)
  expect(await codesOf(url)).toEqual([])
})

test('a grant to a role of somebody else is no finding', async () => {
  const database = await createTestDatabase()
  const login = await createLogin(database)
  await database.rows(
    `grant usage on schema bus to ${login.name}; grant select on bus.events to ${login.name}`,
  )
  expect(await codesOf(database.url)).toEqual([])
})

test('row-security-off: of a table, and of a partition', async () => {
  const { url, rows } = await createTestDatabase()
  const [partition] = await rows(
    `select inhrelid::regclass::text as name from pg_inherits where inhparent = 'bus.events'::regclass order by 1 limit 1`,
  )
  const name = String(partition?.['name'])
  const finding = await plant(url, 'row-security-off', async () => {
    await rows('alter table bus.event_keys disable row level security')
    await rows(`alter table ${name} disable row level security`)
  })
  expect(finding.severity).toBe('error')
  expect(new Set(finding.data['tables'] as readonly string[])).toEqual(new Set(['bus.event_keys', name]))
  for (const statement of finding.remedy.replace(/^.*?: /, '').split('; ')) await rows(statement)
  expect(await codesOf(url)).toEqual([])
})

test('row-security-bypassed: roles that are free of it', async () => {
  const server = await startOwnServer()
  const finding = await plant(server.url, 'row-security-bypassed', async () => {
    await server.rows('alter role bus_tenant bypassrls')
    await server.rows('grant bus_operator to bus_publisher')
  })
  expect(finding.remedy).toBe('revoke "bus_operator" from bus_publisher; alter role bus_tenant nobypassrls;')
  for (const statement of finding.remedy.split('; ')) await server.rows(statement)
  expect(await codesOf(server.url)).toEqual([])
})

test('rows-hidden: row security that somebody else has enabled', async () => {
  const database = await createTestDatabase()
  const login = await createLogin(database, ['bus_worker', 'bus_tenant'])
  const finding = await plant(login.url, 'rows-hidden', async () =>
    database.rows('alter table bus.subscriptions enable row level security'),
  )
  expect(finding).toMatchObject({ severity: 'error', data: { table: 'bus.subscriptions', role: login.name } })
  await testBus(database.url).migrate()
  expect(await codesOf(login.url)).not.toContain('rows-hidden')
  expect(await codesOf(database.url)).toEqual([])
})
