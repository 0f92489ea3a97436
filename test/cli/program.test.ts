import { afterEach, expect, test } from 'vitest'
import { nameProgram, program } from '../../src/cli/output/program.ts'
import { createFolder, runCli } from '../support/cli.ts'
import { createTestDatabase } from '../support/database.ts'

afterEach(() => nameProgram({}, '/', undefined))

test.each<[string, Record<string, string>, string | undefined, string]>([
  ['found by the shell', {}, '/usr/local/bin/bossbus', 'bossbus'],
  ['started by npx', { npm_command: 'exec' }, undefined, 'npx bossbus'],
  ['started by a script', { npm_lifecycle_event: 'status' }, undefined, 'npx bossbus'],
  ['of the folder', {}, '/work/shop/node_modules/.bin/bossbus', 'npx bossbus'],
  ['of a folder above', {}, '/work/node_modules/bossbus/dist/cli/main.js', 'npx bossbus'],
  ['of another folder', {}, '/usr/lib/node_modules/bossbus/dist/cli/main.js', 'bossbus'],
])('a program %s is suggested as it can be called', (_, env, path, expected) => {
  nameProgram(env, '/work/shop', path)
  expect(program()).toBe(expected)
})

test('every suggestion begins as the command line was called', async () => {
  const { url } = await createTestDatabase({ empty: true })
  const folder = await createFolder()
  for (const [name, env] of [
    ['npx bossbus', { npm_command: 'exec' }],
    ['bossbus', {}],
  ] as const) {
    const call = async (...args: string[]): Promise<string> => {
      const { out, err } = await runCli(folder, args, { ...env, DATABASE_URL: url })
      return `${out}\n${err}`
    }
    const lines = [
      ...(await call('status')).matchAll(/.*bossbus migrate.*/g),
      ...(await call('doctor')).matchAll(/.*bossbus migrate.*/g),
      ...(await call('doctor', '--json')).matchAll(/[^"]*bossbus migrate[^"]*/g),
      ...(await call('event', 'find')).matchAll(/.*bossbus events find.*/g),
      ...(await call('status', '--help')).matchAll(/.*bossbus status.*/g),
    ].map(([line]) => line)
    expect(lines.length).toBeGreaterThan(5)
    const other = name === 'bossbus' ? /npx bossbus/ : /(?<!npx )bossbus [a-z]/
    expect(lines.filter((line) => other.test(line))).toEqual([])
  }
})
