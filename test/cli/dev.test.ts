import { spawn } from 'node:child_process'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { describe, expect, onTestFinished, test } from 'vitest'
import { runCli, createFolder } from '../support/cli.ts'
import { cliMain, plainEnvironment, runCliProcess } from '../support/cli-process.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { createServiceFolder } from '../support/service-folder.ts'
import { roomFor } from '../support/slowness.ts'

interface Running {
  readonly pid: number
  readonly written: { out: string; err: string }
  readonly says: (text: RegExp) => Promise<void>
  readonly ended: Promise<number | null>
  readonly interrupt: () => Promise<{ readonly code: number | null; readonly tookMs: number }>
}

const alive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

/** Runs `bossbus dev` as a person does. */
function startDev(
  cwd: string,
  args: readonly string[] = [],
  env: Readonly<Record<string, string>> = {},
): Running {
  const child = spawn(process.execPath, [cliMain, 'dev', ...args], {
    ...{ cwd, env: { ...plainEnvironment(), ...env }, stdio: ['ignore', 'pipe', 'pipe'] },
  })
  const written = { out: '', err: '' }
  child.stdout.setEncoding('utf8').on('data', (text: string) => void (written.out += text))
  child.stderr.setEncoding('utf8').on('data', (text: string) => void (written.err += text))
  const ended = new Promise<number | null>((resolve) => void child.on('close', resolve))
  onTestFinished(async () => {
    child.kill('SIGTERM')
    await ended
  })
  return {
    pid: child.pid ?? 0,
    ...{ written, ended },
    async says(text) {
      await until(
        `it says ${String(text)}`,
        async () => text.test(written.out) || text.test(written.err),
      ).catch((error: unknown) => {
        throw new Error(`${(error as Error).message}. It wrote ${written.out}\n--\n${written.err}`)
      })
    },
    async interrupt() {
      const beganAt = performance.now()
      child.kill('SIGINT')
      return { code: await ended, tookMs: performance.now() - beganAt }
    },
  }
}

describe('bossbus dev', () => {
  test('leads from an empty folder to a handled event, within 60 seconds beside the install', async () => {
    const folder = await createServiceFolder()
    const beganAt = performance.now()
    expect((await runCli(folder, ['init', '--yes', '--source', 'shop'])).code).toBe(0)
    const first = startDev(folder)
    await first.says(/confirm order \S+ of acme: 42/)
    await first.says(/→ .*confirm-order {2}delivered/)
    const tookMs = performance.now() - beganAt
    console.log(`from an empty folder to a handled event: ${(tookMs / 1000).toFixed(1)} s`)
    expect(tookMs).toBeLessThan(roomFor(60_000))
    expect(first.written.err).toMatch(/Database {2}embedded PostgreSQL/)
    const { code, tookMs: endedAfterMs } = await first.interrupt()
    expect(code).toBe(0)
    expect(endedAfterMs).toBeLessThan(10_000)

    // The data is kept; a person publishes by the service.
    const second = startDev(folder, [], { DATABASE_URL: 'postgres://nobody:secret@127.0.0.1:1/none' })
    await second.says(/PORT=\d+/)
    expect(second.written.err).toMatch(/^127\.0\.0\.1:1 does not answer .*: another database is started\.$/m)
    expect(second.written.err).not.toContain('secret')
    const port = /PORT=(\d+)/.exec(second.written.err)?.[1] ?? ''
    await until('the service answers', async () =>
      fetch(`http://127.0.0.1:${port}/orders`, {
        ...{ method: 'POST', body: '{"totalCents":700}', headers: { 'content-type': 'application/json' } },
      }).then(
        ({ status }) => status === 201,
        () => false,
      ),
    )
    await second.says(/confirm order \S+ of acme: 7/)
    expect(second.written.out).not.toMatch(/acme: 42/)

    // It runs what is in the files.
    const file = join(folder, 'src/subscriptions.ts')
    await writeFile(file, (await readFile(file, 'utf8')).replace('confirm order', 'thank for order'))
    await until('the new code handles it', async () => {
      await fetch(`http://127.0.0.1:${port}/orders`, {
        ...{ method: 'POST', body: '{"totalCents":800}', headers: { 'content-type': 'application/json' } },
      }).catch(() => {})
      await new Promise((resolve) => setTimeout(resolve, 200))
      return /thank for order \S+ of acme: 8/.test(second.written.out)
    })
    expect((await second.interrupt()).code).toBe(0)
  })

  test('starts the bus that a configuration exports, on the database that is given, and ends with all its processes', async () => {
    const { url, count } = await createTestDatabase({ empty: true })
    const folder = await createServiceFolder()
    await writeFile(join(folder, 'package.json'), '{"type":"module"}')
    await writeFile(
      join(folder, 'bossbus.config.ts'),
      `import { createBus, defineEvents } from 'bossbus'
import { z } from 'zod'
const events = defineEvents({ 'order.placed': { schema: z.object({ orderId: z.string() }) } })
const bus = createBus({ events, source: 'shop', database: process.env['DATABASE_URL'] ?? '' })
bus.subscribe({ name: 'confirm', events: ['order.placed'], handler: async ({ payload }) => {
  console.log('handled', payload.orderId, 'in', process.pid)
} })
export default bus
`,
    )
    const dev = startDev(folder, [], { DATABASE_URL: url })
    await dev.says(/Service {3}the bus of/)
    // The database is that of dev, as in a second terminal.
    const published = await runCliProcess(
      folder,
      [
        'events',
        'publish',
        'order.placed',
        '--tenant',
        'acme',
        '--payload',
        '{"orderId":"9"}',
        '--wait',
        '--unchecked',
      ],
      {},
    )
    expect(published.err).toContain(`Database: that of bossbus dev: ${url}\n`)
    expect(published.out).toMatch(/confirm {2}delivered/)
    await dev.says(/handled 9 in \d+/)
    expect(await count('select count(*) from bus.events')).toBe(1)
    const service = Number(/handled 9 in (\d+)/.exec(dev.written.out)?.[1])
    expect(alive(service)).toBe(true)
    const { code, tookMs } = await dev.interrupt()
    expect(code).toBe(0)
    expect(tookMs).toBeLessThan(5000)
    await until('its service has ended', async () => !alive(service))
    expect(await readdir(join(folder, '.bossbus'))).toEqual(['.gitignore'])
  })

  test('asks before it migrates a database that is not on this machine', async () => {
    const { url, count } = await createTestDatabase({ empty: true })
    const folder = await createFolder({ 'bossbus.config.mjs': 'export default { source: "shop" }' })
    // Another name of this machine, which it does not know as one.
    const elsewhere = url.replace(/@127\.0\.0\.1:|@localhost:/, '@127.1:')
    expect(elsewhere).not.toBe(url)
    const unasked = await runCli(folder, ['dev'], { DATABASE_URL: elsewhere })
    expect(unasked).toMatchObject({ code: 2, out: '' })
    expect(unasked.err).toMatch(/^Migrate the database .*127\.1.*, which is not on this machine, .*use --yes/)
    const declined = await runCli(folder, ['dev'], { DATABASE_URL: elsewhere }, { answers: ['n'] })
    expect(declined).toMatchObject({
      code: 1,
      err: expect.stringMatching(/Nothing was changed\.$/) as string,
    })
    // Of several hosts the one that answers counts.
    const several = url.replace(/@[^:/]+:(\d+)\//, '@127.0.0.1:1,127.1:$1/')
    expect((await runCli(folder, ['dev'], { DATABASE_URL: several })).err).toMatch(/^Migrate the database /)
    expect(await count(`select count(*) from pg_namespace where nspname = 'bus'`)).toBe(0)
  })

  test('refuses to run without a configuration, or without something to run', async () => {
    const empty = startDev(await createFolder(), [], { DATABASE_URL: 'postgres://nobody@127.0.0.1:1/none' })
    expect(await empty.ended).toBe(2)
    expect(empty.written.err).toMatch(/There is no bossbus.config.ts in .*: bossbus init$/m)
    const { url } = await createTestDatabase()
    const folder = await createFolder({ 'bossbus.config.mjs': 'export default { source: "shop" }' })
    const nothing = startDev(folder, [], { DATABASE_URL: url })
    expect(await nothing.ended).toBe(2)
    expect(nothing.written.err).toContain('Nothing is said to run')
    // Before it looks for a database, or starts one.
    const missing = startDev(folder, ['src/none.ts'])
    expect(await missing.ended).toBe(2)
    expect(missing.written.err).toMatch(/^There is no file .*src\/none.ts/)
  })

  test('gives the service a port that is free', async () => {
    const { freePort } = await import('../../src/cli/dev/dev-database.ts')
    const from = 20_000 + Math.floor(Math.random() * 20_000)
    const port = await freePort(from)
    const server = createServer()
    await new Promise<void>((resolve) => void server.listen(port, resolve))
    onTestFinished(() => void server.close())
    expect(await freePort(port)).toBeGreaterThan(port)
  })
})
