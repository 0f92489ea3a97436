import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import { sql } from 'drizzle-orm'
import { describe, expect, onTestFinished, test } from 'vitest'
import { NonRetryableError } from '../../src/index.ts'
import { testBus, type PaymentBus } from '../support/bus.ts'
import { createFolder, runCli } from '../support/cli.ts'
import { startCli } from '../support/cli-follow.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { publish } from '../support/ledger.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'

const catalogue = fileURLToPath(new URL('../support/catalogue.ts', import.meta.url))
const configuration = `import { paymentEvents } from ${JSON.stringify(catalogue)}
export default { events: paymentEvents, source: 'payment-service' }
`
const paid = (paymentId: string, tenantId = 'acme') =>
  ({ type: 'payment.paid', tenantId, payload: { paymentId, amountCents: 1 } }) as const

interface Log {
  readonly database: TestDatabase
  readonly bus: PaymentBus
  readonly folder: string
  readonly env: { readonly DATABASE_URL: string }
}

async function createLog(): Promise<Log> {
  const database = await createTestDatabase()
  const folder = await createFolder({ 'bossbus.config.ts': configuration })
  return { database, folder, bus: testBus(database.url), env: { DATABASE_URL: database.url } }
}

const lines = (text: string): Record<string, unknown>[] =>
  text
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Record<string, unknown>)
const ids = (text: string): unknown[] => lines(text).map(({ id }) => id)

/** Publishes until the command shows an event: from then on it follows. */
async function following(
  { database, bus }: Log,
  command: ReturnType<typeof startCli>,
  tenantId = 'acme',
): Promise<void> {
  await until('it follows', async () => {
    await publish(database, bus, paid('begin', tenantId))
    await new Promise((resolve) => setTimeout(resolve, 100))
    return command.written.out !== ''
  })
}

describe('bossbus events tail', () => {
  test('shows events as they are published, in their order, and none from before', async () => {
    const log = await createLog()
    await publish(log.database, log.bus, paid('before'))
    const tail = startCli(log.folder, ['events', 'tail', '--json'], log.env)
    await following(log, tail)
    const published: string[] = []
    for (let i = 0; i < 20; i += 1) published.push(...(await publish(log.database, log.bus, paid(`p${i}`))))
    await tail.says(published.at(-1) ?? '')
    const { code, out } = await tail.interrupt()
    expect(code).toBe(0)
    expect(ids(out).slice(-20)).toEqual(published)
    expect(lines(out)).not.toContainEqual(
      expect.objectContaining({ payload: { paymentId: 'before', amountCents: 1 } }),
    )
    expect(new Set(ids(out)).size).toBe(ids(out).length)
  })

  test('shows an event that is committed late, after newer ones, once; one that is rolled back never', async () => {
    const log = await createLog()
    const early = Promise.withResolvers<string>()
    const mayCommit = Promise.withResolvers<void>()
    // Published before the command begins.
    const transaction = log.database.db.transaction(async (tx) => {
      const { id } = await log.bus.publish(tx, paid('late'))
      early.resolve(id)
      await mayCommit.promise
    })
    const lateId = await early.promise
    const tail = startCli(log.folder, ['events', 'tail', '--json'], log.env)
    await following(log, tail)
    const during = Promise.withResolvers<string>()
    const rolledBack = log.database.db.transaction(async (tx) => {
      // In a savepoint, whose transaction number is another one.
      const { id } = await tx.transaction(async (inner) => log.bus.publish(inner, paid('lost')))
      during.resolve(id)
      await mayCommit.promise
      throw new Error('rolled back')
    })
    const savepoint = Promise.withResolvers<string>()
    const inSavepoint = log.database.db.transaction(async (tx) => {
      const { id } = await tx.transaction(async (inner) => log.bus.publish(inner, paid('in a savepoint')))
      savepoint.resolve(id)
      await mayCommit.promise
    })
    const lostId = await during.promise
    const savepointId = await savepoint.promise
    const [newer = ''] = await publish(log.database, log.bus, paid('newer'))
    await tail.says(newer)
    expect(tail.written.out).not.toContain(lateId)
    mayCommit.resolve()
    await expect(rolledBack).rejects.toThrow('rolled back')
    await Promise.all([transaction, inSavepoint])
    await tail.says(lateId)
    await tail.says(savepointId)
    const [last = ''] = await publish(log.database, log.bus, paid('last'))
    await tail.says(last)
    const { out } = await tail.interrupt()
    expect(ids(out).filter((id) => id === lateId)).toHaveLength(1)
    expect(ids(out).filter((id) => id === savepointId)).toHaveLength(1)
    expect(ids(out)).not.toContain(lostId)
  })

  test('shows each event of many concurrent publishers once', async () => {
    const log = await createLog()
    const tail = startCli(log.folder, ['events', 'tail', '--json'], log.env)
    await following(log, tail)
    const published = await Promise.all(
      Array.from({ length: 5 }, async (_, publisher) => {
        const all: string[] = []
        for (let i = 0; i < 40; i += 1)
          all.push(
            ...(await log.database.db.transaction(async (tx) => {
              const { id } = await log.bus.publish(tx, paid(`${publisher}-${i}`))
              // Transactions commit in another order than they publish.
              await tx.execute(sql`select pg_sleep(${(i % 5) * 0.01})`)
              return [id]
            })),
          )
        return all
      }),
    )
    const expected = published.flat()
    await until('all are shown', async () => expected.every((id) => tail.written.out.includes(id)))
    const { out } = await tail.interrupt()
    const shown = ids(out).filter((id) => expected.includes(id as string))
    expect(shown).toHaveLength(expected.length)
    expect(new Set(shown)).toEqual(new Set(expected))
  })

  test('shows those of a type, a pattern and a tenant alone, from a time on, and ends after --limit', async () => {
    const log = await createLog()
    await publish(log.database, log.bus, paid('1', 'nordwind'), paid('2', 'acme'), {
      ...{ type: 'note', tenantId: 'nordwind', payload: 1 },
    })
    const args = ['events', 'tail', '--json', '--from', '1h', '--tenant', 'nordwind']
    const one = await runCli(log.folder, [...args, '--type', 'payment.*', '--limit', '1'], log.env)
    expect(one.code).toBe(0)
    expect(lines(one.out)).toEqual([expect.objectContaining({ type: 'payment.paid', tenantId: 'nordwind' })])
    const two = await runCli(log.folder, [...args, '--limit', '2'], log.env)
    expect(lines(two.out).map(({ type }) => type)).toEqual(['payment.paid', 'note'])
  })

  test('with --deliveries says what becomes of each event, and of one that nobody receives', async () => {
    const log = await createLog()
    log.bus.subscribe({ name: 'mail', events: ['payment.*'], handler: () => {} })
    log.bus.subscribe({
      name: 'ledger',
      events: ['payment.*'],
      handler: () => {
        throw new NonRetryableError('no account \u001b[31m')
      },
    })
    await log.bus.start()
    const tail = startCli(
      log.folder,
      ['events', 'tail', '--deliveries', '--limit', '2', '--from', '1m'],
      log.env,
      {
        columns: 100,
      },
    )
    await publish(log.database, log.bus, paid('1'), { type: 'note', tenantId: 'acme', payload: 1 })
    const { code, out } = await tail.ended
    expect(code).toBe(0)
    expect(out).toMatch(/→ .*mail {2}.*delivered.* in \d+ ms/)
    expect(out).toMatch(/→ .*ledger {2}.*dead.*, 1 attempt.*no account \\u\{1b\}/)
    expect(out).toMatch(/→ .*No subscription|→ .*nobody|→ .*none/i)
  })

  test('goes on when the database answers again', async () => {
    const log = await createLog()
    const proxy = await startTcpProxy(log.database.url)
    const args = ['events', 'tail', '--json', '--timeout', '1s']
    const tail = startCli(log.folder, args, { DATABASE_URL: proxy.url })
    await following(log, tail)
    proxy.hold('to client')
    const [meanwhile = ''] = await publish(log.database, log.bus, paid('meanwhile'))
    await tail.says(/does not answer \(.*\), trying again/)
    proxy.release()
    await tail.says(meanwhile)
    await tail.says('The database answers again.')
    expect((await tail.interrupt()).code).toBe(0)
  })

  test.each([['events', 'tail'], ['events', 'publish', 'note', '--tenant', 'acme'], ['watch']])(
    'is an error on a database that does not answer, or is not migrated: %s %s',
    async (...call) => {
      const folder = await createFolder({ 'bossbus.config.ts': configuration })
      const none = await runCli(folder, call, { DATABASE_URL: 'postgres://nobody@127.0.0.1:1/none' })
      expect(none).toMatchObject({
        code: 2,
        out: '',
        err: expect.stringMatching(/^BUS_DATABASE_UNAVAILABLE/) as string,
      })
      const { url } = await createTestDatabase({ empty: true })
      const old = await runCli(folder, call, { DATABASE_URL: url })
      expect(old).toMatchObject({
        code: 2,
        out: '',
        err: expect.stringMatching(/^BUS_SCHEMA_MISSING/) as string,
      })
    },
  )

  test('ends at once with Ctrl-C', async () => {
    const log = await createLog()
    const tail = startCli(log.folder, ['events', 'tail', '--json', '--deliveries'], log.env)
    await following(log, tail)
    const beganAt = performance.now()
    expect((await tail.interrupt()).code).toBe(0)
    expect(performance.now() - beganAt).toBeLessThan(1000)
  })
})

describe('bossbus events tail --forward-to', () => {
  interface Received {
    readonly type: string | undefined
    readonly body: Record<string, unknown>
  }

  async function startReceiver(
    answer: (received: readonly Received[]) => number,
  ): Promise<{ readonly url: string; readonly received: readonly Received[] }> {
    const received: Received[] = []
    const server = createServer((request, response) => {
      let text = ''
      request.setEncoding('utf8').on('data', (chunk: string) => void (text += chunk))
      request.on('end', () => {
        received.push({ type: request.headers['content-type'], body: JSON.parse(text) as Received['body'] })
        response.writeHead(answer(received)).end()
      })
    })
    await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
    onTestFinished(() => void server.close())
    return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`, received }
  }

  const call = ['events', 'tail', '--from', '1h', '--forward-to'] as const

  test('posts CloudEvents in their order, and tries again what failed', async () => {
    const log = await createLog()
    const published = await publish(log.database, log.bus, paid('1'), paid('2'))
    const { url, received } = await startReceiver((all) => (all.length === 1 ? 503 : 204))
    const { code, out } = await runCli(log.folder, [...call, url, '--limit', '2', '--json'], log.env)
    expect(code).toBe(0)
    expect(received.map(({ body }) => body['id'])).toEqual([published[0], ...published])
    expect(received[0]).toMatchObject({
      type: 'application/cloudevents+json; charset=utf-8',
      body: { specversion: '1.0', type: 'payment.paid', tenantid: 'acme', data: { paymentId: '1' } },
    })
    expect(lines(out).flatMap(({ forward }) => (forward === undefined ? [] : [forward]))).toMatchObject([
      { attempt: 1, succeeded: false, status: 503, retryInMs: 500 },
      { attempt: 2, succeeded: true, status: 204 },
      { attempt: 1, succeeded: true, status: 204 },
    ])
  })

  test('gives up what the receiver refuses, and says so with exit code 1', async () => {
    const log = await createLog()
    await publish(log.database, log.bus, paid('1'))
    const { url, received } = await startReceiver(() => 422)
    const { code, out } = await runCli(log.folder, [...call, url, '--limit', '1'], log.env)
    expect(code).toBe(1)
    expect(received).toHaveLength(1)
    expect(out).toContain('not forwarded: it answered 422  given up')
  })

  test('refuses what is no URL before it reads anything', async () => {
    const { code, err } = await runCli(await createFolder(), [...call, 'localhost:3000'], {})
    expect(code).toBe(2)
    expect(err).toBe('Expected --forward-to to be a URL like http://localhost:3000/hook, got localhost:3000')
    const secret = await runCli(await createFolder(), [...call, 'http://ada:hunter2@localhost:3000/hook'])
    expect(secret).toEqual({
      code: 2,
      out: '',
      err: 'Expected --forward-to without a user and a password: requests cannot carry them',
    })
  })
})
