// @module-tag slow
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, onTestFinished, test } from 'vitest'
import { busRoles } from '../../src/schema.ts'
import { createTestDatabase } from '../support/database.ts'
import { checkedInSchema, describeSchema } from '../support/schema-snapshot.ts'

const projectFolder = fileURLToPath(new URL('../..', import.meta.url))

/**
 * A folder whose `node_modules` have drizzle-kit 1.x, and drizzle-orm beside it. It takes 96 MB, so it is no dependency:
 * `.ci/run` installs it.
 */
const folderOf1 = process.env['DRIZZLE_KIT_1']

const kits = [
  { name: '0.31', folder: projectFolder, isThere: true },
  { name: '1.x', folder: folderOf1 ?? '', isThere: folderOf1 !== undefined && existsSync(folderOf1) },
]

interface Kit {
  readonly run: (command: string, ...args: string[]) => Promise<string>
  /** What the kit has written: SQL and TypeScript. */
  readonly written: () => Promise<string>
}

/** A service's folder with a schema file and a configuration, beside the kit's `node_modules`. */
async function openKit(
  folder: string,
  url: string,
  schema: (imports: { bus: string }) => string,
  config: object,
): Promise<Kit> {
  const own = await mkdtemp(join(folder, '.kit-'))
  onTestFinished(async () => rm(own, { recursive: true, force: true }))
  await writeFile(join(own, 'schema.ts'), schema({ bus: join(projectFolder, 'src/schema.ts') }))
  // It takes its paths as relative to where it runs.
  const at = relative(folder, own)
  const all = {
    dialect: 'postgresql',
    schema: `./${at}/schema.ts`,
    out: `./${at}/out`,
    dbCredentials: { url },
    ...config,
  }
  await writeFile(join(own, 'drizzle.config.ts'), `export default ${JSON.stringify(all)}`)
  return {
    async run(command, ...args) {
      const program = join(folder, 'node_modules/drizzle-kit/bin.cjs')
      const { stdout, stderr } = await promisify(execFile)(
        process.execPath,
        [program, command, `--config=${at}/drizzle.config.ts`, ...args],
        { cwd: folder },
      )
      return stdout + stderr
    },
    async written() {
      const out = join(own, 'out')
      const names = await readdir(out, { recursive: true })
      const files = names.filter((name) => /\.(?:sql|ts)$/.test(name))
      return (await Promise.all(files.map(async (name) => readFile(join(out, name), 'utf8')))).join('\n')
    },
  }
}

const ownTables = `import { pgTable, text } from 'drizzle-orm/pg-core'
export const orders = pgTable('orders', { id: text('id').primaryKey() })`

describe.each(kits)('drizzle-kit $name', ({ folder, isThere, name }) => {
  test.skipIf(!isThere)('leaves the bus alone, as docs/drizzle.md says', { timeout: 300_000 }, async () => {
    const { url, rows } = await createTestDatabase()
    const before = await describeSchema(rows)
    const guide = await readFile(join(projectFolder, 'docs/drizzle.md'), 'utf8')
    for (const setting of [`schemaFilter: ['public']`, 'roles: { exclude: [...busRoles] }'])
      expect(guide).toContain(setting)
    const schema = ({ bus }: { bus: string }): string =>
      // 1.x cannot read tables of another copy of Drizzle, which the source of the bus would import here.
      name === '0.31' ? `${ownTables}\nimport { events } from '${bus}'\nvoid events` : ownTables
    const kit = await openKit(folder, url, schema, { schemaFilter: ['public'] })
    await kit.run('generate')
    expect(await kit.written()).toContain('CREATE TABLE "orders"')
    expect(await kit.written()).not.toMatch(/bus|pgboss/)
    await kit.run('check')
    await kit.run('push', '--force')
    expect(await rows(`select to_regclass('public.orders') is not null as made`)).toEqual([{ made: true }])
    expect(await describeSchema(rows)).toBe(before)
    expect(before).toBe(await checkedInSchema())
    // Pulling only reads: other tests have roles on this server.
    const pulled = await openKit(folder, url, () => ownTables, {
      schemaFilter: ['public'],
      entities: { roles: { exclude: [...busRoles] } },
    })
    await pulled.run('pull')
    expect(await pulled.written()).toContain('orders')
    expect(await pulled.written()).not.toMatch(/bus_|pgboss|"bus"/)
    const withRoles = await openKit(folder, url, () => ownTables, {
      schemaFilter: ['public'],
      entities: { roles: true },
    })
    await withRoles.run('pull')
    for (const role of busRoles) expect(await withRoles.written()).toContain(role)
  })
})

test('tables of the bus that are exported make migrations of the service', async () => {
  const { url } = await createTestDatabase()
  const kit = await openKit(projectFolder, url, ({ bus }) => `${ownTables}\nexport * from '${bus}'`, {})
  await kit.run('generate')
  expect(await kit.written()).toContain('CREATE TABLE "bus"."events"')
})
