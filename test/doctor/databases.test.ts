import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { examine } from '../../src/doctor/doctor.ts'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { codesIn, codesOf } from '../support/doctor.ts'
import { connect } from '../support/health.ts'
import { migrateTo } from '../support/migrations.ts'
import { startOlderServer } from '../support/older-server.ts'
import { startOwnServer } from '../support/own-server.ts'
import { createLogin } from '../support/roles.ts'
import { openSession } from '../support/session.ts'

test('an empty database: what can be checked without the schemas', async () => {
  const { url } = await createTestDatabase({ empty: true })
  const report = await examine({ database: url })
  expect(report.ok).toBe(false)
  expect(codesIn(report)).toEqual(['schema-missing'])
  expect(report.facts).toMatchObject({ hasBus: false, appliedCount: 0, bossVersion: undefined })
  expect(report.made).toContain('LISTEN and NOTIFY')
  expect(new Set(report.skipped.map(({ reason }) => reason))).toEqual(
    new Set(['the schema `bus` is missing']),
  )
})

test('a database of the first migrations, or with pg-boss alone', async () => {
  const older = await createTestDatabase({ empty: true })
  await migrateTo(older.url, 5)
  expect(await codesOf(older.url)).toEqual(expect.arrayContaining(['schema-outdated']))
  expect(await codesOf(older.url)).not.toContain('not-checked')
  const { url, rows } = await createTestDatabase()
  await rows('drop schema bus cascade')
  expect(await codesOf(url)).toEqual(['schema-missing'])
})

test('a database that cannot be reached, or that answers nothing, is an error', async () => {
  const { url } = await createTestDatabase()
  const nobody = Object.assign(new URL(url), { port: '1' }).toString()
  await expect(examine({ database: nobody })).rejects.toMatchObject({ code: 'BUS_DATABASE_UNAVAILABLE' })
  const absent = Object.assign(new URL(url), { pathname: '/absent' }).toString()
  await expect(examine({ database: absent })).rejects.toThrow('does not have this database')
  await expect(examine({ database: 'mysql://localhost/shop' })).rejects.toMatchObject({
    code: 'BUS_INVALID_OPTION',
  })
  await expect(examine({ database: url, bossSchema: 'public' })).rejects.toMatchObject({
    code: 'BUS_INVALID_OPTION',
  })
})

test('a standby is checked, and takes no writes', async () => {
  const server = await startOwnServer()
  const [row] = await server.rows('show data_directory')
  await server.rows('checkpoint')
  await server.kill()
  await writeFile(join(String(row?.['data_directory']), 'standby.signal'), '')
  await server.restart()
  // What a standby keeps for the day on which it becomes the primary.
  await server.rows(`select pg_create_physical_replication_slot('replica', true)`)
  const report = await examine({ database: server.url })
  expect(codesIn(report)).toEqual(['read-only-server'])
  expect(report.findings.find(({ code }) => code === 'read-only-server')).toMatchObject({
    severity: 'error',
    data: { isStandby: true },
  })
  expect(report.skipped.map(({ check, reason }) => `${check}: ${reason}`)).toEqual([
    'synchronous standbys: the server takes no writes',
    'LISTEN and NOTIFY: the server takes no writes',
  ])
})

test('server-too-old: nothing else is asked of it', async () => {
  const { url } = await createTestDatabase()
  const report = await examine({ database: await startOlderServer(url) })
  expect(report.findings).toMatchObject([{ code: 'server-too-old', severity: 'error', data: { oldest: 14 } }])
  expect(new Set(report.skipped.map(({ reason }) => reason))).toEqual(new Set(['the server is too old']))
})

test('not-permitted and login-without-privileges: a login that is a member of nothing', async () => {
  const database = await createTestDatabase()
  const { url } = await createLogin(database)
  const report = await examine({ database: url })
  expect(codesIn(report)).toEqual(['login-without-privileges', 'sessions-hidden', 'not-permitted'])
  expect(report.skipped.map(({ reason }) => reason)).toContain('the login may not read bus.migrations')
})

test('not-checked: a check that takes too long stops no other', async () => {
  const database = await createTestDatabase()
  const session = await openSession(database)
  await session.rows('begin')
  await session.rows('lock table bus.operations in access exclusive mode')
  const report = await examine({ database: database.url })
  const stuck = report.findings.filter(({ code }) => code === 'not-checked')
  expect(stuck.map(({ data }) => data['check'])).toEqual(
    expect.arrayContaining(['subscriptions and processes', 'operations']),
  )
  expect(stuck[0]).toMatchObject({ severity: 'warning' })
  expect(report.made).toEqual(expect.arrayContaining(['sequences', 'erasures']))
  await session.rows('rollback')
  expect(await codesOf(database.url)).toEqual([])
})

test('a server that is lost half way is an error', async () => {
  const server = await startOwnServer()
  const session = await connect(server, 'a report')
  await session.query('begin; lock table bus.operations in access exclusive mode')
  const examining = examine({ database: server.url }).then(
    () => 'the end',
    (error: unknown) => (error as { readonly code: unknown }).code,
  )
  await until(
    'a check waits for the lock',
    async () => (await server.count(`select count(*) from pg_locks where not granted`)) > 0,
  )
  await server.kill()
  expect(await examining).toBe('BUS_DATABASE_UNAVAILABLE')
})

test('examining changes nothing, and leaves no connection', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  await bus.start({ run: 'nothing' })
  const count = async (): Promise<number> =>
    database.count(
      `select count(*) from pg_stat_activity where datname = current_database() and application_name = 'bossbus'`,
    )
  const before = await count()
  await examine({ database: database.url })
  await until('its connections are closed', async () => (await count()) === before)
  expect(await database.count('select count(*) from bus.audit')).toBe(0)
})
