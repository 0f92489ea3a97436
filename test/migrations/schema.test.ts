import { execFile } from 'node:child_process'
import { cp, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, onTestFinished, test } from 'vitest'
import { createTestDatabase } from '../support/database.ts'
import { describeSchema } from '../support/schema-snapshot.ts'

const projectFolder = fileURLToPath(new URL('../..', import.meta.url))

test('the schema is the one of the checked-in snapshot', async () => {
  const { rows } = await createTestDatabase()
  // After a change on purpose: npm run test:all -- test/migrations/schema.test.ts -u
  await expect(await describeSchema(rows)).toMatchFileSnapshot('schema.snapshot.txt')
})

test('the snapshot shows any change of a table, an index, a function, a trigger, a grant or a setting', async () => {
  const { rows } = await createTestDatabase()
  const changes = [
    'alter table bus.events add column extra text',
    'alter table bus.outbox alter column ordering_key set default 7',
    'alter table bus.receipts add check (attempts > 0)',
    'drop index bus.outbox_scheduled_idx',
    'alter table bus.outbox set (fillfactor = 50)',
    'alter function bus.publish(jsonb) set search_path to public',
    'alter table bus.events disable trigger dispatch_inserted_events',
    'grant select on bus.events to public',
    'alter sequence bus.subscription_revision cache 5',
    `create type bus.mood as enum ('good')`,
    'alter table bus.event_keys disable row level security',
    'alter policy tenant_reads on bus.outbox using (true)',
    'drop policy worker_uses on bus.outbox',
    'revoke execute on function bus.cancel from bus_operator',
    'grant usage on sequence bus.outbox_position_seq to bus_tenant',
  ]
  const seen = new Set([await describeSchema(rows)])
  for (const change of changes) {
    await rows(change)
    const text = await describeSchema(rows)
    expect([change, seen.has(text)]).toEqual([change, false])
    seen.add(text)
  }
})

/** Runs drizzle-kit on a copy of the migrations and gives the migrations that are there afterwards. */
async function generate(schemaFile: string): Promise<{ names: string[]; newest: string }> {
  const folder = await mkdtemp(join(tmpdir(), 'bossbus-drift-'))
  onTestFinished(async () => rm(folder, { recursive: true, force: true }))
  await cp(join(projectFolder, 'drizzle'), folder, { recursive: true })
  await promisify(execFile)(
    process.execPath,
    [
      join(projectFolder, 'node_modules/drizzle-kit/bin.cjs'),
      'generate',
      '--dialect=postgresql',
      `--schema=${schemaFile}`,
      // It takes the folder as relative, whatever it begins with.
      `--out=${relative(projectFolder, folder)}`,
    ],
    { cwd: projectFolder },
  )
  const names = (await readdir(folder)).filter((name) => /^\d{4}_.*\.sql$/.test(name)).toSorted()
  // drizzle-kit numbers by the journal, which need not be the number of the last file.
  const { entries } = JSON.parse(await readFile(join(folder, 'meta/_journal.json'), 'utf8')) as {
    entries: { tag: string }[]
  }
  return { names, newest: await readFile(join(folder, `${entries.at(-1)?.tag}.sql`), 'utf8') }
}

test('drizzle-kit finds nothing to migrate, and does after a change of the tables', async () => {
  const shipped = (await readdir(join(projectFolder, 'drizzle'))).filter((name) =>
    /^\d{4}_.*\.sql$/.test(name),
  )
  const folder = await mkdtemp(join(tmpdir(), 'bossbus-changed-'))
  onTestFinished(async () => rm(folder, { recursive: true, force: true }))
  await writeFile(
    join(folder, 'schema.ts'),
    `import { busSchema } from '${join(projectFolder, 'src/schema.ts')}'
import { text } from '${join(projectFolder, 'node_modules/drizzle-orm/pg-core/index.js')}'
export * from '${join(projectFolder, 'src/schema.ts')}'
export const added = busSchema.table('added', { name: text('name') })`,
  )
  const [same, changed] = await Promise.all([
    generate(join(projectFolder, 'src/schema.ts')),
    generate(join(folder, 'schema.ts')),
  ])
  expect(same.names).toEqual(shipped.toSorted())
  expect(changed.names).toHaveLength(shipped.length + 1)
  expect(changed.newest).toContain('CREATE TABLE "bus"."added"')
})
