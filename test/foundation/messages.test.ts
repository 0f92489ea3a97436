import { createServer } from 'node:net'
import { drizzle } from 'drizzle-orm/node-postgres'
import pg from 'pg'
import postgres from 'postgres'
import { describe, expect, onTestFinished, test } from 'vitest'
import { z } from 'zod'
import { createBus, defineEvents } from '../../src/index.ts'
import { paymentEvents, recordingLogger, testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { refusalOf } from './refusal.ts'

const nowhere = 'postgres://nobody:canary-secret@127.0.0.1:1/none'

async function told(
  work: () => unknown,
): Promise<{ message: string; option: string | undefined; code: string }> {
  const { message, option, code } = await refusalOf(work)
  return { message, option, code }
}

const make = (options: object) => () =>
  createBus({ database: nowhere, events: paymentEvents, source: 'a', ...options })

describe('a database option says what was given instead', () => {
  const pool = new pg.Pool({ connectionString: nowhere })
  const client = postgres(nowhere)
  test.each([
    ['a node-postgres pool', pool],
    ['a node-postgres client', new pg.Client({ connectionString: nowhere })],
    ['a Drizzle database', drizzle({ client: pool })],
    ['a postgres.js client', client],
    ['undefined: is the environment variable set?', undefined],
    ['an empty string: is the environment variable set?', ''],
    ['a URL with the scheme `mysql:`', 'mysql://root:canary-secret@localhost/shop'],
    ['a string that is not a URL', 'canary-secret'],
    ['null', null],
    ['an array', [nowhere]],
  ])('%s', async (what, database) => {
    const { message, option, code } = await told(make({ database }))
    expect(message).toContain(what)
    expect(message).not.toContain('canary-secret')
    expect({ option, code }).toEqual({ option: 'database', code: 'BUS_INVALID_OPTION' })
  })
})

describe('a server says why it lets nobody in', () => {
  test('an unknown database and an unknown role', async () => {
    const { url } = await createTestDatabase()
    const withPart = (change: (url: URL) => void): string => {
      const changed = new URL(url)
      change(changed)
      return changed.href
    }
    const none = testBus(withPart((changed) => (changed.pathname = '/no_such_database')))
    expect(await told(async () => none.start())).toMatchObject({
      code: 'BUS_DATABASE_UNAVAILABLE',
      message: expect.stringMatching(/does not have this database.*no_such_database/) as string,
    })
    const stranger = testBus(withPart((changed) => (changed.username = 'no_such_role')))
    expect((await told(async () => stranger.start())).message).toMatch(
      /refused the login of this role|no_such_role/,
    )
  })

  test('a wrong password', async () => {
    const server = createServer((socket) => {
      socket.on('error', () => {})
      socket.once('data', () => {
        const fields = ['SFATAL', 'VFATAL', 'C28P01', 'Mpassword authentication failed for user "ada"'].join(
          '\0',
        )
        const body = Buffer.from(`${fields}\0\0`)
        const head = Buffer.alloc(5, 'E')
        head.writeInt32BE(body.length + 4, 1)
        socket.end(Buffer.concat([head, body]))
      })
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    onTestFinished(() => void server.close())
    const { port } = server.address() as { port: number }
    const bus = testBus(`postgres://ada:canary-secret@127.0.0.1:${port}/shop?sslmode=disable`)
    const { message } = await told(async () => bus.start())
    expect(message).toMatch(/refused the password.*ada/)
    expect(message).not.toContain('canary-secret')
  })

  test('a database without the schema, which it names, with what to do', async () => {
    const { url, rows } = await createTestDatabase()
    await rows('drop schema bus cascade')
    const { message, code } = await told(async () => testBus(url).start())
    expect(code).toBe('BUS_SCHEMA_MISSING')
    expect(message).toContain(
      `the database \`${new URL(url).pathname.slice(1)}\` at 127.0.0.1:${new URL(url).port}`,
    )
    expect(message).toContain('npx bossbus migrate')
  })
})

describe('a transaction argument says what was given instead', () => {
  const note = { type: 'note', tenantId: 'acme', payload: 1 } as const
  test.each([
    ['the event alone', [note], /two arguments.*tryPublish/s],
    [
      'a Drizzle handle',
      [drizzle({ client: new pg.Pool({ connectionString: nowhere }) }), note],
      /database handle.*`tx`/,
    ],
    ['a node-postgres pool', [new pg.Pool({ connectionString: nowhere }), note], /pool.*fromPg/],
    ['a node-postgres client', [new pg.Client({ connectionString: nowhere }), note], /client.*fromPg/],
    ['a postgres.js client', [postgres(nowhere), note], /postgres\.js.*fromPostgresJs/],
    ['undefined', [undefined, note], /got undefined/],
    ['a text', ['tx', note], /got a value of type string/],
  ])('%s', async (_what, args, message) => {
    const bus = testBus(nowhere)
    const publish = bus.publish as (...args: unknown[]) => Promise<unknown>
    expect(await told(async () => publish(...args))).toMatchObject({
      code: 'BUS_NOT_IN_TRANSACTION',
      message: expect.stringMatching(message) as string,
    })
  })

  test('one that has ended', async () => {
    const { url, db } = await createTestDatabase()
    const bus = testBus(url)
    let ended: Parameters<typeof bus.publish>[0] | undefined
    await db.transaction(async (tx) => {
      ended = tx
      await bus.publish(tx, note)
    })
    const { message } = await told(async () => bus.publish(ended as never, note))
    expect(message).toMatch(/has ended.*Await every publish/)
  })
})

describe('names that are not known', () => {
  const handler = (): void => {}
  const subscribe = (options: object) => () =>
    testBus(nowhere).subscribe({ name: 'a', events: ['note'], handler, ...options } as never)

  test.each([
    ['timeout', 'timeoutSeconds'],
    ['retries', 'retry'],
    ['attempts', 'retry'],
    ['retryLimit', 'retry'],
    ['teamSize', 'concurrency'],
    ['filter', 'where'],
    ['type', 'events'],
    ['concurency', 'concurrency'],
  ])('of a subscription: %s', async (given, meant) => {
    expect(await told(subscribe({ [given]: 1 }))).toMatchObject({
      message: expect.stringContaining(`Did you mean \`${meant}\``) as string,
      option: given,
    })
  })

  test.each([
    ['name', 'type'],
    ['data', 'payload'],
    ['key', 'orderingKey'],
    ['startAfter', 'availableAt'],
    ['singletonKey', 'idempotencyKey'],
    ['tenant', 'tenantId'],
    ['orderingkey', 'orderingKey'],
  ])('of an event: %s', async (given, meant) => {
    const { url, db } = await createTestDatabase()
    const event = { type: 'note', tenantId: 'acme', payload: 1, [given]: 'x' } as never
    expect(
      await told(async () => db.transaction(async (tx) => testBus(url).publish(tx, event))),
    ).toMatchObject({
      message: expect.stringContaining(`Did you mean \`${meant}\``) as string,
      option: given,
      code: 'BUS_INVALID_EVENT',
    })
  })

  test.each([
    ['connectionString', 'database'],
    ['service', 'source'],
    ['catalog', 'events'],
  ])('of a bus: %s', async (given, meant) => {
    expect((await told(make({ [given]: 'x' }))).message).toContain(`Did you mean \`${meant}\``)
  })

  test('a type of the catalogue, nearly', async () => {
    const { url, db } = await createTestDatabase()
    const event = { type: 'payment.payed', tenantId: 'acme', payload: 1 } as never
    expect(
      await told(async () => db.transaction(async (tx) => testBus(url).publish(tx, event))),
    ).toMatchObject({
      code: 'BUS_UNKNOWN_EVENT_TYPE',
      message: expect.stringContaining('Did you mean "payment.paid"') as string,
      option: 'type',
    })
  })
})

test('a schema in the place of a definition', async () => {
  const { message } = await told(() => defineEvents({ 'payment.paid': z.object({}) as never }))
  expect(message).toContain('write { schema: … }')
})

test.each([['amountCents > 1000'], ['true'], ["payload->>'amount' = '1'"]])(
  'a predicate that does not speak of the payload: %s',
  async (where) => {
    const bus = testBus(nowhere)
    const options = { name: 'a', events: ['note'] as const, where, handler: () => {} }
    expect(await told(() => bus.subscribe(options))).toMatchObject({
      code: 'BUS_INVALID_WHERE',
      option: 'where',
      message: expect.stringContaining(`"$.${where}"`) as string,
    })
  },
)

test('calls on a bus that was stopped say so', async () => {
  const { url } = await createTestDatabase()
  const logger = recordingLogger()
  const bus = testBus(url, { logger })
  await bus.start()
  await bus.stop()
  const calls: Readonly<Record<string, () => unknown>> = {
    start: async () => bus.start(),
    migrate: async () => bus.migrate(),
    subscribe: () => bus.subscribe({ name: 'a', events: ['note'], handler: () => {} }),
    deliveries: async () => bus.deliveries('01932f2c-5b4e-7cc0-8a2d-3f1e5d7c9b10'),
    find: async () => bus.events.find(),
    list: async () => bus.subscriptions.list(),
    letters: async () => bus.deadLetters.list(),
    pause: async () => bus.subscriptions.pause('a'),
    cancel: async () => bus.cancel('01932f2c-5b4e-7cc0-8a2d-3f1e5d7c9b10'),
    stats: async () => bus.tenant('acme').stats(),
  }
  for (const [name, call] of Object.entries(calls)) {
    const { code, message } = await told(call)
    expect({ name, code }).toEqual({ name, code: 'BUS_INVALID_STATE' })
    expect(message).toMatch(/stop/)
  }
  expect(await bus.tryPublish({ type: 'note', tenantId: 'acme', payload: 1 })).toBeUndefined()
  expect(logger.lines.at(-1)?.fields).toMatchObject({ errorCode: 'BUS_INVALID_STATE' })
})

test('a failed attempt is logged with all that one asks first', async () => {
  const { url, db } = await createTestDatabase()
  const logger = recordingLogger()
  const bus = testBus(url, { logger })
  bus.subscribe({
    name: 'failing',
    events: ['note'],
    retry: { maxAttempts: 3, delaySeconds: 1 },
    handler: () => {
      throw new Error('not now')
    },
  })
  await bus.start()
  const { id } = await db.transaction(async (tx) =>
    bus.publish(tx, { type: 'note', tenantId: 'acme', payload: 1 }),
  )
  const failed = () =>
    logger.lines.filter(({ message }) => message === 'an attempt to handle an event failed')
  await until('it was tried', () => failed().length === 3)
  expect(failed().map(({ fields }) => fields)).toMatchObject([
    {
      ...{ subscription: 'failing', id, type: 'note', tenantId: 'acme', attempt: 1, maxAttempts: 3 },
      ...{ nextInSeconds: 1, reason: 'not now' },
    },
    { attempt: 2, maxAttempts: 3, nextInSeconds: 2 },
    { attempt: 3, maxAttempts: 3, nextInSeconds: undefined },
  ])
})
