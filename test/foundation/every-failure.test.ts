import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { canary, traceOfCanary } from '../support/canary.ts'
import { configText, createFolder, runCli } from '../support/cli.ts'
import { createTestDatabase } from '../support/database.ts'

const program = fileURLToPath(new URL('../support/failing-process.ts', import.meta.url))

/** Everything a program prints, on both of its outputs. */
async function outputOf(
  args: readonly string[],
): Promise<{ readonly code: number | null; readonly text: string }> {
  const child = spawn(process.execPath, [program, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  onTestFinished(() => void child.kill('SIGKILL'))
  let text = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (text += String(chunk)))
  const code = await new Promise<number | null>((resolve) => {
    child.on('close', resolve)
  })
  return { code, text }
}

test('a service shows nothing of its payloads, in whatever way it fails, and leaves them in the log alone', async () => {
  const { url, rows } = await createTestDatabase()
  const { code, text } = await outputOf([url, 'postgres://nobody@127.0.0.1:1/none'])
  expect([code, text.slice(-3000)]).toEqual([0, expect.stringMatching(/done: all/) as string])
  for (const what of [
    'schema',
    'trigger: cast',
    'trigger: later',
    'failed transaction',
    'lost database: erase',
    'dead letters',
    'a table that is gone',
    'lost connections',
  ])
    expect(text).toContain(`done: ${what}\n`)
  // What the bus logged about it, and how the failures were told.
  for (const told of [
    'an event could not be published',
    'an attempt to handle an event failed',
    'an event went to the dead letters',
    'BUS_UPCAST_FAILED',
    'BUS_EVENT_TOO_NEW',
    'BUS_HANDLER_TIMEOUT',
    'BUS_HANDLER_TRANSACTION_ABORTED',
  ])
    expect(text).toContain(told)
  expect(text.split('\n').filter((line) => traceOfCanary.test(line))).toEqual([])

  const tables = await rows(
    `select n.nspname as schema, c.relname as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.relkind = 'r' and n.nspname in ('bus', 'pgboss')`,
  )
  const holding: unknown[] = []
  for (const { schema, name } of tables) {
    const content = JSON.stringify(await rows(`select * from ${String(schema)}.${String(name)}`))
    if (traceOfCanary.test(content)) holding.push(name)
  }
  expect(holding.filter((name) => !String(name).startsWith('events_'))).toEqual([])
  expect(holding).not.toEqual([])

  // The command, on that log: broken upcasts, refusals, events that are too new.
  const folder = await createFolder({
    'bossbus.config.ts': configText(
      `{
        old: { schema: z.unknown(), version: 2, upcast: { 1: (given: unknown) => { throw new Error(JSON.stringify(given)) } } },
        newer: { schema: z.unknown() },
        note: { schema: z.object({ secret: z.email(), list: z.array(z.enum(['a'])) }) },
        slow: { schema: z.unknown().refine(() => false, { error: ({ input }) => 'bad: ' + JSON.stringify(input) }) },
      }`,
      `database: ${JSON.stringify(url)},`,
    ),
  })
  for (const args of [['--json'], []]) {
    const checked = await runCli(folder, ['catalog', 'check', ...args])
    expect(checked.code).toBe(1)
    expect(checked.out).toMatch(/upcast-failed[^]*sample-unfit/)
    expect(JSON.stringify(checked)).not.toMatch(traceOfCanary)
  }
  expect(canary).toMatch(traceOfCanary)
})
