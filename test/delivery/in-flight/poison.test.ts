import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { testBus } from '../../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'
import { isFullForm } from '../../support/form.ts'
import type { Ending } from '../../support/endings.ts'

type Mode = 'plain' | 'once' | 'block' | 'park' | 'skip'

const program = fileURLToPath(new URL('../../support/poisoned-process.ts', import.meta.url))

interface Run {
  readonly database: TestDatabase
  readonly mode: Mode
  readonly how: Ending
  readonly batchSize: number
}

/** Starts processes one after the other, each when the one before has died, until nothing is left to deliver. Gives their number. */
async function runProcesses({ database, mode, how, batchSize }: Run, file: string): Promise<number> {
  for (let deaths = 0; ; deaths += 1) {
    const child = spawn(
      process.execPath,
      ['--max-old-space-size=96', program, database.url, mode, how, file, String(batchSize)],
      { stdio: 'ignore' },
    )
    onTestFinished(() => void child.kill('SIGKILL'))
    const dead = once(child, 'exit')
    let settled = false
    const finished = until('nothing is left', async () => settled || (await isDone(database)))
    const died = await Promise.race([dead.then(() => true), finished.then(() => false)])
    settled = true
    await finished
    if (!died) {
      child.kill('SIGKILL')
      await dead
      return deaths
    }
    expect(deaths).toBeLessThan(10)
    // Nobody else is alive: their heartbeats need not be waited for.
    await database.rows(
      `update pgboss.job set heartbeat_on = now() - interval '1 hour' where state = 'active'`,
    )
  }
}

/** Whether everything has a receipt, is a dead letter, or waits behind one. */
async function isDone(database: TestDatabase): Promise<boolean> {
  return (
    (await database.count(
      `select (select count(*) from bus.outbox) + (select count(*) from pgboss.job where name = 'bus.poisoned' and state < 'completed')
         + (select count(*) from bus.ordered_keys where state = 'active')
         + (case when exists (select from bus.subscriptions) then 0 else 1 end)`,
    )) === 0
  )
}

const paid = (payload: string | number, key: string | null) => ({ payload, key })

async function publish(
  database: TestDatabase,
  events: readonly { readonly payload: string | number; readonly key: string | null }[],
): Promise<void> {
  await database.rows(
    `insert into bus.events (tenant_id, type, source, payload, ordering_key)
     select 'acme', 'note', 'psql', e->'payload', e->>'key' from jsonb_array_elements($1::jsonb) with ordinality t (e, n) order by n`,
    [JSON.stringify(events)],
  )
}

/** Without order and with it; the others are other ends of the same. */
const inEveryRun: readonly [Mode, Ending, number][] = [
  ['plain', 'abort', 100],
  ['park', 'abort', 1],
]
const others: readonly [Mode, Ending, number][] = isFullForm
  ? [
      ['plain', 'exit', 1],
      ['plain', 'out of memory', 1],
      ['once', 'abort', 1],
      ['once', 'exit', 100],
      ['skip', 'abort', 100],
      ['block', 'exit', 100],
      ['block', 'out of memory', 1],
    ]
  : [
      // Each mode and each ending.
      ['once', 'exit', 100],
      ['skip', 'abort', 100],
      ['block', 'out of memory', 1],
    ]

for (const [mode, how, batchSize] of [...inEveryRun, ...others])
  test(
    `an event that ends its process is the only dead letter: ${mode}, ${how}, batches of ${batchSize}`,
    {
      tags: inEveryRun.some((run) => run.join() === [mode, how, batchSize].join()) ? [] : ['slow'],
    },
    async () => {
      const database = await createTestDatabase()
      const folder = await mkdtemp(join(tmpdir(), 'bossbus-'))
      const file = join(folder, 'delivered')
      const ordered = mode !== 'plain' && mode !== 'once'
      // Registers the subscription, so that what is published is for it.
      const registering = testBus(database.url)
      registering.subscribe({
        name: 'poisoned',
        events: ['note'],
        heartbeatSeconds: 10,
        batchSize,
        ...(ordered ? { ordered: true, onKeyFailure: mode } : {}),
        retry: { maxAttempts: 3, delaySeconds: 0, backoff: false },
        handler: () => {},
      })
      await registering.start()
      await registering.stop()
      const events = Array.from({ length: 60 }, (_, n) => paid(n, ordered ? `k${n % 20}` : null))
      await publish(database, [
        ...events.slice(0, 30),
        paid('poison', ordered ? 'k7' : null),
        ...events.slice(30),
      ])
      const deaths = await runProcesses({ database, mode, how, batchSize }, file)
      expect(deaths).toBeGreaterThanOrEqual(3)
      expect(deaths).toBeLessThanOrEqual(4)
      const dead = await database.rows(
        `select e.payload, j.data from pgboss.job j join bus.events e on e.id = (j.data->'eventIds'->>0)::uuid where j.name = 'bus.poisoned.dead'`,
      )
      expect(dead.map(({ payload }) => payload)).toEqual(['poison'])
      const behind =
        mode === 'block' || mode === 'park' ? events.slice(30).filter(({ key }) => key === 'k7') : []
      const delivered = new Set((await readFile(file, 'utf8')).trim().split('\n'))
      expect(delivered.size).toBe(60 - behind.length)
      expect(behind.some(({ payload }) => delivered.has(String(payload)))).toBe(false)
      expect(await database.count('select count(*) from bus.deliveries')).toBe(60 - behind.length)
    },
  )
