import { execFile } from 'node:child_process'
import { mkdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import { optionsOf } from '../../src/bus-settings.ts'
import { createBus } from '../../src/index.ts'
import { createFolder, runCli } from '../support/cli.ts'
import { createTestDatabase } from '../support/database.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const main = join(root, 'src/cli/main.ts')
const index = JSON.stringify(join(root, 'src/index.ts'))
const nowhere = 'postgres://nobody@127.0.0.1:1/none'

/** A configuration that exports a bus whose logger writes to standard output, as pino does. */
function busText(database: string, exported: string): string {
  return `
import { createBus } from ${index}
const print = (fields: object, message: string) => console.log(message)
const bus = createBus({
  database: ${JSON.stringify(database)}, events: {}, source: 'shop',
  logger: { debug: print, info: print, warn: print, error: print },
})
bus.subscribe({ name: 'seen', events: ['**'], handler: () => console.log('handled') })
// Keeps the process alive.
setInterval(() => {}, 1000)
${exported}
`
}

async function runMain(
  folder: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<{ readonly code: number; readonly stdout: string; readonly stderr: string }> {
  const { DATABASE_URL: _, ...rest } = process.env
  return promisify(execFile)(process.execPath, [main, ...args], {
    cwd: folder,
    env: { ...rest, ...env },
    timeout: 60_000,
  }).then(
    ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
    (error: { code: number; stdout: string; stderr: string }) => error,
  )
}

describe('an exported bus', () => {
  test.each(['export default bus', 'export { bus }', 'export { bus }\nexport default { source: "shop" }'])(
    'gives its database and events (%s), is not started, and does not keep the command from ending',
    async (exported) => {
      const { url, count } = await createTestDatabase()
      const folder = await createFolder({ 'bossbus.config.ts': busText(url, exported) })
      // A pooler of the application's, say.
      const shown = await runMain(folder, ['tenants', '--json'], { DATABASE_URL: nowhere })
      expect(shown).toMatchObject({ code: 0, stdout: '', stderr: '' })
      const catalogue = await runMain(folder, ['catalog', 'export'])
      expect(JSON.parse(catalogue.stdout)).toMatchObject({ title: 'Events of shop' })
      expect(await count('select count(*) from bus.instances')).toBe(0)
    },
  )

  test('gives way to the flag, and to BOSSBUS_DATABASE_URL', async () => {
    const { url } = await createTestDatabase()
    const folder = await createFolder({ 'bossbus.config.ts': busText(nowhere, 'export default bus') })
    expect(await runMain(folder, ['tenants'])).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/ECONNREFUSED/) as string,
    })
    expect((await runMain(folder, ['tenants', '--database', url])).code).toBe(0)
    expect((await runMain(folder, ['tenants'], { BOSSBUS_DATABASE_URL: url })).code).toBe(0)
  })

  test('remembers its options, and shows them to nobody who prints it', () => {
    const bus = createBus({ database: 'postgres://a:secret@127.0.0.1:1/none', events: {}, source: 'shop' })
    expect(optionsOf(bus)).toMatchObject({ source: 'shop' })
    expect(Object.keys(bus)).toContain('state')
    expect(JSON.stringify({ ...bus })).not.toContain('secret')
  })
})

describe('a configuration that Node alone cannot load', () => {
  const tsconfig = JSON.stringify({ compilerOptions: { paths: { '@shop/*': ['./lib/*'] } } })

  async function createApp(): Promise<string> {
    const folder = await createFolder({
      'tsconfig.json': tsconfig,
      'bossbus.config.ts': `
import { events, Kind } from '@shop/events'
import { other } from './lib/other'
enum Service { Shop = 'shop' }
export default { source: Service.Shop + other + Kind.Paid, events }
`,
    })
    await mkdir(join(folder, 'lib'))
    await writeFile(join(folder, 'lib/events.ts'), 'export enum Kind { Paid }\nexport const events = {}\n')
    await writeFile(join(folder, 'lib/other.ts'), "export const other = '-'\n")
    await mkdir(join(folder, 'node_modules'))
    await symlink(join(root, 'node_modules/jiti'), join(folder, 'node_modules/jiti'))
    return folder
  }

  test('is loaded with jiti: path aliases, enums, imports without extensions', async () => {
    const { code, stdout, stderr } = await runMain(await createApp(), ['catalog', 'export'])
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(JSON.parse(stdout)).toMatchObject({ title: 'Events of shop-0' })
  })

  test('throws what it throws, with jiti too', async () => {
    const folder = await createFolder({
      'bossbus.config.ts': 'enum A { B }\nthrow new Error(`no secret ${A.B}`)\nexport default {}',
    })
    const { code, err } = await runCli(folder, ['catalog', 'export'])
    expect(code).toBe(2)
    expect(err).toMatch(/could not be loaded: no secret 0/)
  })
})
