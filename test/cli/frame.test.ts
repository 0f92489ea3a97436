import { describe, expect, test } from 'vitest'
import { optional, readArguments, required, several, usageOf } from '../../src/cli/command/arguments.ts'
import { actorOf } from '../../src/cli/command/actor.ts'
import { confirm } from '../../src/cli/command/confirm.ts'
import { describeError } from '../../src/cli/command/describe-error.ts'
import { findCommand } from '../../src/cli/command/find-command.ts'
import { timeAhead } from '../../src/cli/command/flags.ts'
import { globalFlags } from '../../src/cli/command/global-flags.ts'
import { hasPassword, nextPageCommand } from '../../src/cli/command/next-page.ts'
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
  expect(hasPassword('postgres://a:b@h/d')).toBe(true)
  expect(hasPassword('postgres://a@h:5432/d')).toBe(false)
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
  expect(readArguments('x', known, ['a', 'b', '', 'c'])).toEqual({ name: 'a', id: ['b', 'c'] })
  expect(readArguments('x', known, ['a'])).toEqual({ name: 'a', id: [] })
  expect(() => readArguments('x', { name: required('a name') }, ['a', 'b'])).toThrow(/one too many/)
})

test('a time ahead is one of ISO 8601, or in so long', () => {
  const read = (text: string): string | undefined =>
    timeAhead('until when').read([text], 'until', now)?.toISOString()
  expect(read('2h')).toBe('2026-11-29T05:12:00.000Z')
  expect(read('2026-12-01')).toBe('2026-12-01T00:00:00.000Z')
  expect(() => read('soon')).toThrow(/--until to be a time like/)
})
