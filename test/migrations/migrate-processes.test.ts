import { execFile } from 'node:child_process'
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, onTestFinished, test } from 'vitest'
import { testBus } from '../support/bus.ts'
import { createTestDatabase } from '../support/database.ts'
import { shippedMigrationCount } from '../support/migrations.ts'
import { checkedInSchema, describeSchema } from '../support/schema-snapshot.ts'

const projectFolder = fileURLToPath(new URL('../..', import.meta.url))

/** Calls methods of a bus, one after the other, in a process of its own: `ok`, or the code of the error, for each. */
async function inProcess(
  folder: string,
  url: string,
  ...methods: ('migrate' | 'start')[]
): Promise<string[]> {
  const script = `
import { createBus, defineEvents } from './src/index.ts'
const [url, ...methods] = process.argv.slice(1)
const bus = createBus({ database: url, events: defineEvents({}), source: 'child' })
const outcomes = []
for (const method of methods)
  outcomes.push(await bus[method]().then(() => 'ok', (error) => error.code ?? String(error)))
await bus.stop()
console.log(JSON.stringify(outcomes))`
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ['--input-type=module', '--eval', script, url, ...methods],
    { cwd: folder },
  )
  return JSON.parse(stdout) as string[]
}

/** The bus as a later version would be: with one migration more. */
async function laterVersion(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'bossbus-later-'))
  onTestFinished(async () => rm(folder, { recursive: true, force: true }))
  for (const part of ['src', 'drizzle', 'package.json'])
    await cp(join(projectFolder, part), join(folder, part), { recursive: true })
  await symlink(join(projectFolder, 'node_modules'), join(folder, 'node_modules'))
  await writeFile(
    join(folder, 'drizzle/9999_later.sql'),
    `alter table bus.subscriptions add column color text;
--> statement-breakpoint
update bus.events set metadata = jsonb_build_object('migrated', id::text);
`,
  )
  const journalFile = join(folder, 'drizzle/meta/_journal.json')
  const journal = JSON.parse(await readFile(journalFile, 'utf8')) as {
    entries: { idx: number; when: number }[]
  }
  const last = journal.entries.at(-1)
  journal.entries.push({
    ...last,
    idx: journal.entries.length,
    when: (last?.when ?? 0) + 1000,
    tag: '9999_later',
  } as never)
  await writeFile(journalFile, JSON.stringify(journal))
  return folder
}

test('four processes that migrate an empty database at once all succeed', async () => {
  const { url, rows, count } = await createTestDatabase({ empty: true })
  const outcomes = await Promise.all(
    Array.from({ length: 4 }, async () => inProcess(projectFolder, url, 'migrate')),
  )
  expect(outcomes).toEqual([['ok'], ['ok'], ['ok'], ['ok']])
  expect(await count('select count(*) from bus.migrations')).toBe(shippedMigrationCount())
  expect(await describeSchema(rows)).toBe(await checkedInSchema())
})

test('a later version asks for its migration before it starts, and migrates a database with rows in it', async () => {
  const [folder, { url, db, rows, count }] = await Promise.all([laterVersion(), createTestDatabase()])
  const bus = testBus(url)
  const note = { type: 'note', tenantId: 'acme', payload: 1, eventId: 'e' } as const
  const first = await db.transaction(async (tx) => bus.publish(tx, note))
  expect(await inProcess(folder, url, 'start', 'migrate', 'start')).toEqual([
    'BUS_SCHEMA_OUTDATED',
    'ok',
    'ok',
  ])
  expect(await count('select count(*) from bus.migrations')).toBe(shippedMigrationCount() + 1)
  expect(await count(`select count(*) from bus.events where metadata->>'migrated' = id::text`)).toBe(1)
  expect(await rows(`select color from bus.subscriptions`)).toEqual([])
  // And the version before it refuses to work on what it does not know.
  await expect(bus.start()).rejects.toMatchObject({ code: 'BUS_SCHEMA_TOO_NEW' })
  await expect(bus.migrate()).rejects.toMatchObject({ code: 'BUS_SCHEMA_TOO_NEW' })
  expect(await db.transaction(async (tx) => bus.publish(tx, note))).toEqual({ ...first, duplicate: true })
})
