import { spawn, spawnSync } from 'node:child_process'
import { stripVTControlCharacters } from 'node:util'
import { describe, expect, onTestFinished, test } from 'vitest'
import { testBus } from '../support/bus.ts'
import { createFolder } from '../support/cli.ts'
import { startCli } from '../support/cli-follow.ts'
import { cliMain } from '../support/cli-process.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'

const begin = '\u001b[?1049h'
const end = '\u001b[?1049l'

/** What a terminal of the last drawing shows. */
function lastScreen(out: string): string[] {
  const drawn = out.split('\u001b[H').at(-1) ?? ''
  return stripVTControlCharacters(drawn).split('\r\n')
}

describe('bossbus watch', () => {
  test('draws the status again and again on a terminal, as high as it is, and gives it back with q', async () => {
    const { url } = await createTestDatabase()
    const bus = testBus(url)
    for (let i = 0; i < 30; i += 1) bus.subscribe({ name: `s${i}`, events: ['note'], handler: () => {} })
    const env = { DATABASE_URL: url, NO_COLOR: '1' }
    const watch = startCli(await createFolder(), ['watch', '--interval', '200ms'], env, {
      columns: 80,
      rows: 12,
    })
    await watch.says('There are none yet.')
    await bus.start()
    await watch.says('s0')
    const screen = lastScreen(watch.written.out)
    expect(screen[0]).toMatch(/^\d\d:\d\d:\d\d UTC, every 200 ms\. q ends it\.$/)
    expect(screen.length).toBeLessThanOrEqual(12)
    expect(watch.written.out.startsWith(begin)).toBe(true)
    expect(watch.written.out).not.toContain(end)
    watch.press('x')
    watch.press('q')
    expect((await watch.ended).code).toBe(0)
    expect(watch.written.out.endsWith(end)).toBe(true)
  })

  test('gives the terminal back with Ctrl-C too, also while the database hangs', async () => {
    const { url } = await createTestDatabase()
    const proxy = await startTcpProxy(url)
    const args = ['watch', '--interval', '200ms', '--timeout', '1s']
    const watch = startCli(await createFolder(), args, { DATABASE_URL: proxy.url }, { columns: 80, rows: 24 })
    await watch.says('All is well.')
    proxy.hold('to client')
    await watch.says('The database did not answer within 1.0 s')
    expect(lastScreen(watch.written.out).join('\n')).toContain('All is well.')
    const beganAt = performance.now()
    expect((await watch.interrupt()).code).toBe(0)
    expect(performance.now() - beganAt).toBeLessThan(3000)
    expect(watch.written.out.endsWith(end)).toBe(true)
  })

  test('writes a line each time in a pipe, and JSON with --json', async () => {
    const { url } = await createTestDatabase()
    const env = { DATABASE_URL: url }
    const piped = startCli(await createFolder(), ['watch', '--interval', '100ms'], env)
    await until('three lines', async () => piped.written.out.split('\n').length > 3)
    const { code, out } = await piped.interrupt()
    expect(code).toBe(0)
    for (const line of out.split('\n'))
      expect(line).toMatch(
        /^\S+Z {2}ok {2}0 subscriptions {2}lag 0 ms {2}outbox 0 {2}ready 0 {2}active 0 {2}retrying 0 {2}dead 0$/,
      )
    const json = startCli(await createFolder(), ['watch', '--interval', '100ms', '--json'], env)
    await until('two lines', async () => json.written.out.split('\n').length > 2)
    const first = (await json.interrupt()).out.split('\n')[0] ?? ''
    expect(JSON.parse(first)).toMatchObject({
      at: expect.any(String) as string,
      findings: [],
      subscriptions: [],
    })
  })

  test('says that there is no database before it takes the terminal', async () => {
    const watch = startCli(await createFolder(), ['watch'], {}, { columns: 80 })
    const { code, out, err } = await watch.ended
    expect({ code, out }).toEqual({ code: 2, out: '' })
    expect(err).toContain('No database is given')
  })

  const hasScript = spawnSync('script', ['--version']).status === 0

  test.skipIf(!hasScript).each(['SIGTERM', 'SIGINT'] as const)(
    `gives the terminal back when it is ended by %s${hasScript ? '' : ' (SKIPPED: needs script of util-linux)'}`,
    async (signal) => {
      const { url } = await createTestDatabase()
      // In the foreground, as it is before a person.
      const command = `echo "pid $$"; exec ${process.execPath} ${cliMain} watch --interval 200ms`
      const child = spawn('script', ['--quiet', '--return', '--command', command, '/dev/null'], {
        env: { ...process.env, TERM: 'xterm', SHELL: '/bin/sh', DATABASE_URL: url },
        stdio: ['pipe', 'pipe', 'inherit'],
      })
      onTestFinished(() => void child.kill())
      let out = ''
      child.stdout.setEncoding('utf8').on('data', (text: string) => void (out += text))
      await until('it draws', async () => out.includes('All is well.'))
      process.kill(Number(/pid (\d+)/.exec(out)?.[1]), signal)
      const code = await new Promise((resolve) => void child.on('close', resolve))
      expect(code).toBe(0)
      expect(out.lastIndexOf(end)).toBeGreaterThan(out.lastIndexOf(begin))
    },
  )
})
