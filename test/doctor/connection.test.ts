import { networkInterfaces } from 'node:os'
import { createServer, Socket, type AddressInfo } from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import { examine } from '../../src/doctor/doctor.ts'
import { createTestDatabase } from '../support/database.ts'
import { codesIn, codesOf, findingOf } from '../support/doctor.ts'
import { pgbouncerPath, startPgbouncer } from '../support/pgbouncer.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'
import { hasOpenssl, startTlsServer } from '../support/tls-server.ts'

test.skipIf(pgbouncerPath === undefined)(
  'pooler-in-transaction-mode, prepared-statements-lost and time-limits-behind-pooler: the bus behind a pooler',
  async () => {
    const database = await createTestDatabase()
    const name = new URL(database.url).pathname.slice(1)
    await database.rows(`alter database ${name} set statement_timeout = '30s'`)
    expect(await codesOf(database.url)).toEqual([])
    const report = await examine({ database: await startPgbouncer(database.url, 'transaction') })
    expect(codesIn(report)).toEqual([
      'prepared-statements-lost',
      'time-limits-behind-pooler',
      'pooler-in-transaction-mode',
    ])
    expect(report.facts.isPooled).toBe(true)
    expect(report.findings.find(({ code }) => code === 'prepared-statements-lost')).toMatchObject({
      severity: 'error',
      remedy: expect.stringContaining('prepare: false') as string,
    })
    expect(report.findings.find(({ code }) => code === 'time-limits-behind-pooler')?.data).toEqual({
      milliseconds: { statement_timeout: 30_000 },
    })
  },
)

test.skipIf(pgbouncerPath === undefined)(
  'a service behind a pooler, and a bus with a direct URL',
  async () => {
    const { url } = await createTestDatabase()
    const transactions = await startPgbouncer(url, 'transaction')
    expect(await codesOf(url, { serviceDatabase: transactions })).toEqual(['prepared-statements-lost'])
    const sessions = await startPgbouncer(url, 'session')
    expect(await codesOf(url, { serviceDatabase: sessions })).toEqual([])
    expect(await codesOf(sessions)).toEqual([])
  },
)

test.skipIf(pgbouncerPath === undefined)(
  'few free connections are no finding behind a pooler, which has its connections',
  async () => {
    const database = await createTestDatabase()
    await database.rows(`alter database ${new URL(database.url).pathname.slice(1)} connection limit 12`)
    expect(await codesOf(database.url)).toContain('connections-scarce')
    expect(await codesOf(await startPgbouncer(database.url, 'session'))).not.toContain('connections-scarce')
  },
)

test('a service that cannot be reached is not checked', async () => {
  const { url } = await createTestDatabase()
  const nobody = Object.assign(new URL(url), { port: '1' }).toString()
  expect(await findingOf(url, 'not-checked', { serviceDatabase: nobody })).toMatchObject({
    data: { check: 'prepared statements of the service' },
  })
})

test.skipIf(pgbouncerPath === undefined)(
  'setting-unsupported: behind a pooler the bus cannot set what it needs',
  async () => {
    const database = await createTestDatabase()
    const name = new URL(database.url).pathname.slice(1)
    await database.rows(`alter database ${name} set default_transaction_isolation = 'serializable'`)
    expect(await codesOf(database.url)).toEqual([])
    const finding = await findingOf(await startPgbouncer(database.url, 'transaction'), 'setting-unsupported')
    expect(finding).toMatchObject({
      severity: 'error',
      data: {
        settings: [
          { name: 'default_transaction_isolation', value: 'serializable', wanted: 'read committed' },
        ],
      },
    })
    expect(finding.remedy).toContain(`set default_transaction_isolation = 'read committed';`)
  },
)

test.skipIf(pgbouncerPath === undefined)(
  'setting-unsupported: a search path of the service keeps its other schemas',
  async () => {
    const database = await createTestDatabase()
    const name = new URL(database.url).pathname.slice(1)
    await database.rows(`alter database ${name} set search_path = "$user", public, pg_catalog`)
    expect(await codesOf(database.url)).toEqual([])
    const finding = await findingOf(await startPgbouncer(database.url, 'transaction'), 'setting-unsupported')
    expect(finding.remedy).toMatch(/^alter role "\w+" in database "\w+" set search_path = "\$user", public;$/)
  },
)

test('round-trip-slow: a server that is far away', async () => {
  const { url } = await createTestDatabase()
  const proxy = await startTcpProxy(url)
  expect(await codesOf(proxy.url)).not.toContain('round-trip-slow')
  proxy.delay(15)
  const finding = await findingOf(proxy.url, 'round-trip-slow')
  expect(finding.severity).toBe('warning')
  expect(finding.data['roundTripMs']).toBeGreaterThanOrEqual(30)
})

/** An address of this machine that is not the loopback. */
const address = Object.values(networkInterfaces())
  .flat()
  .find((each) => each !== undefined && !each.internal && each.family === 'IPv4')?.address

/** Forwards what comes to an address of the network. */
async function forwardTo(databaseUrl: string): Promise<string> {
  const target = new URL(databaseUrl)
  const server = createServer((inward) => {
    const outward = new Socket().connect(Number(target.port), target.hostname)
    for (const socket of [inward, outward]) {
      socket.on('error', () => {})
      socket.on('close', () => {
        inward.destroy()
        outward.destroy()
      })
    }
    inward.pipe(outward).pipe(inward)
  })
  await new Promise<void>((resolve) => {
    server.listen(0, address, resolve)
  })
  onTestFinished(() => void server.close())
  return Object.assign(new URL(databaseUrl), {
    host: `${address}:${(server.address() as AddressInfo).port}`,
  }).toString()
}

test.skipIf(address === undefined || !hasOpenssl)(
  'not-encrypted: over a network in the clear, and not with TLS or on this machine',
  async () => {
    const { url } = await startTlsServer()
    expect(await codesOf(url)).not.toContain('not-encrypted')
    const forwarded = await forwardTo(url)
    expect(await findingOf(forwarded, 'not-encrypted')).toMatchObject({ severity: 'info', data: { address } })
    expect(await codesOf(`${forwarded}?sslmode=no-verify`)).not.toContain('not-encrypted')
  },
)
