// @module-tag slow
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFile, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { createDatabase } from '../../src/database/database.ts'
import { keepaliveSettings } from '../../src/database/configuration/keepalive.ts'
import { pinSql } from '../../src/database/session-settings.ts'
import { startOwnPostgres } from '../../src/testing/postgres.ts'
import { createBus } from '../../src/index.ts'
import { paymentEvents, recordingLogger, testBus, type PaymentBus } from '../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { isFullForm } from '../support/form.ts'
import { recordFigure } from '../support/figures.ts'
import { startProgram } from '../support/processes.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'
import { roomFor } from '../support/slowness.ts'
import { locks } from '../../src/database/locks.ts'

const note = (payload: unknown) => ({ type: 'note', tenantId: 'a', payload }) as const

/** Bounds of docs/drivers.md. */
const healthMs = 5000
const recoveryMs = 10_000
const stopMarginMs = 6000

/** Room for a busy machine. */
const roomMs = 3000

const sessions = `select count(*) from pg_stat_activity
  where datname = current_database() and application_name like 'bossbus%'`

const leaders = `select count(*) from pg_locks join pg_database d on d.oid = database
  where locktype = 'advisory' and classid = ${locks.namespace} and objid = ${locks.leader} and granted
    and d.datname = current_database()`

async function publish(
  { db }: TestDatabase,
  bus: PaymentBus,
  ...payloads: readonly unknown[]
): Promise<void> {
  await db.transaction(async (tx) => bus.publishMany(tx, payloads.map(note)))
}

test('health is good again after the relay has lost a backend, although events come all the time', async () => {
  const database = await createTestDatabase()
  const proxy = await startTcpProxy(database.url)
  const logger = recordingLogger()
  const near = testBus(database.url)
  const bus = testBus({ connectionString: proxy.url, application_name: 'bossbus-far' }, { logger })
  let deliveredCount = 0
  for (const each of [near, bus])
    each.subscribe({ name: 'seen', events: ['note'], handler: () => void (deliveredCount += 1) })
  await near.start()
  await until('it leads', async () => (await near.health()).relay === 'sleeping')
  await bus.start()
  await until('it does not lead', async () => (await bus.health()).relay === 'standby')
  proxy.delay(20)
  // 80 a second: each rings, and there is always a ring when the far relay is done with what came before.
  const publishing = new Set<Promise<void>>()
  const timer = setInterval(() => {
    const published = publish(database, bus, 0).finally(() => publishing.delete(published))
    publishing.add(published)
  }, 12)
  onTestFinished(() => clearInterval(timer))
  await until('events flow', () => deliveredCount > 50)
  const hasFailed = (): boolean =>
    logger.lines.some(({ message }) => message.startsWith('the relay failed to dispatch events'))
  await until('the relay has failed', async () => {
    await database.rows(`select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and application_name = 'bossbus-far' and state <> 'idle' and query like '%bus.outbox%'`)
    return hasFailed()
  })
  const before = deliveredCount
  await until('events flow again', () => deliveredCount > before + 50)
  expect((await bus.health()).relay).not.toBe('failing')
  await until('health is good', async () => (await bus.health()).ok)
  clearInterval(timer)
  await Promise.all(publishing)
})

/** Nothing at all goes through in the tests below, too. */
const cuts = [
  [['to server']],
  [['to client']],
  ...(isFullForm ? ([[['to server', 'to client']]] as const) : []),
] as const

test.each(cuts)(
  'after a network that let nothing through %j for a while, everything is delivered once',
  async (directions) => {
    const database = await createTestDatabase()
    const proxy = await startTcpProxy(database.url)
    const bus = testBus(proxy.url)
    const seen = new Set<unknown>()
    bus.subscribe({ name: 'seen', events: ['note'], handler: ({ payload }) => void seen.add(payload) })
    await bus.start()
    await publish(database, bus, 1, 2, 3)
    await until('they are delivered', () => seen.size === 3)
    const countBefore = await database.count(sessions)

    proxy.hold(...directions)
    const cutAt = performance.now()
    await publish(database, bus, 4, 5, 6)
    const [health, published] = await Promise.all([bus.health(), bus.tryPublish(note('try'))])
    expect(health).toMatchObject({ ok: false, database: 'down' })
    expect(published).toBeUndefined()
    expect(performance.now() - cutAt).toBeLessThan(roomFor(healthMs + roomMs))
    await pause(isFullForm ? 60_000 : 1000)
    proxy.release()
    const backAt = performance.now()
    await until('the rest is delivered', () => seen.size >= 6)
    await until('health is good, and it listens', async () => {
      const { ok, listening } = await bus.health()
      return ok && listening
    })
    const tookMs = Math.round(performance.now() - backAt)
    expect(tookMs).toBeLessThan(roomFor(recoveryMs + roomMs))
    await until('it leads again', async () => (await database.count(leaders)) === 1)
    await until(
      'the sessions of before are gone',
      async () => (await database.count(sessions)) <= countBefore + 10,
    )
    // What was sent of a tryPublish may arrive when the network is back.
    await until('each has its receipt, once', async () => {
      const [receipts] = await database.rows(
        `select count(*)::int as count, count(distinct event_id)::int as events from bus.deliveries`,
      )
      return receipts?.['count'] === seen.size && receipts['events'] === seen.size
    })
    recordFigure(
      `nothing let through ${directions.join(' and ')}`,
      `health is good ${tookMs} ms after it was back`,
    )
  },
)

test('handlers are aborted while the database is out of reach, when their claims have run out, and no attempt is burnt', async () => {
  const database = await createTestDatabase()
  const proxy = await startTcpProxy(database.url)
  const logger = recordingLogger()
  const [far, near] = [testBus(proxy.url, { logger }), testBus(database.url)]
  const begun = new Set<string>()
  const aborted = new Map<string, unknown>()
  const delivered: string[] = []
  const common = { events: ['note'], heartbeatSeconds: 10, retry: { maxAttempts: 1 } } as const
  const kinds = [
    ['plain', { mode: 'at-least-once' }],
    ['ordered', { mode: 'at-least-once', ordered: true }],
    ['once', { mode: 'exactly-once' }],
    // It goes on, and is done in the end.
    ['deaf', { mode: 'at-least-once' }],
  ] as const
  for (const [name, more] of kinds) {
    const isDeaf = name === 'deaf'
    const mayEnd = Promise.withResolvers<void>()
    far.subscribe({
      ...{ ...common, ...more, name },
      handler: async (_event, { signal }) => {
        begun.add(name)
        await once(signal, 'abort')
        aborted.set(name, signal.reason)
        if (isDeaf) return mayEnd.resolve()
        throw signal.reason
      },
    })
    near.subscribe({
      ...{ ...common, ...more, name },
      handler: async () => void delivered.push(name),
    })
  }
  await far.start()
  await database.db.transaction(async (tx) => far.publish(tx, { ...note(1), orderingKey: 'k' }))
  await until('all handlers run', () => begun.size === kinds.length)
  proxy.hold('to server', 'to client')
  const cutAt = performance.now()
  await near.start()
  await until('all are aborted', () => aborted.size === kinds.length)
  // One heartbeat may have been on its way; the claim is looked at each second.
  const abortedMs = Math.round(performance.now() - cutAt)
  expect(abortedMs).toBeLessThan(roomFor(10_000 + 1000 + roomMs))
  for (const reason of aborted.values())
    expect(reason).toMatchObject({
      code: 'BUS_HANDLER_TIMEOUT',
      message: expect.stringContaining('claim expired') as string,
    })
  await until(
    'another process has taken them over',
    async () => (await database.count('select count(*) from bus.deliveries')) === kinds.length,
  )
  expect(delivered.toSorted()).toEqual(kinds.map(([name]) => name).toSorted())
  proxy.release()
  await until('health is good', async () => (await far.health()).ok)
  await far.stop({ graceMs: 1000 })
  // Of the single attempt that each may have, the one that was cut off is none.
  expect(await database.count('select count(*) from bus.deliveries')).toBe(kinds.length)
  expect(await database.count(`select count(*) from pgboss.job where name like '%.dead'`)).toBe(0)
  expect(logger.lines.map(({ message }) => message)).toContain(
    'the database was unreachable for as long as a claim lasts: handlers are aborted',
  )
  recordFigure('a worker cut off, heartbeatSeconds: 10', `its handlers are aborted after ${abortedMs} ms`)
})

test('what a handler finishes after it was aborted counts, if nobody has taken it over', async () => {
  const database = await createTestDatabase()
  const proxy = await startTcpProxy(database.url)
  const bus = testBus(proxy.url)
  let runs = 0
  const finished = Promise.withResolvers<void>()
  bus.subscribe({
    ...{ name: 'seen', events: ['note'], heartbeatSeconds: 10 },
    handler: async (_event, { signal }) => {
      runs += 1
      await once(signal, 'abort')
      finished.resolve()
    },
  })
  await bus.start()
  await publish(database, bus, 1)
  await until('it runs', () => runs === 1)
  proxy.hold('to server', 'to client')
  await finished.promise
  proxy.release()
  await until(
    'it is delivered',
    async () => (await database.count('select count(*) from bus.deliveries')) === 1,
  )
  expect(runs).toBe(1)
})

test.each(isFullForm ? ['plain', 'signals'] : ['signals'])(
  'a process (%s) that is told to stop while it is cut off ends in time',
  async (how) => {
    const database = await createTestDatabase()
    const proxy = await startTcpProxy(database.url)
    const folder = await mkdtemp(join(tmpdir(), 'bossbus-cut-'))
    onTestFinished(async () => rm(folder, { recursive: true, force: true }))
    const program = await startProgram('stopping-process.ts', proxy.url, folder, how)
    const publisher = testBus(database.url)
    await publish(database, publisher, ...Array.from({ length: 100 }, (_, n) => n))
    await until(
      'it is at work',
      async () => (await database.count('select count(*) from bus.deliveries')) > 0,
    )
    proxy.hold('to server', 'to client')
    const cutAt = performance.now()
    program.child.kill('SIGTERM')
    expect(await program.exited).toBe(0)
    // Its grace is five seconds.
    expect(performance.now() - cutAt).toBeLessThan(roomFor(5000 + stopMarginMs + roomMs))
  },
)

test('every connection of the bus tells the server when to give it up', async () => {
  const { url } = await createTestDatabase()
  const own = createDatabase(url, recordingLogger())
  onTestFinished(async () => own.close())
  const handlerPool = own.openHandlerPool()
  onTestFinished(async () => handlerPool.end())
  const session = await own.openSession()
  const names = Object.keys(keepaliveSettings)
  const settings = `select name, current_setting(name) as value from unnest($1::text[]) as name`
  const expected = [
    { name: 'tcp_keepalives_idle', value: '15' },
    { name: 'tcp_keepalives_interval', value: '5' },
    { name: 'tcp_keepalives_count', value: '3' },
    { name: 'tcp_user_timeout', value: '30000' },
  ]
  const { rows: ofPool } = await own.query(settings, [names])
  const { rows: ofHandlers } = await handlerPool.query(settings, [names])
  const { rows: ofSession } = await session.query(settings, [names])
  expect([ofPool, ofHandlers, ofSession]).toEqual([expected, expected, expected])
  // Behind a pooler the process id is another one: nothing is left behind on its connection.
  await session.query(`reset tcp_user_timeout`)
  expect((await session.query(pinSql('bus', 1, []))).rows).toEqual([])
  const { rows } = await session.query(settings, [['tcp_user_timeout']])
  expect(rows).toEqual([{ name: 'tcp_user_timeout', value: '0' }])
})

/** Whether this process may make a network of its own, to cut: as root, on Linux, with iproute2. */
const canCutNetworks = ((): boolean => {
  try {
    execFileSync('ip', ['netns', 'add', 'bossbus-probe'], { stdio: 'ignore' })
    execFileSync('ip', ['netns', 'del', 'bossbus-probe'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
})()

test.skipIf(!canCutNetworks || !isFullForm)(
  'the sessions of a worker behind a cut cable end after half a minute, and its leadership with them',
  async () => {
    const [space, outer, inner] = ['bossbus-cut', 'bossbus-out', 'bossbus-in']
    const ip = (...args: readonly string[]): void => void execFileSync('ip', args, { stdio: 'pipe' })
    const clean = (): void => {
      for (const args of [
        ['link', 'del', outer],
        ['netns', 'del', space],
      ]) {
        try {
          ip(...args)
        } catch {
          // It is gone already.
        }
      }
    }
    clean()
    onTestFinished(clean)
    ip('netns', 'add', space)
    ip('link', 'add', outer, 'type', 'veth', 'peer', 'name', inner)
    ip('link', 'set', inner, 'netns', space)
    ip('addr', 'add', '10.213.77.1/24', 'dev', outer)
    ip('link', 'set', outer, 'up')
    ip('netns', 'exec', space, 'ip', 'addr', 'add', '10.213.77.2/24', 'dev', inner)
    ip('netns', 'exec', space, 'ip', 'link', 'set', inner, 'up')

    const server = await startOwnPostgres(['fsync=off', 'listen_addresses=*'])
    onTestFinished(server.stop)
    const near = createDatabase(server.url, recordingLogger())
    onTestFinished(async () => near.close())
    const { rows: files } = await near.query<{ hba_file: string }>('show hba_file')
    await appendFile(files[0]?.hba_file ?? '', '\nhost all all 10.213.77.0/24 trust\n')
    await near.query('select pg_reload_conf()')
    const bus = createBus({
      database: server.url,
      events: paymentEvents,
      source: 'tests',
      logger: recordingLogger(),
    })
    onTestFinished(async () => bus.stop({ graceMs: 1000 }))
    await bus.migrate()

    const farUrl = new URL(server.url)
    farUrl.hostname = '10.213.77.1'
    const program = fileURLToPath(new URL('../support/holding-process.ts', import.meta.url))
    const child = spawn('ip', ['netns', 'exec', space, process.execPath, program, farUrl.href, 'default'])
    onTestFinished(() => void child.kill('SIGKILL'))
    let output = ''
    child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()))
    const far = `application_name like 'bossbus%' and client_addr = '10.213.77.2'`
    const count = async (text: string): Promise<number> =>
      Number((await near.query<{ count: string }>(text)).rows[0]?.count)
    await until('it has started', () => output.includes('started'))
    await until(
      'it leads',
      async () =>
        (await count(`${leaders} and pid in (select pid from pg_stat_activity where ${far})`)) === 1,
    )
    await bus.tryPublish(note(1))
    await until('it is at work', () => output.includes('holding'))
    ip('link', 'set', outer, 'down')
    const cutAt = performance.now()
    // A notification that nobody acknowledges: from then on no keepalive is sent.
    await bus.tryPublish(note(2))
    const waiting = await count(`select count(*) from pg_stat_activity where ${far}`)
    expect(waiting).toBeGreaterThan(2)
    await until(
      'its sessions are gone',
      async () => (await count(`select count(*) from pg_stat_activity where ${far}`)) === 0,
    )
    const tookMs = Math.round(performance.now() - cutAt)
    expect(tookMs).toBeLessThan(roomFor(40_000))
    expect(await count(leaders)).toBe(0)
    recordFigure(
      'a worker behind a cut cable',
      `its ${waiting} sessions on the server end after ${tookMs} ms`,
    )
    console.log(`${waiting} sessions ended after ${tookMs} ms`)
  },
)
