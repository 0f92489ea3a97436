import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { neededRole } from '../../src/database/needed-role.ts'
import { configText, createFolder, runCli } from '../support/cli.ts'
import { createTestDatabase } from '../support/database.ts'
import { createLogin } from '../support/roles.ts'

test('the hint of a refusal names the role that may do it, as drizzle/roles.sql grants it', async () => {
  const sql = await readFile(fileURLToPath(new URL('../../drizzle/roles.sql', import.meta.url)), 'utf8')
  const granted = new Map<string, Set<string>>()
  for (const [, role = '', object = ''] of sql.matchAll(
    /\('(bus_\w+)', '(?:function|sequence)', 'bus\.(\w+)/g,
  ))
    granted.set(object, (granted.get(object) ?? new Set()).add(role))
  expect(granted.size).toBeGreaterThan(50)
  for (const [object, roles] of granted) {
    if (roles.size === 1 && roles.has('bus_tenant')) continue
    const needed = neededRole(`permission denied for function ${object}`)
    const expected = ['bus_operator', 'bus_publisher', 'bus_worker'].find((role) => roles.has(role))
    expect([object, needed]).toEqual([object, expected])
  }
  expect(neededRole('must be owner of table job')).toBeUndefined()
})

test('whoever may not publish is told bus_publisher, and whoever may not read bus_operator', async () => {
  const database = await createTestDatabase()
  const folder = await createFolder({ 'bossbus.config.ts': configText('{ note: { schema: z.unknown() } }') })
  const publish = ['events', 'publish', 'note', '--tenant', 'acme', '--payload', '1']
  const [operator, publisher, nobody] = await Promise.all(
    [['bus_operator'], ['bus_publisher'], []].map(async (roles) => createLogin(database, roles)),
  )
  const errorOf = async (login: typeof nobody, args: string[]): Promise<string> => {
    const { code, err } = await runCli(folder, args, { DATABASE_URL: login?.url ?? '' })
    expect(code).toBe(2)
    expect(err).toMatch(/^BUS_PERMISSION_DENIED: /)
    return err.split('\n').at(-1) ?? ''
  }
  expect(await errorOf(operator, publish)).toMatch(/connection bus_publisher:/)
  expect(await errorOf(publisher, publish)).toMatch(/connection bus_operator:/)
  expect(await errorOf(nobody, ['dead-letters', 'list'])).toMatch(/connection bus_operator:/)
})
