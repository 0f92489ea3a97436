import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { commands } from '../../src/cli/commands/all.ts'
import { runCliProcess } from '../support/cli-process.ts'
import { createFolder, runCli } from '../support/cli.ts'
import { createTestDatabase } from '../support/database.ts'
import {
  addPoison,
  createOperatorFolder,
  hostile,
  jsonLines,
  operate,
  poisonId,
  type Operated,
} from '../support/operated.ts'
import { startOwnServer } from '../support/own-server.ts'
import { shareTemplate } from '../support/shared-template.ts'

const nowhere = '019a2279-8604-70ad-bda8-b7b51b3cd606'

/** A call of a command, and its exit codes with a database that is busy and with an empty one. */
type Call = readonly [args: readonly string[], onBusy: 0 | 1 | 2, onEmpty: 0 | 1 | 2]

/** Those that change nothing. */
const readingCalls = ({ paid, blocked }: Operated): readonly Call[] => [
  [['dead-letters', 'list'], 0, 0],
  [['dead-letters', 'groups'], 0, 0],
  [['dead-letters', 'show', paid[0] ?? ''], 0, 1],
  [['dead-letters', 'show', blocked, 'accounts'], 0, 2],
  [['dead-letters', 'redrive', '--all', '--dry-run'], 0, 0],
  [['dead-letters', 'redrive', paid[0] ?? '', '--dry-run'], 0, 1],
  [['dead-letters', 'discard', '--all', '--dry-run', '--reason', 'a test'], 0, 0],
  [['quarantine', 'list'], 0, 0],
  [['quarantine', 'show', poisonId], 0, 1],
  [['quarantine', 'retry', '--all', '--dry-run'], 0, 0],
  [['quarantine', 'retry', poisonId, '--dry-run'], 0, 1],
  [['quarantine', 'discard', poisonId, '--dry-run', '--reason', 'a test'], 0, 1],
  [['replay', '--subscription', 'mail', '--all', '--dry-run'], 0, 2],
  [['keys', 'list'], 0, 0],
  [['keys', 'release', 'accounts', '--tenant', hostile, '--key', hostile, '--dry-run'], 0, 2],
  [['operations', 'list'], 0, 0],
  [['operations', 'show', nowhere], 2, 2],
  [['subscriptions', 'list'], 0, 0],
  [['subscriptions', 'show', 'ledger'], 0, 2],
  [['subscriptions', 'pause', 'ledger', '--dry-run'], 0, 2],
  [['subscriptions', 'resume', 'search', '--dry-run'], 0, 2],
  [['subscriptions', 'rename', 'ledger', 'books', '--dry-run'], 0, 2],
  [['subscriptions', 'remove', 'search', '--dry-run'], 0, 2],
  [['subscriptions', 'set', 'ledger', '--concurrency', '2', '--until', '2h', '--dry-run'], 0, 2],
  [['erase', 'nordwind', 'payments/42', '--dry-run'], 0, 0],
  [['archive', 'list'], 0, 0],
  [['archive', 'rewrite', '--dry-run'], 0, 0],
  [['audit'], 0, 0],
  [['catalog', 'diff'], 0, 0],
  [['migrate', '--dry-run'], 0, 0],
]

/** Those that would change something, with their questions answered. */
const changingCalls = ({ paid }: Operated): readonly (readonly string[])[] => [
  ['dead-letters', 'redrive', paid[0] ?? '', '--yes'],
  ['dead-letters', 'discard', paid[0] ?? '', '--reason', 'a test', '--confirm', 'ledger'],
  ['quarantine', 'retry', poisonId, '--yes'],
  ['quarantine', 'discard', poisonId, '--reason', 'a test', '--yes'],
  ['replay', '--subscription', 'mail', '--all', '--yes'],
  ['keys', 'release', 'accounts', '--tenant', hostile, '--key', hostile, '--yes'],
  ['subscriptions', 'pause', 'ledger'],
  ['subscriptions', 'resume', 'search'],
  ['subscriptions', 'rename', 'ledger', 'books'],
  ['subscriptions', 'remove', 'search', '--confirm', 'search'],
  ['subscriptions', 'set', 'ledger', '--concurrency', '2', '--until', '2h'],
  ['erase', 'nordwind', 'payments/42', '--confirm', 'payments/42'],
  ['prune', '--yes'],
]

const createOperated = shareTemplate(operate)

const none: Operated = { paid: [nowhere], blocked: nowhere }

test('status says that a key waits for a person, and what waits behind it, also where nothing failed lately', async () => {
  const {
    database: { url, rows },
  } = await createOperated()
  await rows(`update bus.failing set failed_at = now() - interval '20 minutes'`)
  const folder = await createOperatorFolder()
  const run = async (...args: string[]): Promise<string> =>
    (await runCli(folder, args, { DATABASE_URL: url })).out
  const status = await run('status')
  expect(status).toMatch(
    /^warning {2}keys-blocked {2}1 key waits for a person .* 1 event waits behind it: `accounts`$/m,
  )
  expect(status).toContain('bossbus keys list accounts')
  // Behind keys one, and one dead letter.
  expect(status).toMatch(/^accounts\tunserved\t0\t0\t0\t0\t1\t1\t0\tpayment-service$/m)
  const [json] = jsonLines({ out: await run('status', '--json') })
  expect(json?.['findings']).toContainEqual(
    expect.objectContaining({
      code: 'keys-blocked',
      commands: [expect.stringContaining('keys list accounts')],
    }),
  )
})

describe('every command of operators', () => {
  test('is in these tables, or in a test of its own', () => {
    const called = [...readingCalls(none).map(([args]) => args), ...changingCalls(none)].map((args) =>
      args.join(' '),
    )
    const elsewhere = ['archive restore', 'operations hold', 'operations resume', 'operations cancel']
    const missing = commands
      .filter(({ group }) => ['Repair', 'Subscriptions', 'Keep and erase'].includes(group))
      .map(({ name }) => name)
      .filter((name) => !called.some((line) => line.startsWith(name)))
    expect(missing.toSorted()).toEqual(elsewhere.toSorted())
  })

  test('shows a busy database piped, as JSON and on a terminal, and no text of an event commands it', async () => {
    const {
      database: { url, rows },
      content: busy,
    } = await createOperated()
    await rows(...addPoison)
    const folder = await createOperatorFolder()
    const audited = await rows('select count(*)::int as n from bus.audit')
    for (const [args, code] of readingCalls(busy)) {
      const env = { DATABASE_URL: url }
      const piped = await runCli(folder, args, env)
      expect({ args, code: piped.code, err: piped.err }).toEqual({ args, code, err: piped.err })
      const shown = await runCli(folder, args, { ...env, NO_COLOR: '1' }, { columns: 120 })
      expect({ args, code: shown.code }).toEqual({ args, code })
      for (const text of [piped.out, piped.err, shown.out, shown.err])
        expect(text.replaceAll(/[\t\n]/g, '')).not.toMatch(/[\p{Cc}\p{Cf}]/u)
      const json = await runCli(folder, [...args, '--json'], env)
      expect({ args, code: json.code }).toEqual({ args, code })
      const empty = ['operations list', 'archive list', 'archive rewrite --dry-run', 'catalog diff']
      expect({ args, isSomething: jsonLines(json).length > 0 }).toEqual({
        args,
        isSomething: !empty.includes(args.join(' ')),
      })
    }
    expect(await rows('select count(*)::int as n from bus.audit')).toEqual(audited)
  })

  test('runs as a process, and says on standard error how to go on', async () => {
    const { url } = (await createOperated()).database
    const ended = await runCliProcess(await createFolder(), ['dead-letters', 'list', '--limit', '1'], {
      DATABASE_URL: url,
    })
    expect(ended.code).toBe(0)
    expect(ended.out.split('\n')).toHaveLength(2)
    expect(ended.err).toMatch(/^Next: bossbus dead-letters list --limit 1 --after \S+\n$/)
  })

  test('says of an empty database that there is nothing, and changes nothing', async () => {
    const { url, count } = await createTestDatabase()
    const folder = await createOperatorFolder()
    for (const [args, _, code] of readingCalls(none)) {
      const shown = await runCli(folder, args, { DATABASE_URL: url }, { columns: 100 })
      expect({ args, code: shown.code, err: shown.err }).toEqual({ args, code, err: shown.err })
      expect(`${shown.out}${shown.err}`).not.toBe('')
    }
    for (const args of changingCalls(none)) {
      const { code, out, err } = await runCli(folder, args, { DATABASE_URL: url })
      // Nothing to erase and nothing to prune is no failure.
      const expected =
        args[0] === 'erase' || args[0] === 'prune'
          ? 0
          : ['redrive', 'retry', 'discard'].includes(args[1] ?? '')
            ? 1
            : 2
      expect({ args, code, err }).toEqual({ args, code: expected, err })
      expect(`${out}${err}`).not.toBe('')
    }
    expect(await count(`select count(*) from bus.audit where action not in ('erase', 'prune')`)).toBe(0)
  })

  test('reads a standby, and changes it nowhere', async () => {
    const server = await startOwnServer()
    const busy = await operate(server.url)
    await server.rows(...addPoison)
    const [row] = await server.rows('show data_directory')
    await server.rows('checkpoint')
    await server.kill()
    await writeFile(join(String(row?.['data_directory']), 'standby.signal'), '')
    await server.restart()
    const folder = await createOperatorFolder()
    for (const [args, code] of readingCalls(busy)) {
      const shown = await runCli(folder, args, { DATABASE_URL: server.url })
      expect({ args, code: shown.code, err: shown.err }).toEqual({ args, code, err: shown.err })
    }
    for (const args of [...changingCalls(busy), ['migrate']]) {
      const { code, out, err } = await runCli(folder, args, { DATABASE_URL: server.url })
      expect({ args, code, out, err }).toEqual({
        ...{ args, code: 2, out: '' },
        err: expect.stringMatching(/Give the URL of the primary/) as string,
      })
    }
  })
})
