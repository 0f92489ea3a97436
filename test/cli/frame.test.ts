import { spawnSync } from 'node:child_process'
import { describe, expect, test } from 'vitest'
import { optional, readArguments, required, several, usageOf } from '../../src/cli/command/arguments.ts'
import { actorOf } from '../../src/cli/command/actor.ts'
import { commandLine } from '../../src/cli/output/command-line.ts'
import { confirm } from '../../src/cli/command/confirm.ts'
import { describeError } from '../../src/cli/command/describe-error.ts'
import { findCommand } from '../../src/cli/command/find-command.ts'
import { durationSeconds, text as stringFlag, timeAhead } from '../../src/cli/command/flags.ts'
import { globalFlags } from '../../src/cli/command/global-flags.ts'
import { hasPassword, nextPageCommand } from '../../src/cli/command/next-page.ts'
import { parseFlags } from '../../src/cli/command/parse-flags.ts'
import { changeFlags, confirmFlag, pageFlags } from '../../src/cli/command/shared-flags.ts'
import { parseDuration, parseTime } from '../../src/cli/command/times.ts'
import { Declined, UsageError } from '../../src/cli/command/usage-error.ts'
import { commands } from '../../src/cli/commands/all.ts'
import { busErrorCodes, DatabaseError } from '../../src/index.ts'

const now = Date.UTC(2026, 10, 29, 3, 12)

test.each([
  ['90s', 90],
  ['15m', 900],
  ['2h', 7200],
  ['7d', 604_800],
  ['1h30m', 5400],
  ['500ms', 0.5],
  ['2', undefined],
  ['h', undefined],
  ['2 h', undefined],
  ['-2h', undefined],
  ['', undefined],
])('%s is a duration of %s seconds', (text, seconds) => {
  expect(parseDuration(text)).toBe(seconds)
})

test.each([
  ['now', '2026-11-29T03:12:00.000Z'],
  ['2h', '2026-11-29T01:12:00.000Z'],
  ['2026-11-01', '2026-11-01T00:00:00.000Z'],
  ['2026-11-01T03:12', '2026-11-01T03:12:00.000Z'],
  ['2026-11-01 03:12:44.5', '2026-11-01T03:12:44.500Z'],
  ['2026-11-01T03:12:44Z', '2026-11-01T03:12:44.000Z'],
  ['2026-11-01T03:12+0100', '2026-11-01T02:12:00.000Z'],
  ['2026-02-30', undefined],
  ['2026-11-01T25:00', undefined],
  ['tomorrow', undefined],
])('%s is the time %s', (text, time) => {
  expect(parseTime(text, now)?.toISOString()).toBe(time)
})

describe('a question', () => {
  const asks = { isYes: false, confirmed: undefined, ask: undefined }
  const answering = (text: string | undefined) => ({ ...asks, ask: async () => text })

  test('of y/N is answered by y, by yes, and by --yes', async () => {
    for (const parts of [answering('y'), answering(' YES '), { ...asks, isYes: true }])
      expect(await confirm({ what: 'Redrive 3 events' }, parts)).toBeUndefined()
  })

  test.each(['', 'n', 'yess', undefined])('of y/N is declined by %j', async (answer) => {
    await expect(confirm({ what: 'Redrive 3 events' }, answering(answer))).rejects.toThrow(Declined)
  })

  test('of a name is answered by that name alone, typed or in --confirm, and never by --yes', async () => {
    const question = { what: 'Remove ledger', name: 'ledger' }
    expect(await confirm(question, answering('ledger'))).toBeUndefined()
    expect(await confirm(question, { ...asks, confirmed: 'ledger' })).toBeUndefined()
    await expect(confirm(question, answering('y'))).rejects.toThrow(Declined)
    await expect(confirm(question, { ...asks, isYes: true })).rejects.toThrow(/use --confirm ledger/)
    await expect(confirm(question, { ...asks, confirmed: 'mail' })).rejects.toThrow(
      'Expected --confirm ledger, got mail. Nothing was changed',
    )
  })

  test('that nobody can answer fails with what would', async () => {
    const failed: unknown = await confirm({ what: 'Redrive 3 events' }, asks).catch((error: unknown) => error)
    expect(failed).toBeInstanceOf(UsageError)
    expect(String(failed)).toContain('use --yes')
  })
})

test('the actor is the flag, else BOSSBUS_BY, else the user', () => {
  expect(actorOf('ada', { BOSSBUS_BY: 'ci' })).toBe('ada')
  expect(actorOf(undefined, { BOSSBUS_BY: 'ci' })).toBe('ci')
  expect(actorOf(undefined, {})).not.toBe('')
})

test('a command is found behind global flags, and the longest name counts', () => {
  expect(
    findCommand(['--json', '--timeout', '3s', 'events', 'find', '--limit', '3'], commands),
  ).toMatchObject({
    entry: { name: 'events find' },
    rest: ['--json', '--timeout', '3s', '--limit', '3'],
  })
  expect(findCommand(['events'], commands)).toMatchObject({ entry: undefined, name: ['events'] })
})

test('every command has a name of its own, and can be loaded', async () => {
  expect(new Set(commands.map(({ name }) => name)).size).toBe(commands.length)
  for (const { name, summary, load } of commands) {
    const { examples, run } = await load()
    expect(run).toBeTypeOf('function')
    expect(summary).not.toMatch(/\.$/)
    expect(examples.length, `examples of ${name}`).toBeGreaterThan(0)
    for (const [line] of examples) expect(line.startsWith(name)).toBe(true)
  }
})

test('no command has a flag of its own where there is one for all, or for all changes or lists', async () => {
  const shared = { ...pageFlags, ...changeFlags, ...confirmFlag }
  for (const { name, load } of commands) {
    const { flags } = await load()
    for (const [flag, { hint }] of Object.entries(flags)) {
      expect({ name, flag, isGlobal: Object.hasOwn(globalFlags, flag) }).toEqual({
        name,
        flag,
        isGlobal: false,
      })
      const same = Object.entries(shared).find(([each]) => each === flag)?.[1]
      expect({ name, flag, hint }).toEqual({ name, flag, hint: same === undefined ? hint : same.hint })
    }
  }
})

test('every command that changes something has --dry-run, and says by whom and why', async () => {
  const reads = /(?:list|show|groups)$/
  const changing = commands.filter(
    ({ name, group }) =>
      name === 'events publish' ||
      (['Repair', 'Subscriptions', 'Keep and erase'].includes(group) && !reads.test(name)),
  )
  expect(changing.length).toBeGreaterThan(15)
  for (const { name, load } of changing) {
    const { flags } = await load()
    // What it does was decided, and recorded, with the erasure.
    const wanted = name === 'archive rewrite' ? ['dry-run'] : Object.keys(changeFlags)
    expect({ name, flags: Object.keys(flags) }).toEqual({
      name,
      flags: expect.arrayContaining(wanted) as string[],
    })
  }
})

test('a command that asks a person does not end because the answer takes longer than --timeout', async () => {
  const asking: string[] = []
  for (const { name, load } of commands) {
    const { run, isLong } = await load()
    if (!/\bconfirm\b/.test(String(run))) continue
    asking.push(name)
    expect({ name, isLong }).toEqual({ name, isLong: true })
  }
  expect(asking).toEqual(expect.arrayContaining(['erase', 'keys release', 'operations cancel', 'init']))
})

test('the command of the next page keeps the others, quotes for a shell, and hides a password', () => {
  expect(
    nextPageCommand(
      [
        'events',
        'find',
        '--type',
        "it's a.*",
        '--after',
        'x',
        '--database',
        'postgres://a:b@h/d',
        '--after=y',
      ],
      'z',
    ),
  ).toBe(`bossbus events find --type 'it'\\''s a.*' --database 'postgres://a:***@h/d' --after z`)
  const next = (...args: readonly string[]): string => nextPageCommand(['audit', ...args], '-z')
  expect(next('--database=postgres://a:b@c@h/d')).toBe(
    `bossbus audit '--database=postgres://a:***@h/d' --after=-z`,
  )
  expect(next('--database', 'postgres://h/d?user=a&password=b&x=y')).toBe(
    `bossbus audit --database 'postgres://h/d?user=a&password=***&x=y' --after=-z`,
  )
  // Behind -- everything is a word.
  expect(next('--limit', '3', '--', '--after', 'x')).toBe('bossbus audit --limit 3 --after=-z -- --after x')
  expect(hasPassword('postgres://h/d?password=b')).toBe(true)
  expect(hasPassword('postgres://a:b@h/d')).toBe(true)
  expect(hasPassword('postgres://a@h:5432/d')).toBe(false)
})

test.each([
  ...["it's", '$(date)`date`', 'two words', '', '*', String.raw`a\b`, 'é 😀', '!x', '-x', '--tenant'],
  ...['a\nb\t', '\u001b[31m7', '\u202e\u200b', "it's\u0007", '--\u2028'],
])('a command that is copied into a shell says what was meant: %j', (text) => {
  const line = commandLine('keys', 'list', ['--tenant', text], ['--key', text])
  expect(line).not.toMatch(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u)
  const { stdout } = spawnSync('bash', ['-c', String.raw`printf '%s\0' ${line}`], { encoding: 'utf8' })
  const [name, ...words] = stdout.split('\0').slice(0, -1)
  expect(name).toBe('bossbus')
  const known = { tenant: stringFlag('<id>', 'a tenant'), key: stringFlag('<key>', 'a key') }
  const parsed = parseFlags(words, known)
  expect(parsed.words).toEqual(['keys', 'list'])
  expect(parsed.given).toEqual(
    new Map([
      ['tenant', [text]],
      ['key', [text]],
    ]),
  )
})

test('what mends an error is told by the code of the server first, and every code of the table exists', () => {
  const error = (sqlState: string) => new DatabaseError('BUS_DATABASE_UNAVAILABLE', 'refused', { sqlState })
  expect(describeError(error('28P01')).mend).toMatch(/password/)
  expect(describeError(error('ECONNREFUSED')).mend).toMatch(/server runs/)
  expect(describeError(error('08006')).mend).toMatch(/DATABASE_URL/)
  expect(describeError(new DatabaseError('BUS_SCHEMA_MISSING', 'missing')).mend).toBe('Run: bossbus migrate')
  expect(describeError(new TypeError('x')).mend).toMatch(/BOSSBUS_DEBUG=1/)
  expect(busErrorCodes).toContain('BUS_DATABASE_UNSUPPORTED')
  expect(describeError(new DatabaseError('BUS_DATABASE_UNSUPPORTED', 'old')).mend).toMatch(
    /Update the server/,
  )
})

test('the last argument may take all words that follow, or none', () => {
  const known = { name: required('a name'), id: several('ids') }
  expect(usageOf({ ...known, more: optional('more') })).toBe(' <name> [id...] [more]')
  expect(readArguments('x', known, ['a', 'b', 'c'])).toEqual({ name: 'a', id: ['b', 'c'] })
  expect(() => readArguments('x', known, ['a', 'b', '', 'c'])).toThrow(/Expected <id> .* got nothing/)
  expect(() => readArguments('x', { name: optional('a name') }, [''])).toThrow(
    /Expected <name> .* got nothing/,
  )
  expect(readArguments('x', known, ['a'])).toEqual({ name: 'a', id: [] })
  expect(() => readArguments('x', { name: required('a name') }, ['a', 'b'])).toThrow(/one too many/)
})

test('a time ahead is one of ISO 8601, or in so long', () => {
  const read = (text: string): string | undefined =>
    timeAhead('until when', 30 * 86_400)
      .read([text], 'until', now)
      ?.toISOString()
  expect(read('2h')).toBe('2026-11-29T05:12:00.000Z')
  expect(read('2026-12-01')).toBe('2026-12-01T00:00:00.000Z')
  expect(() => read('soon')).toThrow(/--until to be a time like/)
  for (const text of ['2026-11-28', 'now', '90d'])
    expect(() => read(text)).toThrow(/--until to be a time like 2h .*: ahead, within 30 d, got/)
})

test('a duration that a timer waits for is bounded, because a longer one would be over at once', () => {
  const read = (text: string): number =>
    durationSeconds('how long', { min: 0.1, max: 86_400, default: 2 }).read([text], 'interval', now)
  expect(read('100ms')).toBe(0.1)
  expect(read('1d')).toBe(86_400)
  for (const text of ['0s', '99ms', '25h', '30d'])
    expect(() => read(text)).toThrow(/--interval to be a duration .*, from 100 ms to 1 d, got/)
  expect(parseTime('999999999w', now)).toBeUndefined()
  expect(() => timeAhead('until when', 30 * 86_400).read(['999999999w'], 'until', now)).toThrow(
    /--until to be a time like/,
  )
})
