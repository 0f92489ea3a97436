import crypto from 'node:crypto'
import dns from 'node:dns'
import { chmod, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { afterEach, describe, expect, onTestFinished, test, vi } from 'vitest'
import type { BusHealth, BusOptions } from '../../src/index.ts'
import { recordingLogger, testBus, type paymentEvents } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { authenticationRequests, startStrangeServer } from '../support/strange-server.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'
import { hasOpenssl, startTlsServer } from '../support/tls-server.ts'
import { roomFor } from '../support/slowness.ts'

type DatabaseOption = BusOptions<typeof paymentEvents>['database']

const note = (payload: unknown) => ({ type: 'note', tenantId: 'a', payload }) as const

/** Longest that all of it may take where connecting fails at once, on a busy machine. */
const quickMs = 12_000

afterEach(() => {
  vi.restoreAllMocks()
  vi.unstubAllEnvs()
})

async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'bossbus-connect-'))
  onTestFinished(async () => rm(folder, { recursive: true, force: true }))
  return folder
}

interface Answers {
  readonly published: readonly unknown[]
  readonly health: BusHealth
  readonly failures: readonly unknown[]
  readonly state: string
  readonly wasQuick: boolean
  readonly log: string
}

/**
 * Asks everything of a bus that connects, and stops it. What is thrown where nobody can catch it, vitest finds.
 */
async function tryEverything(database: DatabaseOption): Promise<Answers> {
  const logger = recordingLogger()
  const bus = testBus(database, { logger })
  const beganAt = performance.now()
  // More at a time than the pool has room for: some connections are opened for who waits.
  const published = await Promise.all(Array.from({ length: 25 }, async () => bus.tryPublish(note(1))))
  const health = await bus.health()
  const failures: unknown[] = []
  for (const attempt of [async () => bus.migrate(), async () => bus.start()])
    await attempt().catch((error: unknown) => failures.push(error))
  await bus.stop({ graceMs: 0 })
  const wasQuick = performance.now() - beganAt < quickMs
  return { published, health, failures, state: bus.state, wasQuick, log: JSON.stringify(logger.lines) }
}

/** What {@link tryEverything} gives where there is no connection. */
function unavailable(reason: RegExp): object {
  const failure = {
    code: 'BUS_DATABASE_UNAVAILABLE',
    retryable: true,
    message: expect.stringMatching(reason) as string,
  }
  return {
    published: Array.from({ length: 25 }, () => undefined),
    health: { ok: false, database: 'down', failedTryPublishCount: 25 },
    failures: [failure, failure],
    state: 'stopped',
    wasQuick: true,
    log: expect.not.stringContaining('hunter2') as string,
  }
}

describe('a connection that cannot be made is an answer like any other', () => {
  const nowhere = 'postgres://ada:hunter2@127.0.0.1:1/shop'

  test.each<[string, DatabaseOption, RegExp]>([
    ['nobody listens', nowhere, /ECONNREFUSED/],
    ['the name is unknown', 'postgres://ada:hunter2@nowhere.invalid/shop', /nowhere\.invalid/],
    ['there is no socket', { host: '/nowhere', user: 'ada' }, /ENOENT/],
    ['the path of the socket is too long', { host: `/${'x'.repeat(200)}`, user: 'ada' }, /./],
    ['the authority is not there', `${nowhere}?sslrootcert=/nowhere/ca.pem`, /ENOENT.*\/nowhere\/ca\.pem/],
    ['the key is a folder', `${nowhere}?sslmode=verify-full&sslkey=${tmpdir()}`, /EISDIR/],
    [
      'the stream throws',
      {
        stream: () => {
          throw new Error('no tunnel')
        },
      },
      /no tunnel/,
    ],
    ['the stream is none', { stream: () => undefined }, /./],
    [
      'the function throws',
      () => {
        throw new Error('no secret')
      },
      /no secret/,
    ],
    ['the function rejects with nothing', async () => Promise.reject<string>(undefined), /./],
  ])('%s', async (_what, database, reason) => {
    expect(await tryEverything(database)).toMatchObject(unavailable(reason))
  })

  test.each<[string, Buffer, pg.PoolConfig, RegExp]>([
    ['clear text, and there is no password', authenticationRequests.clearText, {}, /./],
    ['SCRAM, and there is no password', authenticationRequests.scram, {}, /./],
    [
      'clear text, and the function throws',
      authenticationRequests.clearText,
      {
        password: () => {
          throw new Error('no token')
        },
      },
      /no token/,
    ],
    [
      'SCRAM, and the function rejects',
      authenticationRequests.scram,
      { password: async () => Promise.reject(new Error('no token')) },
      /no token/,
    ],
    [
      'clear text, and the function rejects with nothing',
      authenticationRequests.clearText,
      { password: async () => Promise.reject<string>(undefined) },
      /no reason/,
    ],
    [
      'clear text, and the function throws a text',
      authenticationRequests.clearText,
      { password: async () => Promise.reject<string>('no token') },
      /no token/,
    ],
    [
      'clear text, and the function gives a number',
      authenticationRequests.clearText,
      { password: (() => 42) as never },
      /must be a string/,
    ],
    ['something that is no answer', Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'), {}, /./],
  ])('the server asks for %s', async (_what, answer, config, reason) => {
    const server = await startStrangeServer(answer)
    expect(
      await tryEverything({ connectionString: server.url, connectionTimeoutMillis: 500, ...config }),
    ).toMatchObject(unavailable(reason))
    await until('no socket is left', () => server.connectionCount === 0)
  })

  test('the server asks for MD5, and this process may not use it', async () => {
    vi.spyOn(crypto, 'createHash').mockImplementation(() => {
      throw new Error('no such digest')
    })
    vi.spyOn(crypto.webcrypto.subtle, 'digest').mockRejectedValue(new Error('no such digest'))
    const server = await startStrangeServer(authenticationRequests.md5)
    expect(
      await tryEverything({ connectionString: server.url, connectionTimeoutMillis: 500, password: 'x' }),
    ).toMatchObject(unavailable(/no such digest/))
  })

  test('the server has no TLS', async () => {
    const { url } = await createTestDatabase()
    expect(await tryEverything(`${url}?sslmode=require`)).toMatchObject(unavailable(/does not support SSL/))
  })

  test('the server refuses an option, the role or the database', async () => {
    const { url } = await createTestDatabase()
    expect(await tryEverything(`${url}?options=-c%20nonsense%3D1`)).toMatchObject(unavailable(/nonsense/))
    expect(await tryEverything(`${url}?user=nobody_of_that_name`)).toMatchObject(
      unavailable(/nobody_of_that_name/),
    )
    expect(await tryEverything(`${url}_not_there`)).toMatchObject(unavailable(/does not exist/))
  })
})

describe('a stop ends in time', () => {
  /** The bound of the promise, and room for a busy machine. */
  const boundMs = 6000 + 3000

  test.each([
    [
      'the name is never resolved',
      { connectionString: 'postgres://ada@hangs.invalid/shop', connectionTimeoutMillis: 0 },
    ],
    ['the function never answers', async () => new Promise<string>(() => {})],
  ] satisfies [string, DatabaseOption][])('while %s', async (_what, database) => {
    vi.spyOn(dns, 'lookup').mockImplementation(() => {})
    const bus = testBus(database)
    const starting = bus.start().catch((error: unknown) => error)
    const beganAt = performance.now()
    await bus.stop({ graceMs: 0 })
    expect(performance.now() - beganAt).toBeLessThan(roomFor(boundMs))
    expect(bus.state).toBe('stopped')
    expect(await starting).toMatchObject({ code: 'BUS_DATABASE_UNAVAILABLE' })
    expect(bus.state).toBe('stopped')
    expect(await bus.tryPublish(note(1))).toBeUndefined()
    expect(await bus.health()).toMatchObject({ ok: false, database: 'down' })
  })

  const notStarted = { code: 'BUS_DATABASE_UNAVAILABLE' }
  const aborted = { code: 'BUS_HANDLER_TIMEOUT' }

  test.each([
    ['before the start', { startError: undefined, abortReason: undefined }],
    ['while it starts', { startError: notStarted, abortReason: undefined }],
    ['when it is started', { startError: undefined, abortReason: aborted }],
  ])('where the server says nothing any more, %s', async (when, expected) => {
    const database = await createTestDatabase()
    const proxy = await startTcpProxy(database.url)
    const bus = testBus({ connectionString: proxy.url, connectionTimeoutMillis: 0 })
    let abortReason: unknown
    const begun = Promise.withResolvers<void>()
    bus.subscribe({
      name: 'slow',
      events: ['note'],
      mode: 'exactly-once',
      handler: async (_event, { signal }) => {
        begun.resolve()
        await once(signal, 'abort')
        abortReason = signal.reason
      },
    })
    let starting: Promise<unknown> = Promise.resolve()
    if (when === 'when it is started') {
      await bus.start()
      await bus.tryPublish(note(1))
      await begun.promise
    }
    proxy.refuseService(true)
    proxy.freeze()
    if (when === 'while it starts') starting = bus.start().catch((error: unknown) => error)
    const beganAt = performance.now()
    await bus.stop({ graceMs: 500 })
    expect(performance.now() - beganAt).toBeLessThan(roomFor(500 + boundMs))
    expect(bus.state).toBe('stopped')
    expect({ startError: await starting, abortReason }).toMatchObject(expected)
    await until('nothing is connected', () => proxy.connectionCount === 0)
  })
})

test.skipIf(!hasOpenssl)(
  'a running bus whose file of certificates is away for a moment goes on when it is back',
  async () => {
    const server = await startTlsServer()
    const caFile = join(await temporaryFolder(), 'ca.pem')
    await rename(server.caFile, caFile)
    const bus = testBus(`${server.url}?sslmode=verify-full&sslrootcert=${caFile}`)
    const seen: unknown[] = []
    bus.subscribe({ name: 'seen', events: ['note'], handler: ({ payload }) => void seen.push(payload) })
    await bus.start()
    expect(await server.count('select count(*) from pg_stat_ssl where ssl')).toBeGreaterThan(0)
    await bus.tryPublish(note(1))
    await until('it is delivered', () => seen.length === 1)
    await rename(caFile, `${caFile}.away`)
    await server.rows(
      `select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'bossbus'`,
    )
    await until('health says so', async () => !(await bus.health()).ok)
    expect(await bus.tryPublish(note(2))).toBeUndefined()
    await writeFile(caFile, 'no certificate')
    expect(await bus.tryPublish(note(2))).toBeUndefined()
    expect(await bus.health()).toMatchObject({ ok: false, database: 'down' })
    await rename(`${caFile}.away`, caFile)
    await until('health is good', async () => (await bus.health()).ok)
    await bus.tryPublish(note(3))
    await until('it is delivered', () => seen.length === 2)
    // One that the system does not know either is refused, not taken unseen.
    await expect(testBus(`${server.url}?sslrootcert=system`).start()).rejects.toMatchObject({
      code: 'BUS_DATABASE_UNAVAILABLE',
      retryable: true,
      message: expect.stringMatching(/self.signed|unable to verify/i) as string,
    })
    expect(await testBus(`${server.url}?sslmode=no-verify`).health()).toMatchObject({ database: 'up' })
  },
)

test.skipIf(!hasOpenssl)(
  'a password is taken over TLS, with the channel bound to it, and a wrong one is tried again',
  async () => {
    const server = await startTlsServer()
    await server.rows(`create role ada login superuser password 'p#/?@%w'`)
    const [row] = await server.rows('show hba_file')
    const file = String(row?.['hba_file'])
    await writeFile(file, `hostssl all ada all scram-sha-256\n${await readFile(file, 'utf8')}`)
    await server.rows('select pg_reload_conf()')
    const { host, pathname } = new URL(server.url)
    const query = `sslmode=verify-full&sslrootcert=${server.caFile}&channel_binding=require`
    const url = (password: string): string =>
      `postgres://ada:${encodeURIComponent(password)}@${host}${pathname}?${query}`
    let password = 'wrong'
    const bus = testBus(() => url(password))
    expect(await bus.tryPublish(note(1))).toBeUndefined()
    await expect(bus.start()).rejects.toMatchObject({
      code: 'BUS_DATABASE_UNAVAILABLE',
      sqlState: '28P01',
      retryable: true,
    })
    password = 'p#/?@%w'
    await bus.start()
    expect(await bus.tryPublish(note(1))).toMatchObject({ duplicate: false })
  },
)

test('of several hosts the bus takes the first that takes writes', async () => {
  const database = await createTestDatabase()
  const first = await startTcpProxy(database.url)
  const second = await startTcpProxy(database.url)
  const { pathname, username, host } = new URL(database.url)
  const hostOf = (url: string): string => new URL(url).host
  const url = (hosts: string): string =>
    `postgres://${username}@${hosts}${pathname}?target_session_attrs=read-write`
  const bus = testBus(url(`127.0.0.1:1,${hostOf(first.url)},${hostOf(second.url)}`))
  const seen: unknown[] = []
  bus.subscribe({ name: 'seen', events: ['note'], handler: ({ payload }) => void seen.push(payload) })
  await bus.start()
  await bus.tryPublish(note(1))
  await until('it is delivered', () => seen.length === 1)
  first.refuseService(true)
  first.cut()
  await until('it goes on at the other', async () => (await bus.tryPublish(note(2))) !== undefined)
  await until('it is delivered', () => seen.length === 2)
  // What a role says of its transactions is none of the server's: the bus says it itself.
  await database
    .rows(`create role reader login; alter role reader set default_transaction_read_only = on`)
    .catch(() => {})
  onTestFinished(async () => void (await database.rows('drop role if exists reader').catch(() => {})))
  const reading = testBus(
    `postgres://reader@${hostOf(second.url)},${host}${pathname}?target_session_attrs=read-write`,
  )
  expect(await reading.health()).toMatchObject({ database: 'up' })
})

test('the password may come from the file that PGPASSFILE names', async () => {
  const passwords: (string | null)[] = []
  const file = join(await temporaryFolder(), 'pgpass')
  vi.stubEnv('PGPASSFILE', file)
  const server = await startStrangeServer(authenticationRequests.clearText)
  const { port } = new URL(server.url)
  await writeFile(file, `127.0.0.1:1:shop:ada:other\n127.0.0.1:${port}:shop:ada:first\n`)
  await chmod(file, 0o600)
  const bus = testBus({ connectionString: server.url, connectionTimeoutMillis: 300 })
  const connection = pg.Connection.prototype as unknown as { password: (text: string) => void }
  const { password } = connection
  vi.spyOn(connection, 'password').mockImplementation(function (this: unknown, text) {
    passwords.push(text)
    password.call(this, text)
  })
  await bus.health()
  expect(passwords).toEqual(['first'])
})
