import { spawn, type ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'

const program = fileURLToPath(new URL('../support/worker-process.ts', import.meta.url))

interface WorkerProcess {
  readonly child: ChildProcess
  readonly output: string[]
}

async function startProcess(url: string): Promise<WorkerProcess> {
  const child = spawn(process.execPath, [program, url], { stdio: ['ignore', 'pipe', 'pipe'] })
  const output: string[] = []
  child.stdout?.on('data', (chunk: Buffer) => output.push(...chunk.toString().trim().split('\n')))
  child.stderr?.on('data', (chunk: Buffer) => output.push(chunk.toString()))
  onTestFinished(() => {
    child.kill('SIGKILL')
  })
  await until('the process has started', () => output.includes('started'))
  return { child, output }
}

/** Sends SIGTERM and gives what the process printed last. */
async function endProcess({ child, output }: WorkerProcess): Promise<{ first: number; second: number }> {
  const exited = new Promise<number | null>((resolve) => child.once('exit', resolve))
  child.kill('SIGTERM')
  expect(await exited).toBe(0)
  return JSON.parse(output.at(-1) ?? '{}') as { first: number; second: number }
}

test('four processes over one database deliver 20,000 events to two subscriptions, each once', async () => {
  const database = await createTestDatabase({ max: 8 })
  const processes = await Promise.all(Array.from({ length: 4 }, async () => startProcess(database.url)))
  const publisher = testBus(database.url)
  await Promise.all(
    Array.from({ length: 8 }, async (_writer, writer) => {
      for (let i = 0; i < 25; i += 1) {
        const notes = Array.from(
          { length: 100 },
          (_, n) => ({ type: 'note', tenantId: `t${writer}`, payload: [writer, i, n] }) as const,
        )
        await database.db.transaction(async (tx) => publisher.publishMany(tx, notes))
      }
    }),
  )
  await until(
    'every receipt is there',
    async () => (await database.count('select count(*) from bus.deliveries')) >= 40_000,
  )
  const handled = await Promise.all(processes.map(endProcess))
  // Every event has its receipt for both subscriptions, and no handler ran twice for one.
  expect(
    await database.rows(`select s.name, count(distinct d.event_id)::int as receipts, count(*)::int as total
      from bus.deliveries d join bus.subscriptions s on s.id = d.subscription_id group by 1 order by 1`),
  ).toEqual([
    { name: 'first', receipts: 20_000, total: 20_000 },
    { name: 'second', receipts: 20_000, total: 20_000 },
  ])
  expect(handled.reduce((sum, { first }) => sum + first, 0)).toBe(20_000)
  expect(handled.reduce((sum, { second }) => sum + second, 0)).toBe(20_000)
  expect(await database.count('select count(*) from bus.outbox')).toBe(0)
  expect(
    await database.count(`select count(*) from pgboss.job where name like 'bus.%' and state < 'completed'`),
  ).toBe(0)
  console.log(`deliveries by process: ${handled.map(({ first, second }) => first + second).join(', ')}`)
})

test('a process killed with SIGKILL while it delivers loses nothing', async () => {
  const database = await createTestDatabase({ max: 8 })
  const victim = await startProcess(database.url)
  const publisher = testBus(database.url)
  const notes = Array.from({ length: 2000 }, (_, n) => ({ type: 'note', tenantId: 'a', payload: n }) as const)
  await database.db.transaction(async (tx) => publisher.publishMany(tx, notes))
  await until(
    'it is delivering',
    async () => (await database.count('select count(*) from bus.deliveries')) > 0,
  )
  victim.child.kill('SIGKILL')
  // Its claims are told apart from living ones by the heartbeat: do not wait for it here.
  await database.rows(`update pgboss.job set heartbeat_on = now() - interval '1 hour' where state = 'active'`)
  const heir = await startProcess(database.url)
  await until(
    'every receipt is there',
    async () => (await database.count('select count(*) from bus.deliveries')) === 4000,
  )
  await endProcess(heir)
  expect(await database.count(`select count(*) from pgboss.job where name like 'bus.%.dead'`)).toBe(0)
})
