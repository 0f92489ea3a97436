import { spawn, type ChildProcess } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { createClaimFloors } from '../../src/outbox/relay/claim-floors.ts'
import { orderedClaimSql } from '../../src/outbox/relay/claim-sql.ts'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { recordFigure } from '../support/figures.ts'
import { isFullForm } from '../support/form.ts'
import { checkOrder, readOrder, type HistoryLine } from '../support/order-history.ts'
import { openSession } from '../support/session.ts'
import { randomOfTest } from '../support/random.ts'

const random = randomOfTest()

const keyCount = isFullForm ? 1000 : 40
const eventsPerKey = isFullForm ? 100 : 15
const total = keyCount * eventsPerKey
const keys = Array.from({ length: keyCount }, (_, k) => `k${k}`)

const program = fileURLToPath(new URL('../support/ordered-process.ts', import.meta.url))

interface OrderedProcess {
  readonly child: ChildProcess
  readonly file: string
}

async function startProcesses(url: string, count: number): Promise<OrderedProcess[]> {
  const folder = await mkdtemp(join(tmpdir(), 'bossbus-order-'))
  onTestFinished(async () => rm(folder, { recursive: true, force: true }))
  return Promise.all(
    Array.from({ length: count }, async (_, i) => {
      const file = join(folder, `history-${i}`)
      const child = spawn(process.execPath, [program, url, file], { stdio: ['ignore', 'pipe', 'inherit'] })
      let output = ''
      child.stdout?.on('data', (chunk: Buffer) => (output += chunk.toString()))
      onTestFinished(() => {
        child.kill('SIGKILL')
      })
      await until('the process has started', () => output.includes('started'))
      return { child, file }
    }),
  )
}

async function exited(child: ChildProcess, signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
  const exit = new Promise((resolve) => child.once('exit', resolve))
  child.kill(signal)
  await exit
}

/** Four writers, each with keys of its own; one transaction in ten is rolled back and tried again. */
async function publishAll(database: TestDatabase): Promise<void> {
  const publisher = testBus(database.url)
  await Promise.all(
    Array.from({ length: 4 }, async (_, writer) => {
      const own = keys.filter((_key, k) => k % 4 === writer)
      for (let number = 0; number < eventsPerKey; number += 1) {
        const notes = own.map(
          (orderingKey) => ({ type: 'note', tenantId: 'acme', orderingKey, payload: number }) as const,
        )
        if (number % 10 === writer) {
          const rolledBack = database.db.transaction(async (tx) => {
            await publisher.publishMany(tx, notes)
            throw new Error('rolled back')
          })
          await rolledBack.catch(() => {})
        }
        await database.db.transaction(async (tx) => publisher.publishMany(tx, notes))
      }
    }),
  )
}

async function readHistory(processes: readonly OrderedProcess[]): Promise<HistoryLine[]> {
  const texts = await Promise.all(processes.map(async ({ file }) => readFile(file, 'utf8')))
  return texts.flatMap(readOrder)
}

const allDelivered = async ({ count }: TestDatabase): Promise<boolean> =>
  (await count('select count(*) from bus.deliveries')) === total

test(
  `four processes deliver ${keyCount} keys x ${eventsPerKey} events in order, a tenth of the attempts failing`,
  { timeout: isFullForm ? 600_000 : 240_000 },
  async () => {
    const database = await createTestDatabase({ max: 8 })
    const processes = await startProcesses(database.url, 4)
    const startedAt = performance.now()
    await publishAll(database)
    await until('all are delivered', async () => allDelivered(database), isFullForm ? 500_000 : 50_000)
    const seconds = (performance.now() - startedAt) / 1000
    await Promise.all(processes.map(async ({ child }) => exited(child, 'SIGTERM')))
    const history = await readHistory(processes)
    const findings = checkOrder(history, keys, eventsPerKey)
    console.log(
      `order: ${total} events of ${keyCount} keys in ${seconds.toFixed(1)} s, ${findings.failedAttempts} attempts failed, ${JSON.stringify(findings)}`,
    )
    recordFigure(
      `${keyCount} keys x ${eventsPerKey} ordered events, 4 relays, 10 % of attempts failing`,
      `${findings.failedAttempts} attempts failed; order violations ${findings.outOfOrder + findings.atOnce}, doubled ${findings.doubled}, missing ${findings.missing}; ${seconds.toFixed(1)} s`,
    )
    expect(findings).toMatchObject({ outOfOrder: 0, atOnce: 0, doubled: 0, missing: 0 })
    expect(findings.failedAttempts).toBeGreaterThan(total / 50)
    // It was shared: none did it alone.
    const shares = await Promise.all(processes.map(async (process) => (await readHistory([process])).length))
    expect(shares.filter((lines) => lines > 0).length).toBeGreaterThan(1)
    expect(await database.count('select count(*) from bus.ordered_keys')).toBe(0)
    expect(await database.count('select count(*) from bus.ordered_events')).toBe(0)
    expect(await database.count('select count(*) from bus.outbox')).toBe(0)
    expect(await database.count(`select count(*) from pgboss.job where name like 'bus.%.dead'`)).toBe(0)
    expect(
      await database.count('select deadlocks from pg_stat_database where datname = current_database()'),
    ).toBe(0)
  },
)

test('keys that are blocked and released again and again, by several at once, keep their order', async () => {
  const database = await createTestDatabase({ max: 8 })
  const history: HistoryLine[] = []
  const note = (what: HistoryLine['what'], key: string, number: number): void => {
    history.push({ at: BigInt(history.length), what, key, number })
  }
  const buses = [testBus(database.url), testBus(database.url)] as const
  for (const bus of buses) {
    bus.subscribe({
      name: 'ordered',
      events: ['note'],
      ordered: true,
      batchSize: 5,
      retry: { maxAttempts: 1 },
      handler: async ({ orderingKey = '', payload }) => {
        note('begins', orderingKey, payload as number)
        await new Promise((resolve) => setImmediate(resolve))
        const fails = random() < 0.15
        note(fails ? 'fails' : 'succeeds', orderingKey, payload as number)
        if (fails) throw new Error('by chance')
      },
    })
    await bus.start()
  }
  const [bus, other] = buses
  const orderingKeys = ['a', 'b', 'c', 'd', 'e']
  const publishing = (async () => {
    for (let payload = 0; payload < 30; payload += 1)
      await database.db.transaction(async (tx) =>
        bus.publishMany(
          tx,
          orderingKeys.map(
            (orderingKey) => ({ type: 'note', tenantId: 'acme', orderingKey, payload }) as const,
          ),
        ),
      )
  })()
  let releases = 0
  await until('all are delivered', async () => {
    for (const { subscription, tenantId, orderingKey } of await bus.blockedKeys.list()) {
      const key = { subscription, tenantId, orderingKey }
      const released = await Promise.all([bus, other].map(async (by) => by.blockedKeys.release(key)))
      releases += released.filter(Boolean).length
    }
    return (await database.count('select count(*) from bus.deliveries')) === 150
  })
  await publishing
  const findings = checkOrder(history, orderingKeys, 30)
  expect(findings).toMatchObject({ outOfOrder: 0, atOnce: 0, doubled: 0, missing: 0 })
  // Each failure blocked its key, and each time one release went through.
  expect(releases).toBe(findings.failedAttempts)
  expect(releases).toBeGreaterThan(5)
  await until(
    'the keys are gone',
    async () => (await database.count('select count(*) from bus.ordered_keys')) === 0,
  )
  expect(await bus.deadLetters.list()).toEqual([])
})

test.runIf(isFullForm)(
  'a relay that stops in the middle of its claim holds the order up for no more than ten seconds',
  async () => {
    const database = await createTestDatabase()
    const bus = testBus(database.url)
    const seen: unknown[] = []
    bus.subscribe({
      name: 'ordered',
      events: ['note'],
      ordered: true,
      handler: ({ payload }) => void seen.push(payload),
    })
    await bus.start()
    const stopped = await openSession(database)
    await stopped.client.query(orderedClaimSql(createClaimFloors().next(undefined), 'normal'))
    await database.db.transaction(async (tx) =>
      bus.publishMany(
        tx,
        [1, 2].map((payload) => ({ type: 'note', tenantId: 'acme', orderingKey: 'k', payload }) as const),
      ),
    )
    await database.db.transaction(async (tx) =>
      bus.publish(tx, { type: 'note', tenantId: 'acme', payload: 'free' }),
    )
    await until('the free one is delivered', () => seen.length === 1)
    expect(seen).toEqual(['free'])
    await until('the others are delivered', () => seen.length === 3)
    expect(seen).toEqual(['free', 1, 2])
  },
)

test.runIf(isFullForm)(
  'a process killed with SIGKILL while it delivers leaves every key in order',
  { timeout: 600_000 },
  async () => {
    const database = await createTestDatabase({ max: 8 })
    const processes = await startProcesses(database.url, 4)
    const publishing = publishAll(database)
    await until(
      'they are delivering',
      async () => (await database.count('select count(*) from bus.deliveries')) > total / 20,
    )
    const [victim] = processes as [OrderedProcess]
    await exited(victim.child, 'SIGKILL')
    await publishing
    await until('all are delivered', async () => allDelivered(database), 500_000)
    await Promise.all(processes.slice(1).map(async ({ child }) => exited(child, 'SIGTERM')))
    // What was running when it died ended there; what was done but had no receipt yet runs again.
    const history = await readHistory(processes)
    const deaths = history.filter(({ what }) => what === 'dies')
    const findings = checkOrder(history, keys, eventsPerKey)
    console.log(
      `order with a killed process: ${JSON.stringify(findings)}, ${deaths.length} died in the handler`,
    )
    recordFigure(
      'one of the 4 killed with SIGKILL meanwhile',
      `${deaths.length} events in hand; order violations ${findings.outOfOrder + findings.atOnce}, missing ${findings.missing}, run again ${findings.doubled}`,
    )
    expect(findings).toMatchObject({ outOfOrder: 0, atOnce: 0, missing: 0 })
    // At least once: no more runs again than one process had in hand.
    expect(findings.doubled).toBeLessThan(64 * 100)
  },
)
