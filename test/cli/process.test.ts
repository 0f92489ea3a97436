import { spawn, spawnSync } from 'node:child_process'
import { describe, expect, test } from 'vitest'
import { createFolder } from '../support/cli.ts'
import { cliMain, runCliProcess } from '../support/cli-process.ts'
import { createTestDatabase } from '../support/database.ts'
import { operate } from '../support/operated.ts'
import { shareTemplate } from '../support/shared-template.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'

const createOperated = shareTemplate(operate)

/** Prints the packages that a process has loaded, at its end. */
const countingPackages = `data:text/javascript,${encodeURIComponent(`
import { registerHooks } from 'node:module'
const seen = new Set()
registerHooks({
  resolve(specifier, context, next) {
    if (!/^(?:[./]|node:|file:|data:)/.test(specifier)) seen.add(specifier)
    return next(specifier, context)
  },
})
process.on('exit', () => process._rawDebug('packages: ' + [...seen].join(' ')))
`)}`

describe('a command that needs no database', () => {
  test.each([
    [['--help'], 0],
    [['--version'], 0],
    [['events', 'find', '--help'], 0],
    [['status', '--limit', '3'], 2],
    [['events', 'fnid'], 2],
    [['catalog', 'check', '--sample', 'all'], 2],
    [['catalog', 'export', '--format', 'yaml'], 2],
    [['dead-letters', 'redrive'], 2],
    [['dead-letters', 'redrive', 'a', '--edit'], 2],
  ])('loads no package: %s', async (args, code) => {
    const ended = await runCliProcess(await createFolder(), args, {}, ['--import', countingPackages])
    expect(ended.code).toBe(code)
    expect(ended.err).toMatch(/packages: $/m)
  })

  test('whereas one that needs one loads the driver', async () => {
    const ended = await runCliProcess(
      await createFolder(),
      ['tenants'],
      { DATABASE_URL: 'postgres://nobody@127.0.0.1:1/none' },
      ['--import', countingPackages],
    )
    expect(ended.err).toMatch(/packages: .*\bpg\b/)
  })

  test("says something at once: within a few times Node's own start, on any machine", async () => {
    const folder = await createFolder()
    const time = async (work: () => unknown): Promise<number> => {
      const beganAt = performance.now()
      await work()
      return performance.now() - beganAt
    }
    const [starts, helps]: [number[], number[]] = [[], []]
    for (let i = 0; i < 5; i += 1) {
      starts.push(await time(() => spawnSync(process.execPath, ['-e', '0'])))
      helps.push(await time(async () => runCliProcess(folder, ['--help'])))
    }
    const [start, help] = [Math.min(...starts), Math.min(...helps)]
    console.log(`bossbus --help: ${Math.round(help)} ms, of which Node's own start ${Math.round(start)} ms`)
    // From the source, whose types Node takes away first: 4 times. From the built code it is 2.5 times.
    expect(help).toBeLessThan(start * 8)
  })
})

/** Runs a command whose reader has gone before it writes anything. */
async function runUnread(
  args: readonly string[],
  url: string,
): Promise<{ readonly code: unknown; readonly err: string }> {
  const child = spawn(process.execPath, [cliMain, ...args], {
    env: { ...process.env, DATABASE_URL: url },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  child.stdout.destroy()
  let err = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => void (err += text))
  const code = await new Promise((resolve) => {
    child.on('close', resolve)
  })
  return { code, err }
}

test('a reader that has enough, as `head`, is no error, and changes neither what is done nor the exit code', async () => {
  const { url, count } = (await createOperated()).database
  expect(await runUnread(['--help'], url)).toEqual({ code: 0, err: '' })
  // It finds that no process serves the subscriptions.
  expect(await runUnread(['status'], url)).toEqual({ code: 1, err: '' })
  expect(await runUnread(['subscriptions', 'pause', 'mail'], url)).toMatchObject({ code: 0 })
  expect(
    await count(`select count(*) from bus.subscriptions where name = 'mail' and paused_at is not null`),
  ).toBe(1)
  // What would go on for ever ends.
  expect(await runUnread(['events', 'tail', '--from', '1h', '--json'], url)).toEqual({ code: 0, err: '' })
})

test('what a configuration prints goes to standard error: standard output is the result', async () => {
  const folder = await createFolder({
    'bossbus.config.mjs': `console.log('loading'); console.info('still'); export default { source: 'shop', events: {} }`,
  })
  const { code, out, err } = await runCliProcess(folder, ['catalog', 'export'])
  expect({ code, err }).toEqual({ code: 0, err: 'loading\nstill\n' })
  expect(() => JSON.parse(out) as unknown).not.toThrow()
})

describe('a database that hangs', () => {
  test('gives an error within --timeout, and the process ends', async () => {
    const { url } = await createTestDatabase()
    const proxy = await startTcpProxy(url)
    proxy.hold('to client')
    const beganAt = performance.now()
    const ended = await runCliProcess(await createFolder(), ['status', '--timeout', '1s'], {
      DATABASE_URL: proxy.url,
    })
    expect(ended).toMatchObject({
      code: 2,
      out: '',
      err: expect.stringMatching(/^The database did not answer within 1\.0 s\nTry again/) as string,
    })
    expect(performance.now() - beganAt).toBeLessThan(10_000)
    const change = ['subscriptions', 'pause', 'mail', '--timeout', '1s']
    const changing = await runCliProcess(await createFolder(), change, { DATABASE_URL: proxy.url })
    expect(changing.err).toMatch(/\nIt may have done it all the same: see bossbus audit\. Try again/)
  })

  test('is left at once with Ctrl-C', async () => {
    const { url } = await createTestDatabase()
    const proxy = await startTcpProxy(url)
    proxy.hold('to client')
    const child = spawn(process.execPath, [cliMain, 'status'], {
      env: { ...process.env, DATABASE_URL: proxy.url },
      stdio: 'ignore',
    })
    while (proxy.connectionCount === 0) await new Promise((resolve) => setTimeout(resolve, 20))
    const beganAt = performance.now()
    child.kill('SIGINT')
    const signal = await new Promise((resolve) => {
      child.on('close', (_code, name) => resolve(name))
    })
    expect(signal).toBe('SIGINT')
    expect(performance.now() - beganAt).toBeLessThan(2000)
  })
})

/** Runs a command in a pseudo-terminal: util-linux has it. */
const pseudoTerminal = 'script'
const hasScript = spawnSync(pseudoTerminal, ['--version']).status === 0

test.skipIf(!hasScript)(
  `a person at a terminal sees tables and colours${hasScript ? '' : ' (SKIPPED: needs script of util-linux)'}`,
  async () => {
    const { url } = await createTestDatabase()
    const inTerminal = (command: string, env: Readonly<Record<string, string>> = {}): string => {
      const { NO_COLOR: _, FORCE_COLOR: __, ...rest } = process.env
      return spawnSync(pseudoTerminal, ['--quiet', '--return', '--command', command, '/dev/null'], {
        env: { ...rest, TERM: 'xterm', DATABASE_URL: url, ...env },
        input: '',
        encoding: 'utf8',
      }).stdout
    }
    const status = inTerminal(`${process.execPath} ${cliMain} status`)
    expect(status).toContain('\u001b[32mAll is well.\u001b[39m')
    expect(status).toContain('\u001b[1mSubscriptions')
    expect(inTerminal(`${process.execPath} ${cliMain} status 2>/dev/null`, { NO_COLOR: '1' })).not.toContain(
      '\u001b[',
    )
    expect(inTerminal(`${process.execPath} ${cliMain} status --no-color 2>/dev/null`)).not.toContain(
      '\u001b[',
    )
    expect(inTerminal(`${process.execPath} ${cliMain} tenants`)).toContain(
      'No tenant has published anything.',
    )
  },
)

test.skipIf(!hasScript)(
  `a person at a terminal is asked before a change${hasScript ? '' : ' (SKIPPED: needs script of util-linux)'}`,
  async () => {
    const { url, count } = (await createOperated()).database
    const answer = (input: string): { readonly status: number | null; readonly stdout: string } =>
      spawnSync(
        pseudoTerminal,
        [
          ...['--quiet', '--return', '--command'],
          ...[`${process.execPath} ${cliMain} dead-letters redrive paid-0 --no-color`, '/dev/null'],
        ],
        { env: { ...process.env, TERM: 'xterm', DATABASE_URL: url }, input, encoding: 'utf8' },
      )
    const declined = answer('n\n')
    expect(declined.stdout).toContain('Redrive 1 dead letter of ledger? [y/N]')
    expect(declined.stdout).toContain('Nothing was changed.')
    expect(declined.status).toBe(1)
    expect(await count('select count(*) from bus.operations')).toBe(0)
    const agreed = answer('y\n')
    expect(agreed.stdout).toMatch(/Started a redrive of 1 event for ledger: operation [\da-f-]{36}\./)
    expect(agreed.status).toBe(0)
    expect(await count(`select count(*) from bus.operations where state = 'running'`)).toBe(1)
  },
)
