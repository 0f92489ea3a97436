import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { inFlags } from '../../src/cli/command/flag-names.ts'
import { json, text } from '../../src/cli/command/flags.ts'
import { parentGone } from '../../src/cli/dev/parent.ts'
import { readTools } from '../../src/cli/mcp/read-tools.ts'
import { findingAsCalled } from '../../src/cli/views/finding-commands.ts'
import { createFinding, findingCodes } from '../../src/health/finding.ts'
import { counted } from '../../src/cli/output/cells.ts'
import { tableLines } from '../../src/cli/output/table.ts'
import { ConfigurationError } from '../../src/index.ts'
import { testBus } from '../support/bus.ts'
import { createFolder, runCli, type CliResult } from '../support/cli.ts'
import { runCliProcess } from '../support/cli-process.ts'
import { createOperatorFolder, jsonLines, operate } from '../support/operated.ts'
import { shareTemplate } from '../support/shared-template.ts'

const createOperated = shareTemplate(operate)

/** A busy database, a command line for it, and its first group of errors. */
async function createStage() {
  const { database } = await createOperated()
  const folder = await createOperatorFolder()
  const run = async (args: readonly string[], columns?: number): Promise<CliResult> =>
    runCli(folder, args, { DATABASE_URL: database.url }, columns === undefined ? {} : { columns })
  const [group] = jsonLines(await run(['dead-letters', 'groups', '--json']))
  return { database, folder, run, group: String(group?.['fingerprint']) }
}

describe('a busy database', () => {
  test('names a group of dead letters by its beginning, and refuses one that is not there', async () => {
    const { run, group } = await createStage()
    const redrive = async (given: string): Promise<CliResult> =>
      run(['dead-letters', 'redrive', '--group', given, '--dry-run'])
    const whole = await redrive(group)
    expect(whole).toMatchObject({ code: 0, out: expect.stringMatching(/^4 dead letters would be/) as string })
    for (const length of [6, 8, 15]) expect(await redrive(group.slice(0, length))).toEqual(whole)
    expect((await redrive(group.slice(0, 5))).err).toMatch(/^Expected at least the first 6 characters/)
    const other = group.startsWith('0') ? '1' : '0'
    for (const unknown of ['zzz', other.repeat(8), other.repeat(16), `${group}0`]) {
      const refused = await redrive(unknown)
      expect(refused).toMatchObject({ code: 2, out: '' })
      expect(refused.err).toBe(
        `There is no group ${unknown} of dead letters. See: bossbus dead-letters groups`,
      )
      const list = await run(['dead-letters', 'list', '--group', unknown])
      expect(list).toEqual(refused)
    }
    expect(
      jsonLines(await run(['dead-letters', 'list', '--group', group.slice(0, 6), '--json'])),
    ).toHaveLength(4)
    // Those of a replay are in no group that is listed.
    const replay = ['--replay', '01932f2c-5b4e-7cc0-8a2d-3f1e5d7c9b10']
    expect(await run(['dead-letters', 'list', ...replay, '--group', other.repeat(16)])).toEqual(
      await run(['dead-letters', 'list', ...replay]),
    )
    expect(await run(['dead-letters', 'list', ...replay, '--group', group.slice(0, 8)])).toMatchObject({
      code: 2,
      err: 'Expected all 16 characters of a group together with --replay',
    })
    const none = await run(['dead-letters', 'redrive', '--subscription', 'mail'])
    expect(none).toMatchObject({ code: 0, out: 'There are no such dead letters: nothing was redriven.' })
  })

  test('refuses a span that has no length, and types and names that nothing has', async () => {
    const { run, database } = await createStage()
    const span = ['--from', '2h', '--to', '3h']
    for (const args of [
      ['events', 'find', ...span],
      ['dead-letters', 'list', ...span],
      ['dead-letters', 'groups', ...span],
      ['dead-letters', 'redrive', ...span],
      ['replay', '--subscription', 'mail', ...span],
    ])
      expect(await run(args)).toMatchObject({
        code: 2,
        out: '',
        err: expect.stringMatching(/^BUS_INVALID_OPTION: Expected --from to be before --to, got /) as string,
      })
    const bus = testBus(database.url)
    const [from, to] = [new Date(2000), new Date(1000)]
    for (const call of [
      bus.events.find({ from, to }),
      bus.tenant('nordwind').events.find({ from, to }),
      bus.queries.throughput({ from, to }),
    ])
      await expect(call).rejects.toThrow('Expected `from` to be before `to`')
    expect(await bus.events.find({ from: to, to: from })).toEqual([])
    await bus.stop()

    const near = await run(['events', 'find', '--type', 'payment.payed'])
    expect(near).toMatchObject({ code: 0, out: '' })
    expect(near.err).toMatch(/^No event is like that\.\n.*Did you mean payment\.paid\?$/)
    const replayed = await run(['replay', '--subscription', 'mail', '--type', 'payment.payed', '--dry-run'])
    expect(replayed.err).toMatch(/Did you mean payment\.paid\?/)
    expect(
      (await run(['events', 'find', '--type', 'payment.paid', '--from', '2020-01-01', '--to', '2020-01-02']))
        .err,
    ).not.toMatch(/Did you mean/)
    for (const type of ['payment..paid', ' payment.paid', 'payment\u0007paid'])
      expect((await run(['events', 'find', '--type', type])).err).toMatch(
        /^Expected --type to be a type like/,
      )
    for (const args of [
      ['events', 'show', ''],
      ['events', 'find', '--correlation', ''],
      ['keys', 'list', ''],
      ['explain', 'paid-1', ''],
      ['dead-letters', 'redrive', ''],
    ])
      expect(await run(args)).toMatchObject({
        ...{ code: 2, out: '' },
        err: expect.stringMatching(/^Expected .* got nothing/) as string,
      })
  })

  test('says how payloads are searched where nothing has a name', async () => {
    const { run, database } = await createStage()
    const { code, err } = await run(['events', 'show', 'bad2'])
    expect(code).toBe(1)
    expect(err).toMatch(/bad2\. .*: bossbus events find --payload '\{"paymentId":"bad2"\}'$/)
    const bus = testBus(database.url)
    const tool = readTools.find(({ name }) => name === 'show_event')
    expect(await tool?.run({ bus: bus as never, by: 'a test' }, { id: 'bad2' })).toEqual({
      problem: expect.stringMatching(/: find_events with \{"payload":\{"paymentId":"bad2"\}\}$/) as string,
    })
    const letters = readTools.find(({ name }) => name === 'dead_letters')
    await expect(letters?.run({ bus: bus as never, by: 'a test' }, { fingerprint: 'zzz' })).rejects.toThrow(
      'There is no group zzz of dead letters. See: dead_letter_groups',
    )
    await bus.stop()
  })

  test('speaks of flags, with what is allowed and an example', async () => {
    const { run } = await createStage()
    const errorOf = async (...args: string[]): Promise<string> => {
      const { code, err } = await run(args)
      expect(code).toBe(2)
      return err
    }
    const set = ['subscriptions', 'set', 'ledger']
    for (const until of ['90d', '2020-01-01'])
      expect(await errorOf(...set, '--paused', '--until', until)).toMatch(
        /^Expected --until to be a time like 2h .*: ahead, within 30 d, got/,
      )
    expect(await errorOf(...set, '--until', '2h', '--retry', '5')).toMatch(
      /^Expected --retry to be a JSON object like '\{"maxAttempts":3\}', got 5$/,
    )
    expect(await errorOf(...set, '--until', '2h', '--retry', '{"maxAttempts":0}')).toMatch(
      /Expected `maxAttempts` of --retry to be .*\. For example: --retry '\{"maxAttempts":3\}'$/,
    )
    expect(await errorOf('subscriptions', 'remove', 'ledger', '--confirm', 'ledger')).toMatch(
      /^BUS_SUBSCRIPTION_NOT_EMPTY: ledger has 0 waiting events and 3 dead letters\. Say .*--discard .*--move-to accounts$/,
    )
    expect(await errorOf('subscriptions', 'rename', 'ledger', 'mail')).toMatch(
      /^BUS_SUBSCRIPTION_TAKEN: There is a subscription mail already: .* See: bossbus subscriptions list$/,
    )
  })

  test('cuts sentences on a narrow terminal, and nothing that people copy', async () => {
    const { run, group } = await createStage()
    const [record] = jsonLines(await run(['audit', '--json']))
    for (const columns of [80, 120]) {
      expect((await run(['dead-letters', 'groups'], columns)).out).toContain(group)
      expect((await run(['audit'], columns)).out).toContain(String(record?.['action']))
      const { out } = await run(['status'], columns)
      for (const name of ['accounts', 'ledger', 'search']) expect(out).toMatch(new RegExp(`^${name} `, 'm'))
    }
    const { out } = await run(['explain', 'paid-1'], 80)
    const [explanation] = jsonLines(await run(['explain', 'paid-1', '--json']))
    for (const { sentence } of (explanation?.['subscriptions'] ?? []) as { readonly sentence: string }[])
      expect(out.split('\n').map((line) => line.trim())).toContainEqual(
        expect.stringContaining(sentence.slice(0, 40)) as string,
      )
    expect(out).not.toContain('…')
  })

  test('says of options what was set before and by whom, with their units, and of an erased event when', async () => {
    const { run } = await createStage()
    const set = ['subscriptions', 'set', 'ledger', '--until', '2h']
    const first = await run([...set, '--concurrency', '2', '--by', 'ada', '--reason', 'it is slow'])
    expect(first).toMatchObject({ code: 0 })
    expect(first.out).not.toContain('before')
    const again = await run([...set, '--paused', '--by', 'ben'])
    expect(again.out).toMatch(
      /^Replaced what was set before: concurrency 2 until \S+, by ada at \S+ \(it is slow\)\.$/m,
    )
    expect((await run([...set, '--paused', '--dry-run'])).out).toMatch(/^It would replace .* by ben/m)
    const { out } = await run(['subscriptions', 'show', 'ledger'])
    expect(out).toMatch(/^heartbeatSeconds {2,}\d/m)
    expect(out).toMatch(/^retry {2,}.*\bmaxAttempts 16, delaySeconds \d/m)
    expect(out).not.toMatch(/\{"/)

    expect((await run(['erase', 'nordwind', 'payments/42', '--confirm', 'payments/42'])).code).toBe(0)
    const shown = await run(['events', 'show', 'paid-1'])
    expect(shown.out).toMatch(/\nPayload\nIt was erased at \d{4}-\S+Z \(.*\)\.$/)
  })
})

test('an option of the configuration that is spelled wrong is refused, with the one that was meant', async () => {
  const folder = await createFolder()
  await writeFile(join(folder, 'bossbus.config.mjs'), `export default { sorce: 'shop', events: {} }`)
  const { code, err } = await runCli(folder, ['catalog', 'export'])
  expect(code).toBe(2)
  expect(err).toBe('BUS_INVALID_OPTION: Unknown option `sorce` in bossbus.config.mjs. Did you mean `source`?')
})

test('an error of the configuration names no flag, also where the command has one of that name', async () => {
  const folder = await createFolder({ 'bossbus.config.mjs': 'export default { tenant: 1 }' })
  const { err } = await runCli(folder, ['events', 'find', '--tenant', 'acme'])
  expect(err).toMatch(/^BUS_INVALID_OPTION: Unknown option `tenant` in bossbus\.config\.mjs\./)
  expect(err).not.toContain('--tenant')
})

test('what a finding says to do names commands, and no call of the API', () => {
  for (const code of findingCodes) {
    const { remedy } = findingAsCalled(createFinding(code, ''))
    expect({ code, call: /\bbus\.\w+\.\w+\(/.exec(remedy)?.[0] }).toEqual({ code, call: undefined })
  }
  expect(findingAsCalled(createFinding('keys-blocked', '')).remedy.match(/keys list/g)).toHaveLength(1)
})

test('an error about an option that the command has no flag for stays as it is', () => {
  const flags = { source: text('<name>', ''), tenant: text('<id>', ''), retry: json('', '{}') }
  const error = new ConfigurationError('BUS_INVALID_OPTION', 'Expected `source` or `database`')
  expect(inFlags(error, flags)).toBe(error)
  const other = new Error('Expected `tenantId`')
  expect(inFlags(other, flags)).toBe(other)
  expect(inFlags(new ConfigurationError('BUS_INVALID_OPTION', 'Expected `tenantId`'), flags)).toMatchObject({
    message: 'Expected --tenant',
  })
})

test.each([
  [1, 'event', '1 event'],
  [0, 'event', '0 events'],
  [2, 'delivery', '2 deliveries'],
  [2, 'key', '2 keys'],
  [2000, 'process', '2,000 processes'],
])('%i of %s is %s', (value, noun, expected) => {
  expect(counted(value, noun)).toBe(expected)
})

test('a table takes room from sentences before it takes any from other columns', () => {
  const row = { id: 'i'.repeat(20), name: 'n'.repeat(20), why: 'w'.repeat(60) }
  const lines = (width: number): string =>
    tableLines(
      [row],
      [
        { title: 'ID', value: ({ id }) => id, isWhole: true },
        { title: 'NAME', value: ({ name }) => name },
        { title: 'WHY', value: ({ why }) => why, isProse: true },
      ],
      { width, hasColour: false, now: 0 },
    ).join('\n')
  expect(lines(80)).toContain(`${row.id}  ${row.name}  ${'w'.repeat(35)}…`)
  expect(lines(50)).toMatch(new RegExp(`${row.id}  n{9}…  `))
  expect(lines(10)).toContain(row.id)
})

test('dev hears of the end of what has started it', async () => {
  let ancestors = [10, 1]
  const ended = new AbortController()
  const gone = parentGone(ended.signal, () => ancestors, 5)
  const kept = parentGone(ended.signal, () => [10, 1], 5)
  const aborted = new Promise<void>((resolve) => {
    gone.addEventListener('abort', () => resolve())
  })
  ancestors = [1]
  // Its timers keep no process alive.
  const alive = setInterval(() => {}, 1000)
  await aborted
  clearInterval(alive)
  expect(kept.aborted).toBe(false)
  ended.abort()
})

test('a syntax error in the configuration is told with its file and line', async () => {
  const folder = await createFolder({
    'bossbus.config.mjs': 'export default {\n  source: "shop",\n  events: {,\n}\n',
  })
  // Node's own message, and not that of the tests.
  const { code, err } = await runCliProcess(folder, ['catalog', 'export'])
  expect(code).toBe(2)
  expect(err).toMatch(/bossbus\.config\.mjs could not be loaded: .* \(\/.*\/bossbus\.config\.mjs:3\)\n$/)
})

test('init says what it would do, and refuses what would be wrong afterwards', async () => {
  const folder = await createFolder({
    'package.json': '{"type":"commonjs","dependencies":{"fastify":"^4.28.0"}}',
  })
  const dry = await runCli(folder, ['init', '--dry-run'])
  expect(dry.out).toMatch(/^would be created {2}bossbus\.config\.mjs$/m)
  expect(dry.out).toMatch(/^would be changed {2}package\.json/m)
  expect(dry.err).toMatch(/--language typescript/)
  expect(dry.err).toMatch(/fastify \^4\.28\.0: .* needs Fastify 5/)
  expect((await runCli(folder, ['init', '--dry-run', '--language', 'javascript'])).err).not.toMatch(
    /--language/,
  )
  await writeFile(join(folder, 'bossbus.config.mjs'), '// mine')
  const asked = await runCli(folder, ['init'])
  expect(asked).toMatchObject({ code: 2, out: '' })
  expect(asked.err).toMatch(/bossbus\.config\.mjs exists and differs\. Nobody can be asked here, /)
  expect(asked.err).not.toMatch(/--yes/)
  const second = await runCli(folder, ['init', '--language', 'typescript'])
  expect(second).toMatchObject({ code: 2, out: '' })
  expect(second.err).toMatch(/^There is bossbus\.config\.mjs already, and bossbus\.config\.mts beside it/m)
})
