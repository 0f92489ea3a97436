import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import { commands } from '../../src/cli/commands/all.ts'
import { configText, createFolder, runCli } from '../support/cli.ts'
import { createTestDatabase } from '../support/database.ts'
import { checkedInSchema, describeSchema } from '../support/schema-snapshot.ts'

const main = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))
const nowhere = 'postgres://nobody@127.0.0.1:1/none'
const valid = configText('{ note: { schema: z.unknown() } }')

describe('bossbus', () => {
  test('shows its help, its version, and the help of each command', async () => {
    const folder = await createFolder()
    const help = await runCli(folder, ['--help'])
    expect(help.code).toBe(0)
    for (const { name, summary } of commands) {
      expect(help.out).toContain(name)
      const own = await runCli(folder, [...name.split(' '), '--help'])
      expect(own).toMatchObject({ code: 0, err: '' })
      expect(own.out).toContain(`Usage: bossbus ${name}`)
      expect(own.out).toContain(summary)
    }
    const { version } = JSON.parse(
      await readFile(fileURLToPath(new URL('../../package.json', import.meta.url)), 'utf8'),
    ) as { version: string }
    expect(await runCli(folder, ['--version'])).toEqual({ code: 0, out: version, err: '' })
  })

  test('asked for nothing, it shows the help and fails', async () => {
    const { code, out, err } = await runCli(await createFolder(), [])
    expect({ code, out }).toEqual({ code: 2, out: '' })
    expect(err).toContain('Usage: bossbus <command>')
  })

  test.each<[string, readonly string[], RegExp]>([
    ['an unknown command', ['catalogue'], /no command `catalogue`/],
    ['half a command', ['catalog'], /no command `catalog`. There are: catalog check, catalog export/],
    ['a command that is spelled wrong', ['event', 'find'], /Did you mean: bossbus events find/],
    ['the second word of a command alone', ['find'], /Did you mean: bossbus events find/],
    ['an option that is spelled wrong', ['tenants', '--limt', '3'], /no option --limt. Did you mean --limit/],
    ['an option without its value', ['tenants', '--limit'], /--limit needs a value: --limit <n>/],
    ['an option whose value is missing', ['events', 'find', '--type', '--yes'], /--yes follows/],
    ['an option given twice', ['tenants', '--limit', '3', '--limit', '4'], /--limit can be given once/],
    ['a time that is none', ['events', 'find', '--from', 'yesterday'], /--from to be a time like/],
    ['a payload that is no object', ['events', 'find', '--payload', '[1]'], /--payload to be a JSON object/],
    ['a duration that is none', ['tenants', '--timeout', 'long'], /--timeout to be a duration/],
    ['an argument that is missing', ['events', 'show'], /needs <id>/],
    ['one of two options', ['events', 'find', '--subscription', 'a', '--database', nowhere], /give both/],
    ['two databases', ['tenants', '--database', nowhere, '--database-file', 'a'], /either --database or/],
    ['a file of a database that is not there', ['tenants', '--database-file', 'a'], /a could not be read/],
    ['an unknown option', ['migrate', '--force'], /--force/],
    ['an argument too many', ['migrate', 'now'], /takes options only, got `now`/],
    ['a sample that is no number', ['catalog', 'check', '--sample', 'all'], /--sample/],
    [
      'an unknown format',
      ['catalog', 'export', '--format', 'yaml'],
      /--format to be one of json-schema, asyncapi/,
    ],
    [
      'a configuration that is not there',
      ['catalog', 'export', '--config', 'none.ts'],
      /There is no configuration file .*none\.ts/,
    ],
    [
      'a file to compare with that is not there',
      ['catalog', 'check', '--against', 'none.json'],
      /none\.json could not be read/,
    ],
    [
      'a file to compare with that is no JSON',
      ['catalog', 'check', '--against', 'bossbus.config.ts'],
      /is no JSON/,
    ],
    [
      'a database that does not answer',
      ['catalog', 'check', '--database', nowhere],
      /BUS_DATABASE_UNAVAILABLE/,
    ],
    ['no database', ['catalog', 'check'], /No database is given/],
  ])('gives 2 for %s', async (_what, args, message) => {
    const folder = await createFolder({ 'bossbus.config.ts': valid })
    const { code, out, err } = await runCli(folder, args)
    expect({ code, out }).toEqual({ code: 2, out: '' })
    expect(err).toMatch(message)
    const json = await runCli(folder, [...args, '--json'])
    expect(json).toMatchObject({ code: 2, err: '' })
    expect((JSON.parse(json.out) as { error: { message: string } }).error.message).toBeTruthy()
  })
})

describe('the configuration', () => {
  test.each<[string, Readonly<Record<string, string>>, RegExp]>([
    ['is not there', {}, /There is no bossbus\.config\.ts in/],
    ['exports nothing by default', { 'bossbus.config.mjs': 'export const events = {}' }, /by default/],
    ['lacks the events', { 'bossbus.config.js': 'export default { source: "a" }' }, /exports no `events`/],
    ['lacks the source', { 'bossbus.config.mjs': 'export default { events: {} }' }, /exports no `source`/],
    ['has a mistake in it', { 'bossbus.config.mjs': 'export default {' }, /could not be loaded/],
    [
      'imports what is not there',
      { 'bossbus.config.mjs': 'import "nowhere-to-be-found"' },
      /nowhere-to-be-found/,
    ],
    [
      'has events that are refused',
      { 'bossbus.config.mjs': 'export default { source: "a", events: { "a*b": {} } }' },
      /BUS_INVALID_OPTION: Expected an event type/,
    ],
  ])('%s: the message says so', async (_what, files, message) => {
    const { code, err } = await runCli(await createFolder(files), ['catalog', 'export'])
    expect(code).toBe(2)
    expect(err).toMatch(message)
  })

  test('is found by its names, by --config and by BOSSBUS_CONFIG, the flag first', async () => {
    const text = (source: string): string => `export default { source: '${source}', events: {} }`
    const folder = await createFolder({
      'bossbus.config.mjs': text('found'),
      'one.mjs': text('flag'),
      'two.mjs': text('environment'),
    })
    const sourceOf = async (
      args: readonly string[],
      env?: Readonly<Record<string, string>>,
    ): Promise<unknown> =>
      (JSON.parse((await runCli(folder, ['catalog', 'export', ...args], env)).out) as { title: string }).title
    expect(await sourceOf([])).toBe('Events of found')
    expect(await sourceOf([], { BOSSBUS_CONFIG: 'two.mjs' })).toBe('Events of environment')
    expect(await sourceOf(['--config', 'one.mjs'], { BOSSBUS_CONFIG: 'two.mjs' })).toBe('Events of flag')
  })

  test('gives way to the environment for the database, and that to the flag', async () => {
    const { url } = await createTestDatabase()
    const folder = await createFolder({
      'bossbus.config.ts': configText('{}', `database: ${JSON.stringify(nowhere)},`),
    })
    const check = async (
      args: readonly string[],
      env: Readonly<Record<string, string>> = {},
    ): Promise<number> => (await runCli(folder, ['catalog', 'check', ...args], env)).code
    expect(await check([])).toBe(2)
    expect(await check([], { DATABASE_URL: url })).toBe(0)
    expect(await check([], { DATABASE_URL: nowhere, BOSSBUS_DATABASE_URL: url })).toBe(0)
    expect(await check(['--database', url], { DATABASE_URL: nowhere })).toBe(0)
    expect(await check(['--database', nowhere], { DATABASE_URL: url })).toBe(2)
  })
})

test('migrate brings an empty database up to date, needs no configuration, and runs as a program', async () => {
  const { url, rows } = await createTestDatabase({ empty: true })
  const folder = await createFolder()
  const { stdout } = await promisify(execFile)(process.execPath, [main, 'migrate'], {
    cwd: folder,
    env: { ...process.env, DATABASE_URL: url },
  })
  expect(stdout).toBe('The database is up to date.\n')
  expect(await describeSchema(rows)).toBe(await checkedInSchema())
  expect(await runCli(folder, ['migrate', '--json', '--database', url])).toEqual({
    code: 0,
    out: '{"migrated":true}',
    err: '',
  })
  const failed: unknown = await promisify(execFile)(
    process.execPath,
    [main, 'migrate', '--database', nowhere],
    { cwd: folder },
  ).catch((error: unknown) => error)
  expect(failed).toMatchObject({
    code: 2,
    stderr: expect.stringMatching(
      /^BUS_DATABASE_UNAVAILABLE: .*ECONNREFUSED.*\nCheck that the server runs/,
    ) as string,
  })
})

test('an export keeps what the file has of older versions, and the check finds nothing against it', async () => {
  const folder = await createFolder({
    'bossbus.config.ts': configText('{ note: { schema: z.object({ a: z.string() }) } }'),
  })
  const exported = async (config: string): Promise<string[]> => {
    expect(
      await runCli(folder, ['catalog', 'export', '--out', 'catalogue.json', '--config', config]),
    ).toMatchObject({ code: 0, out: '' })
    const document = JSON.parse(await readFile(join(folder, 'catalogue.json'), 'utf8')) as { $defs: object }
    return Object.keys(document.$defs)
  }
  expect(await exported('bossbus.config.ts')).toEqual(['note.v1'])
  expect((await runCli(folder, ['catalog', 'check', '--against', 'catalogue.json'])).code).toBe(0)
  const next = await createFolder({
    'config.ts': configText(
      '{ note: { schema: z.object({ b: z.string() }), version: 2, upcast: { 1: same } } }',
    ),
    'broken.ts': configText('{ note: { schema: z.object({ b: z.string() }) } }'),
  })
  const broken = await runCli(folder, [
    'catalog',
    'check',
    '--against',
    'catalogue.json',
    '--config',
    join(next, 'broken.ts'),
  ])
  expect(broken.code).toBe(1)
  expect(broken.out).toContain('BREAKING  note version 1  (note:stored-events-unfit)')
  expect(broken.out).toContain('2 breaking changes.')
  const accepted = await runCli(folder, [
    ...['catalog', 'check', '--against', 'catalogue.json', '--config', join(next, 'broken.ts')],
    ...['--accept', 'note:stored-events-unfit', '--accept', 'note:readers-unfit'],
  ])
  expect(accepted.code).toBe(0)
  expect(accepted.out).toContain('Nothing breaks.')
  expect(await exported(join(next, 'config.ts'))).toEqual(['note.v1', 'note.v2'])
  expect(
    (
      await runCli(folder, [
        'catalog',
        'check',
        '--against',
        'catalogue.json',
        '--config',
        join(next, 'config.ts'),
      ])
    ).code,
  ).toBe(0)
})
