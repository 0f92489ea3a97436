import { expect, onTestFinished, test } from 'vitest'
import type { DoctorReport } from '../../src/doctor/doctor.ts'
import { testBus } from '../support/bus.ts'
import { createFolder, runCli } from '../support/cli.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { startOwnServer } from '../support/own-server.ts'
import { pgbouncerPath, startPgbouncer } from '../support/pgbouncer.ts'

test('bossbus doctor prints what it finds, and what mends it, and exits with 1', async () => {
  const { url, rows } = await createTestDatabase()
  await rows('drop index bus.outbox_due_idx')
  const { code, out, err } = await runCli(await createFolder(), ['doctor'], { DATABASE_URL: url })
  expect({ code, err }).toEqual({ code: 1, err: '' })
  const lines = out.split('\n')
  expect(lines[0]).toMatch(
    /^PostgreSQL 1\d\S*, database \w+ as postgres, \S+ ms away, migration \d+ of \d+, pg-boss schema \d+$/,
  )
  const at = lines.findIndex((line) =>
    /^error {2}schema-changed {2}The schema `bus` is not .*outbox_due_idx is missing/.test(line),
  )
  expect(at).toBeGreaterThan(0)
  expect(lines[at + 1]).toMatch(
    /^ {2}As the owner of the schema: CREATE INDEX CONCURRENTLY outbox_due_idx ON bus\.outbox/,
  )
  // The server of the tests has neither, and its login is a superuser.
  expect(lines.flatMap((line) => /^(?:error|warning|info) {2}\S+/.exec(line) ?? [])).toEqual([
    'error  fsync-off',
    'error  full-page-writes-off',
    'error  schema-changed',
    'warning  login-unrestricted',
  ])
  expect(lines.at(-1)).toMatch(/^\d\d checks: 3 errors, 1 warning$/)
})

test('bossbus doctor --json prints one object; a healthy database exits with 0', async () => {
  const server = await startOwnServer(['fsync=on', 'full_page_writes=on'])
  await server.rows(`create role owner_of_all login createrole password 'x'`)
  await server.rows('grant bus_tenant, pg_read_all_stats to owner_of_all')
  await server.rows('create database shop owner owner_of_all')
  const url = Object.assign(new URL(server.url), {
    username: 'owner_of_all',
    password: 'x',
    pathname: '/shop',
  })
  const folder = await createFolder({
    'bossbus.config.mjs': `export default { database: '${url.toString()}', bossSchema: 'jobs' }`,
  })
  expect((await runCli(folder, ['doctor'])).code).toBe(1)
  expect((await runCli(folder, ['migrate'])).code).toBe(0)
  const { code, out } = await runCli(folder, ['doctor', '--json'])
  expect({ code, lines: out.split('\n').length }).toEqual({ code: 0, lines: 1 })
  const report = JSON.parse(out) as DoctorReport
  expect(report).toMatchObject({ ok: true, findings: [], skipped: [], facts: { role: 'owner_of_all' } })
  const text = await runCli(folder, ['doctor'])
  expect(text.out).toMatch(/\n\d\d checks: all is well$/)
})

test('an empty database is named, with what could not be checked', async () => {
  const { url } = await createTestDatabase({ empty: true })
  const { code, out } = await runCli(await createFolder(), ['doctor', '--database', url])
  expect(code).toBe(1)
  expect(out).toContain('\nerror  schema-missing  ')
  expect(out).toContain('\n  bossbus migrate\n')
  expect(out).toMatch(/\n\d\d more make no sense here: the schema `bus` is missing$/)
})

test('a database that cannot be reached exits with 2, and says why without a stack trace', async () => {
  const nowhere = { DATABASE_URL: 'postgres://nobody:secret@127.0.0.1:1/none' }
  const { code, out, err } = await runCli(await createFolder(), ['doctor'], nowhere)
  expect({ code, out }).toEqual({ code: 2, out: '' })
  expect(err).toMatch(/^BUS_DATABASE_UNAVAILABLE: .*ECONNREFUSED/)
  expect(err).not.toMatch(/secret|\bat /)
  const json = await runCli(await createFolder(), ['doctor', '--json'], nowhere)
  expect(json.code).toBe(2)
  expect(JSON.parse(json.out)).toMatchObject({ error: { code: 'BUS_DATABASE_UNAVAILABLE' } })
})

test.skipIf(pgbouncerPath === undefined)(
  'DATABASE_URL is that of the service where the bus has another one',
  async () => {
    const { url } = await createTestDatabase()
    const pooled = await startPgbouncer(url, 'transaction')
    const folder = await createFolder()
    const { out } = await runCli(folder, ['doctor'], { DATABASE_URL: pooled, BOSSBUS_DATABASE_URL: url })
    expect(out).toContain('error  prepared-statements-lost')
    expect(out).not.toContain('pooler-in-transaction-mode')
    expect((await runCli(folder, ['doctor'], { DATABASE_URL: url })).out).not.toContain('prepared-statements')
  },
)

test('names that somebody chose cannot write to the terminal', async () => {
  const { url, rows } = await createTestDatabase()
  await rows(`alter table bus.events add column "x\u001b[31m\u202e" text`)
  const { out } = await runCli(await createFolder(), ['doctor', '--database', url])
  expect(out).toContain('schema-extended')
  expect(out).toMatch(/column events x.+ was added/)
  expect(out).not.toContain('\u001b')
  expect(out).not.toContain('\u202e')
})

test('a database in use stays as it is', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  onTestFinished(async () => bus.stop())
  const seen: unknown[] = []
  bus.subscribe({ name: 'steady', events: ['note'], handler: ({ payload }) => void seen.push(payload) })
  await bus.start()
  const publishing = (async () => {
    for (let n = 1; n <= 50; n += 1)
      await bus.tryPublish({ type: 'note', tenantId: 'acme', payload: String(n) })
  })()
  const { out } = await runCli(await createFolder(), ['doctor', '--database', database.url])
  await publishing
  await until('all are delivered', () => seen.length === 50)
  expect(out).toContain('checks: 2 errors, 1 warning')
})
