import pg from 'pg'
import { expect, onTestFinished, test, vi } from 'vitest'
import type { DoctorFinding } from '../../src/doctor/check/finding.ts'
import { examine } from '../../src/doctor/doctor.ts'
import { settingsCheck } from '../../src/doctor/server/settings.ts'
import { isStuckAge } from '../../src/doctor/server/wraparound.ts'
import { synchronousStandbyCheck } from '../../src/doctor/server/writes.ts'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { codesOf, findingOf, findingsOfChecks, plant } from '../support/doctor.ts'
import { connect } from '../support/health.ts'
import { startOwnServer } from '../support/own-server.ts'
import { createLogin } from '../support/roles.ts'
import { openSession } from '../support/session.ts'

function nameOf({ url }: Pick<TestDatabase, 'url'>): string {
  return new URL(url).pathname.slice(1)
}

/** Sets something for the database, and for new sessions. */
function setFor(database: TestDatabase, setting: string): () => Promise<unknown> {
  return async () => database.rows(`alter database ${nameOf(database)} set ${setting}`)
}

/** Runs the SQL of a remedy. */
async function mend(database: TestDatabase, { remedy }: DoctorFinding): Promise<void> {
  for (const statement of remedy.split('; ').filter((part) => part !== '')) await database.rows(statement)
}

test('a server that says fsync, full page writes and autovacuum are off', async () => {
  const server = await startOwnServer(['autovacuum=off', 'track_counts=off'])
  const { findings } = await examine({ database: server.url })
  const of = (code: string) => findings.find((finding) => finding.code === code)
  expect(of('fsync-off')).toMatchObject({ severity: 'error' })
  expect(of('fsync-off')?.remedy).toContain('alter system set fsync = on')
  expect(of('full-page-writes-off')).toMatchObject({ severity: 'error' })
  expect(of('autovacuum-off')?.remedy).toBe(
    'alter system set autovacuum = on; alter system set track_counts = on; select pg_reload_conf();',
  )
})

test('a server with a storage of its own needs neither fsync nor full pages, and its standby is that storage', async () => {
  const server = await startOwnServer()
  const codes = async () =>
    (await findingsOfChecks(server.url, [settingsCheck, synchronousStandbyCheck])).map(({ code }) => code)
  await server.rows(`alter system set synchronous_standby_names = 'walproposer'`)
  await server.rows('select pg_reload_conf()')
  await until('it is set', async () => {
    const [row] = await server.rows('show synchronous_standby_names')
    return row?.['synchronous_standby_names'] === 'walproposer'
  })
  expect(await codes()).toEqual(['fsync-off', 'full-page-writes-off', 'synchronous-standby-missing'])
  // No commit is to wait for the standby.
  await server.rows('set synchronous_commit = local; create role neon_superuser nologin')
  expect(await codes()).toEqual([])
  await server.rows('set synchronous_commit = local; drop role neon_superuser')
  expect(await codes()).toHaveLength(3)
  await server.rows(
    `set synchronous_commit = local; set allow_system_table_mods = on;
     create function pg_catalog.aurora_version() returns text language sql return '16.4'`,
  )
  expect(await codes()).toEqual([])
})

test('what roles have set counts only of those that may publish', async () => {
  const database = await createTestDatabase()
  const { name } = await createLogin(database)
  const { name: superuser } = await createLogin(database)
  await database.rows(`alter role ${superuser} superuser`)
  for (const role of [name, superuser])
    for (const setting of [
      'default_transaction_read_only = on',
      'synchronous_commit = off',
      'session_replication_role = replica',
    ])
      await database.rows(`alter role ${role} set ${setting}`)
  expect(await codesOf(database.url)).toEqual([])
  await database.rows(`grant bus_publisher to ${name}`)
  const { findings } = await examine({ database: database.url })
  const of = (code: string) => findings.find((finding) => finding.code === code)
  expect(of('read-only-by-default')?.data).toEqual({ of: [name] })
  expect(of('synchronous-commit-off')?.data).toEqual({ of: [name] })
  expect(of('setting-unsupported')?.data).toMatchObject({ inReplicaRole: [name] })
  for (const code of ['read-only-by-default', 'synchronous-commit-off', 'setting-unsupported'])
    for (const statement of (of(code)?.remedy ?? '').split('; ')) await database.rows(statement)
  expect(await codesOf(database.url)).toEqual([])
})

test('synchronous-commit-off: of the database, and of a role', async () => {
  const database = await createTestDatabase()
  const finding = await plant(
    database.url,
    'synchronous-commit-off',
    setFor(database, 'synchronous_commit = off'),
  )
  expect(finding).toMatchObject({ severity: 'warning', data: { of: [nameOf(database)] } })
  await mend(database, finding)
  expect(await codesOf(database.url)).toEqual([])
})

test('read-only-by-default: the bus writes, and a service may not', async () => {
  const database = await createTestDatabase()
  const finding = await plant(
    database.url,
    'read-only-by-default',
    setFor(database, 'default_transaction_read_only = on'),
  )
  expect(finding.message).toContain('publish')
  const [session] = [await openSession(database)]
  await session.rows('set default_transaction_read_only = off')
  for (const statement of finding.remedy.split('; ')) await session.rows(statement)
  expect(await codesOf(database.url)).toEqual([])
})

test('setting-unsupported: triggers that a role keeps from firing', async () => {
  const database = await createTestDatabase()
  const finding = await plant(
    database.url,
    'setting-unsupported',
    setFor(database, 'session_replication_role = replica'),
  )
  expect(finding).toMatchObject({ severity: 'error', data: { inReplicaRole: [nameOf(database)] } })
  await mend(database, finding)
  expect(await codesOf(database.url)).toEqual([])
})

test('autovacuum-off: of a table alone', async () => {
  const database = await createTestDatabase()
  const finding = await plant(database.url, 'autovacuum-off', async () =>
    database.rows('alter table bus.ordered_keys set (autovacuum_enabled = off)'),
  )
  expect(finding.data).toEqual({ settings: [], tables: ['bus.ordered_keys'] })
  await mend(database, finding)
  expect(await codesOf(database.url)).toEqual([])
})

test('plans-restricted: plans that claims need', async () => {
  const database = await createTestDatabase()
  const finding = await plant(database.url, 'plans-restricted', setFor(database, 'enable_nestloop = off'))
  expect(finding.data).toEqual({ settings: ['enable_nestloop'] })
})

test('synchronous-standby-missing: commits that wait for a standby that is not there', async () => {
  const server = await startOwnServer()
  const finding = await plant(server.url, 'synchronous-standby-missing', async () => {
    await server.rows(`alter system set synchronous_standby_names = 'absent'`)
    await server.rows('select pg_reload_conf()')
    await until('it is set', async () => {
      const [row] = await server.rows('show synchronous_standby_names')
      return row?.['synchronous_standby_names'] === 'absent'
    })
  })
  expect(finding).toMatchObject({ severity: 'error', data: { names: 'absent' } })
})

test('server-end-of-life: from the day after the last release on', async () => {
  const { url } = await createTestDatabase()
  const at = (day: string) => ({ now: () => new Date(`${day}T12:00:00Z`) })
  const { findings } = await examine({ database: url, ...at('2026-11-01') })
  expect(findings.map(({ code }) => code)).not.toContain('server-end-of-life')
  const finding = await findingOf(url, 'server-end-of-life', at('2031-01-01'))
  expect(finding.severity).toBe('warning')
})

test('encoding-not-utf8: a database that cannot store every character', async () => {
  const { url, rows } = await createTestDatabase()
  const name = `${nameOf({ url })}_latin`
  await rows(`create database ${name} encoding 'LATIN1' locale 'C' template template0`)
  onTestFinished(async () => void (await rows(`drop database ${name} with (force)`)))
  const latin = Object.assign(new URL(url), { pathname: `/${name}` }).toString()
  expect(await codesOf(url)).toEqual([])
  expect(await findingOf(latin, 'encoding-not-utf8')).toMatchObject({ data: { encoding: 'LATIN1' } })
  await expect(testBus(latin).migrate()).rejects.toThrow('encoding')
})

test('collation-changed: an operating system that sorts differently', async () => {
  const { url, rows } = await createTestDatabase()
  const name = `${nameOf({ url })}_icu`
  // The collation C has no version.
  await rows(
    `create database ${name} encoding 'UTF8' locale_provider icu icu_locale 'en' locale 'C' template template0`,
  )
  onTestFinished(async () => void (await rows(`drop database ${name} with (force)`)))
  const sorted = Object.assign(new URL(url), { pathname: `/${name}` }).toString()
  const finding = await plant(sorted, 'collation-changed', async () =>
    rows(`update pg_database set datcollversion = '0' where datname = '${name}'`),
  )
  expect(finding.data).toMatchObject({ recorded: '0' })
  expect(finding.remedy).toContain(`alter database "${name}" refresh collation version;`)
})

test('wraparound-near: transaction ids that vacuum does not move on', async () => {
  const server = await startOwnServer(['autovacuum_freeze_max_age=100000', 'autovacuum_naptime=1'])
  const holder = new pg.Client({ connectionString: server.url })
  holder.on('error', () => {})
  await holder.connect()
  onTestFinished(async () => holder.end())
  await holder.query('begin isolation level repeatable read; select txid_current()')
  const finding = await plant(server.url, 'wraparound-near', async () => {
    await server.rows('create table public.burnt (n int)')
    // Each subtransaction that writes takes an id.
    await server.rows(`do $$ begin
      for n in 1..210000 loop
        begin insert into public.burnt values (n); exception when division_by_zero then null; end;
      end loop; end $$`)
  })
  expect(finding.severity).toBe('error')
  expect((finding.data['databases'] as readonly { readonly age: number }[])[0]?.age).toBeGreaterThan(200_000)
})

test.each([
  [400_000_000, 200_000_000, false],
  [400_000_001, 200_000_000, true],
  // Where the server freezes late on purpose, the ages that it reaches every time are no finding.
  [1_600_000_000, 1_500_000_000, false],
  [1_900_000_000, 1_500_000_000, true],
  [2_100_000_000, 2_000_000_000, true],
  [2_000_000_000, 2_000_000_000, false],
])('an age of %d with a freeze age of %d: stuck is %s', (age, freezeAge, isStuck) => {
  expect(isStuckAge(age, freezeAge)).toBe(isStuck)
})

test('connections-scarce: of the role, of the database and of the server', async () => {
  const database = await createTestDatabase()
  const finding = await plant(database.url, 'connections-scarce', async () =>
    database.rows(`alter database ${nameOf(database)} connection limit 12`),
  )
  expect(finding.message).toContain('the database')
  expect(finding.remedy).toContain('connection limit -1')
  const server = await startOwnServer(['max_connections=13'])
  expect(await findingOf(server.url, 'connections-scarce')).toMatchObject({
    data: { of: 'max_connections', limit: 10, wanted: 11 },
  })
})

test('locks-scarce and shared-buffers-small: more queues, and more jobs, than the server was set up for', async () => {
  const server = await startOwnServer(['max_connections=20'])
  const bus = testBus(server.url)
  for (let n = 1; n <= 12; n += 1) bus.subscribe({ name: `s${n}`, events: ['note'], handler: () => {} })
  await bus.migrate()
  expect(await codesOf(server.url)).not.toContain('locks-scarce')
  for (const setting of ['max_locks_per_transaction = 10', `shared_buffers = '1MB'`])
    await server.rows(`alter system set ${setting}`)
  await server.kill()
  await server.restart()
  const { findings } = await examine({ database: server.url })
  const locks = findings.find(({ code }) => code === 'locks-scarce')
  expect(locks).toMatchObject({ severity: 'warning', data: { table: 'pgboss.job', slots: 200 } })
  expect(locks?.remedy).toMatch(/max_locks_per_transaction = 64;/)
  expect(findings.find(({ code }) => code === 'shared-buffers-small')).toMatchObject({
    severity: 'info',
    data: { sharedBuffersBytes: 1024 ** 2 },
  })
})

test('clock-differs: the clocks of this machine and of the server', async () => {
  const database = await createTestDatabase()
  const real = Date.now.bind(Date)
  const clock = vi.spyOn(Date, 'now').mockImplementation(() => real() - 20_000)
  onTestFinished(() => clock.mockRestore())
  await findingOf(database.url, 'clock-differs')
  clock.mockRestore()
  expect(await codesOf(database.url)).toEqual([])
})

test('prepared-transaction and replication-slot-inactive name what ends them', async () => {
  const server = await startOwnServer(['max_prepared_transactions=5', 'wal_level=logical'])
  await server.rows(`select pg_create_physical_replication_slot('replica', true)`)
  const client = await connect(server, 'two-phase')
  await client.query('create table public.numbers (n int)')
  await client.query(`begin; insert into public.numbers values (1); prepare transaction 'it''s half'`)
  const limit = { transactionLimitSeconds: 1 }
  await until('it is old', async () => (await codesOf(server.url, limit)).includes('prepared-transaction'))
  expect((await findingOf(server.url, 'prepared-transaction', limit)).remedy).toContain(
    `rollback prepared 'it''s half';`,
  )
  expect((await findingOf(server.url, 'replication-slot-inactive')).remedy).toContain(
    `select pg_drop_replication_slot('replica');`,
  )
})
