import { readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { announceDev, describeDev } from '../../src/cli/dev/running-dev.ts'
import { configText, createFolder, runCli } from '../support/cli.ts'
import { runCliProcess } from '../support/cli-process.ts'
import { createTestDatabase } from '../support/database.ts'

const file = (folder: string): string => join(folder, '.bossbus', 'dev.json')
afterEach(() => {
  // The configuration was given it.
  delete process.env['DATABASE_URL']
})

const publish = ['events', 'publish', 'note', '--tenant', 'acme', '--payload', '1']

test('commands use the database of a dev that runs in their folder, and no other one', async () => {
  const { url, count } = await createTestDatabase()
  const folder = await createFolder({ 'bossbus.config.ts': configText('{ note: { schema: z.unknown() } }') })
  const before = await runCli(folder, publish)
  expect(before.code).toBe(2)
  expect(before.err).toMatch(/^No database is given: .* bossbus dev$/)

  const withdraw = await announceDev(folder, url)
  expect((await stat(file(folder))).mode & 0o777).toBe(0o600)
  const published = await runCli(folder, publish)
  expect(published).toMatchObject({
    code: 0,
    err: `Database: that of bossbus dev: ${url}`,
  })
  expect(await count('select count(*) from bus.events')).toBe(1)

  // What is named counts, also when it does not answer.
  const named = await runCli(folder, publish, { DATABASE_URL: 'postgres://nobody@127.0.0.1:1/none' })
  expect(named).toMatchObject({ code: 2, out: '' })
  expect(named.err).toMatch(/^BUS_DATABASE_UNAVAILABLE/)
  // It says nothing where no database is used.
  expect((await runCli(folder, ['catalog', 'export'])).err).not.toMatch(/^Database/m)

  // A configuration that names one itself.
  const naming = await createFolder({
    'bossbus.config.mjs': `export default { database: 'postgres://nobody@127.0.0.1:1/none' }`,
  })
  const withdrawOther = await announceDev(naming, url)
  expect((await runCli(naming, ['status'])).err).toMatch(/^BUS_DATABASE_UNAVAILABLE/)
  withdrawOther()

  // Of a process that was killed, and of a server that has ended.
  const left = JSON.parse(await readFile(file(folder), 'utf8')) as object
  await writeFile(file(folder), JSON.stringify({ ...left, pid: 2 ** 22 + 1 }))
  expect(await runCli(folder, publish)).toEqual(before)
  await writeFile(file(folder), JSON.stringify({ ...left, url: 'postgres://nobody@127.0.0.1:1/none' }))
  expect(await runCli(folder, publish)).toEqual(before)
  await writeFile(file(folder), '{')
  expect(await runCli(folder, publish)).toEqual(before)

  // Another one may have been started since, which goes on.
  await writeFile(file(folder), JSON.stringify({ ...left, pid: 1 }))
  withdraw()
  expect(JSON.parse(await readFile(file(folder), 'utf8'))).toMatchObject({ pid: 1 })
  const again = await announceDev(folder, url)
  again()
  await expect(stat(file(folder))).rejects.toThrow('ENOENT')
  expect(await runCli(folder, publish)).toEqual(before)
  expect(await count('select count(*) from bus.events')).toBe(1)
})

test('says where the database of dev is, and no password, also to a configuration that takes it from the environment', async () => {
  expect(describeDev('postgres://ana:secret@db.example:6000/prod')).toBe(
    'that of bossbus dev: postgres://ana:***@db.example:6000/prod',
  )
  const { url } = await createTestDatabase()
  const folder = await createFolder({
    'bossbus.config.mjs':
      "export default { database: { connectionString: process.env['DATABASE_URL'], max: 3 } }",
  })
  const withdraw = await announceDev(folder, url)
  expect((await runCli(folder, ['instances'])).err).toMatch(/^Database: that of bossbus dev: postgres:/)
  withdraw()
})

test('a configuration may load DATABASE_URL from a file', async () => {
  const { url } = await createTestDatabase()
  const folder = await createFolder({
    'bossbus.config.mjs': `process.env['DATABASE_URL'] ??= ${JSON.stringify(url)}
export default { events: {}, source: 'shop' }`,
  })
  expect(await runCliProcess(folder, ['instances', '--json'])).toMatchObject({ code: 0, err: '' })
})
