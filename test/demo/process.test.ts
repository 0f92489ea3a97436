import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import { createTestDatabase, until } from '../support/database.ts'
import { newPayment, verification, type OpenedCase, type Verified } from './payments.ts'

const main = fileURLToPath(new URL('../../src/demo/main.ts', import.meta.url))

interface Demo {
  readonly output: () => string
  /** Where it listens, once it does. */
  readonly url: () => string
  readonly kill: ChildProcess['kill']
  /** Resolves to how it ended. */
  readonly ended: Promise<{ readonly code: number | null; readonly signal: NodeJS.Signals | null }>
}

/** The demo as a process of its own, on a free port unless told. Ended with the test. */
function spawnDemo(databaseUrl: string, environment: NodeJS.ProcessEnv = {}, args: string[] = []): Demo {
  const child = spawn(process.execPath, [main, ...args], {
    env: { ...process.env, DATABASE_URL: databaseUrl, PORT: '0', ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => (output += chunk.toString()))
  }
  const ended = once(child, 'close').then(() => ({ code: child.exitCode, signal: child.signalCode }))
  onTestFinished(async () => {
    child.kill('SIGKILL')
    await ended
  })
  return {
    output: () => output,
    url: () => /Payments service: (\S+)/.exec(output)?.[1] ?? '',
    kill: (signal) => child.kill(signal),
    ended,
  }
}

async function startDemo(
  databaseUrl: string,
  environment?: NodeJS.ProcessEnv,
  args?: string[],
): Promise<Demo> {
  const demo = spawnDemo(databaseUrl, environment, args)
  await Promise.race([
    until('the demo listens', () => demo.url() !== ''),
    demo.ended.then((how) => {
      throw new Error(`The demo ended at its start: ${JSON.stringify(how)} ${demo.output()}`)
    }),
  ])
  return demo
}

async function post<T>(url: string, body: object): Promise<T> {
  const response = await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  })
  expect(response.ok).toBe(true)
  return (await response.json()) as T
}

/** Creates and verifies a payment. @returns its id */
async function pay(demo: Demo): Promise<string> {
  const { paymentId } = await post<{ paymentId: string }>(`${demo.url()}/payments`, newPayment)
  const { status } = await post<Verified>(`${demo.url()}/payments/${paymentId}/verify`, verification)
  expect(status).toBe('VERIFIED_PAID')
  return paymentId
}

async function casesOf(demo: Demo, paymentId: string): Promise<OpenedCase[]> {
  const response = await fetch(`${demo.url()}/cases?paymentId=${paymentId}`)
  return (await response.json()) as OpenedCase[]
}

test('the demo serves, says what to try, and stops at SIGTERM with exit code 0', async () => {
  const { url, count } = await createTestDatabase({ empty: true })
  const demo = await startDemo(url)
  const paymentId = await pay(demo)
  await until('the case is open', async () => (await casesOf(demo, paymentId)).length > 0)
  expect(await casesOf(demo, paymentId)).toMatchObject([{ paymentId, tenantId: 'acme' }])
  await until('it has said what to try', () => demo.output().includes('Ctrl-C stops'))
  expect(demo.output()).toContain('PostgreSQL: the server of DATABASE_URL')
  expect(demo.output().match(/curl /g)).toHaveLength(3)

  demo.kill('SIGTERM')
  expect(await demo.ended).toEqual({ code: 0, signal: null })
  const sessions = `select count(*) from pg_stat_activity
    where datname = current_database() and application_name in ('bossbus', 'postgres.js')`
  await until('no session is left', async () => (await count(sessions)) === 0)
})

test('a case that a killed process had not begun is opened by the next one, once', async () => {
  const { url, count } = await createTestDatabase()
  const killed = await startDemo(url)
  // The relay needs the subscriptions to hand an event over: it waits here, and what it has begun is rolled back.
  const blocker = new pg.Client({ connectionString: url })
  await blocker.connect()
  onTestFinished(async () => blocker.end())
  await blocker.query('begin')
  await blocker.query('lock table bus.subscriptions in access exclusive mode')
  const paymentId = await pay(killed)
  killed.kill('SIGKILL')
  expect(await killed.ended).toEqual({ code: null, signal: 'SIGKILL' })
  await blocker.query('rollback')
  expect(await count('select count(*) from demo.cases')).toBe(0)
  expect(await count('select count(*) from bus.outbox')).toBe(1)

  const next = await startDemo(url)
  await until('the case is open', async () => (await casesOf(next, paymentId)).length > 0)
  await until('the receipt is there', async () => (await count('select count(*) from bus.deliveries')) === 1)
  expect(await casesOf(next, paymentId)).toHaveLength(1)
  expect(await count('select count(*) from bus.outbox')).toBe(0)
})

test('a case that a killed process had begun is opened by the next one, once', async () => {
  const { url, count, rows } = await createTestDatabase()
  const killed = await startDemo(url, { DEMO_CASE_DELAY_MS: '50000' })
  const paymentId = await pay(killed)
  await until('the handler runs', () => killed.output().includes('opens in 50000 ms'))
  killed.kill('SIGKILL')
  expect(await killed.ended).toEqual({ code: null, signal: 'SIGKILL' })
  expect(await count('select count(*) from demo.cases')).toBe(0)
  // Half a minute passes, in which nothing was heard of the dead process.
  await rows(
    `update pgboss.job set heartbeat_on = heartbeat_on - interval '31 seconds' where state = 'active'`,
  )

  const next = await startDemo(url)
  await until('the case is open', async () => (await casesOf(next, paymentId)).length > 0)
  await until('the receipt is there', async () => (await count('select count(*) from bus.deliveries')) === 1)
  expect(await casesOf(next, paymentId)).toHaveLength(1)
})

test(
  'Ctrl-C while a handler runs lets it finish; a second one leaves at once with 130',
  { tags: ['slow'] },
  async () => {
    const { url, count } = await createTestDatabase()
    const patient = await startDemo(url, { DEMO_CASE_DELAY_MS: '3000' })
    await pay(patient)
    await until('the handler runs', () => patient.output().includes('opens in 3000 ms'))
    expect(await count('select count(*) from demo.cases')).toBe(0)
    patient.kill('SIGINT')
    expect(await patient.ended).toEqual({ code: 0, signal: null })
    expect(await count('select count(*) from demo.cases')).toBe(1)

    const hurried = await startDemo(url, { DEMO_CASE_DELAY_MS: '50000' })
    await pay(hurried)
    await until('the handler runs', () => hurried.output().includes('opens in 50000 ms'))
    hurried.kill('SIGINT')
    const pressedAt = performance.now()
    await until('it is stopping', () => hurried.output().includes('Stopping'))
    // npm passes Ctrl-C on, so what comes within half a second is taken for the same one.
    await until('another Ctrl-C is another', () => performance.now() - pressedAt > 1000)
    hurried.kill('SIGINT')
    expect(await hurried.ended).toEqual({ code: 130, signal: null })
  },
)

test('--drive plays payments and prints how soon each case was open', async () => {
  const { url } = await createTestDatabase()
  const demo = await startDemo(url, {}, ['--drive'])
  await until('two cases are open', () =>
    /#2 payment \S+ verified, its case opened [\d.]+ ms later/.test(demo.output()),
  )
  demo.kill('SIGINT')
  expect(await demo.ended).toEqual({ code: 0, signal: null })
  expect(demo.output()).toMatch(/\d+ payments, commit to case: median [\d.]+ ms/)
})

test.each([
  ['a port in use', { PORT: 'taken' }, [], /^Port \d+ is in use\. .*\n$/],
  [
    'a port that is none',
    { PORT: 'http' },
    [],
    /^Expected PORT to be an integer from 0 to 65535, got "http"\n$/,
  ],
  [
    'a database that does not answer',
    { DATABASE_URL: 'postgres://127.0.0.1:1/x' },
    [],
    /^The server of DATABASE_URL/,
  ],
  ['an unknown argument', {}, ['--dirve'], /^Unknown option '--dirve'/],
])(
  'the demo says what is wrong and ends with 1: %s',
  async (_, environment: NodeJS.ProcessEnv, args, said) => {
    const { url } = await createTestDatabase()
    const other = createServer()
    other.listen(0, '127.0.0.1')
    await once(other, 'listening')
    onTestFinished(() => void other.close())
    const taken =
      environment['PORT'] === 'taken' ? { PORT: String((other.address() as AddressInfo).port) } : {}
    const demo = spawnDemo(url, { ...environment, ...taken }, args)
    expect(await demo.ended).toEqual({ code: 1, signal: null })
    expect(demo.output()).toMatch(said)
    expect(demo.output().trim().split('\n')).toHaveLength(1)
  },
)
