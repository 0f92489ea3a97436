import pg from 'pg'
import { expect, onTestFinished, test } from 'vitest'
import { testBus, type PaymentBus } from '../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { refusalOf } from '../foundation/refusal.ts'

const ana = { by: 'ana', reason: 'not needed any more' }

async function publish({ rows }: TestDatabase, count: number, key: string | null = null): Promise<void> {
  await rows(
    `insert into bus.events (tenant_id, type, source, payload, ordering_key) select 'acme', 'note', 'psql', to_jsonb(n), $2 from generate_series(1, $1::int) n`,
    [count, key],
  )
}

/** Registers a subscription whose process is gone, with so many waiting events. */
async function register(
  database: TestDatabase,
  name: string,
  { waiting = 0, ordered = false, key = null as string | null } = {},
): Promise<void> {
  const bus = testBus(database.url)
  bus.subscribe({ name, events: ['note'], ordered, batchSize: 10, handler: () => {} })
  await bus.start()
  await bus.subscriptions.pause(name)
  await publish(database, waiting, key)
  await until('they wait', async () => (await bus.subscriptions.get(name)).waitingCount === waiting)
  await bus.stop()
}

/** A process that runs nothing of it, and does the parts of operations. */
async function runner(database: TestDatabase): Promise<PaymentBus> {
  const bus = testBus(database.url)
  await bus.start()
  return bus
}

async function done(bus: PaymentBus, id: string) {
  await until('the operation is done', async () => (await bus.operations.get(id)).state === 'done', 20_000)
  return bus.operations.get(id)
}

const queues = async ({ rows }: TestDatabase, name: string) =>
  rows(`select name from pgboss.queue where name like $1`, [`bus.${name}%`])

test('an empty subscription that nobody serves is removed with its queues; what it had received stays', async () => {
  const database = await createTestDatabase()
  const old = testBus(database.url)
  old.subscribe({ name: 'old', events: ['note'], handler: () => {} })
  await old.start()
  await publish(database, 3)
  await until(
    'all are delivered',
    async () => (await database.count('select count(*) from bus.deliveries')) === 3,
  )
  const { id } = (await database.rows('select id from bus.subscriptions'))[0] as { id: number }
  await expect(old.subscriptions.remove('old', ana)).rejects.toMatchObject({
    code: 'BUS_SUBSCRIPTION_SERVED',
    message: expect.stringContaining(`with pid ${process.pid}`) as string,
  })
  await old.stop()
  const bus = await runner(database)
  const operation = await bus.subscriptions.remove('old', ana)
  expect(operation).toMatchObject({
    kind: 'remove',
    by: 'ana',
    expected: { waiting: 0, dead: 0 },
    subscriptions: ['old'],
  })
  await done(bus, operation.id)
  expect(await bus.subscriptions.list()).toEqual([])
  expect(await queues(database, 'old')).toEqual([])
  expect(await database.count('select count(*) from bus.declarations')).toBe(0)
  expect(await database.rows('select id, name, removed_by from bus.removed_subscriptions')).toEqual([
    { id, name: 'old', removed_by: 'ana' },
  ])
  expect(await database.count(`select count(*) from bus.deliveries where subscription_id = ${id}`)).toBe(3)
  expect(await bus.audit.list({ subscription: 'old' })).toMatchObject([
    { action: 'subscriptions.remove', by: 'ana', reason: ana.reason, outcome: { state: 'done' } },
  ])
  // Relays follow: what is published now is for nobody.
  await publish(database, 1)
  await until('it is dispatched', async () => (await database.count('select count(*) from bus.outbox')) === 0)
  await expect(bus.subscriptions.remove('old', ana)).rejects.toMatchObject({
    code: 'BUS_SUBSCRIPTION_NOT_FOUND',
  })
  // The name can be used again.
  await register(database, 'old', { waiting: 2 })
})

test('it is refused while events or dead letters wait, unless they are discarded', async () => {
  const database = await createTestDatabase()
  await register(database, 'old', { waiting: 250 })
  const failing = testBus(database.url)
  failing.subscribe({
    name: 'dying',
    events: ['note'],
    retry: { maxAttempts: 1 },
    circuitBreaker: false,
    handler: () => {
      throw new Error('down')
    },
  })
  await failing.start()
  await publish(database, 7)
  await until('they are dead', async () => (await failing.deadLetters.list()).length === 7)
  await failing.stop()
  const bus = await runner(database)
  await expect(bus.subscriptions.remove('old', ana)).rejects.toMatchObject({
    code: 'BUS_SUBSCRIPTION_NOT_EMPTY',
    message: expect.stringContaining('257 waiting events and 0 dead letters') as string,
  })
  await expect(bus.subscriptions.remove('dying', ana)).rejects.toMatchObject({
    code: 'BUS_SUBSCRIPTION_NOT_EMPTY',
    message: expect.stringContaining('0 waiting events and 7 dead letters') as string,
  })
  expect(await bus.audit.list({ action: 'subscriptions.remove' })).toEqual([])
  expect(await bus.subscriptions.list()).toHaveLength(2)
  const first = await bus.subscriptions.remove('old', { ...ana, waiting: 'discard' })
  expect((await done(bus, first.id)).counts).toEqual({ discarded: 257 })
  const second = await bus.subscriptions.remove('dying', { ...ana, waiting: 'discard' })
  expect(await done(bus, second.id)).toMatchObject({
    counts: { discarded: 7 },
    expected: { waiting: 0, dead: 7 },
  })
  expect(await bus.deadLetters.list()).toEqual([])
  expect(await database.count('select count(*) from bus.failing')).toBe(0)
  expect(await database.count(`select count(*) from pgboss.job where name like 'bus.%'`)).toBe(0)
  expect(await database.count('select count(*) from bus.events')).toBe(257)
})

test.each([false, true])(
  'what waits, dead letters too, moves to another subscription, once each and in order (ordered: %s)',
  async (ordered) => {
    const database = await createTestDatabase()
    const key = ordered ? 'k' : null
    const down = testBus(database.url)
    down.subscribe({
      ...{ name: 'old', events: ['note'], ordered, ...(ordered ? { onKeyFailure: 'skip' as const } : {}) },
      retry: { maxAttempts: 1 },
      circuitBreaker: false,
      handler: () => {
        throw new Error('down')
      },
    })
    await down.start()
    await publish(database, 3, key)
    await until('they are dead', async () => (await down.deadLetters.list()).length === 3)
    await down.subscriptions.pause('old')
    await publish(database, 60, key)
    await until('they wait', async () => (await down.subscriptions.get('old')).waitingCount === 60)
    await down.stop()
    const seen: number[] = []
    const bus = testBus(database.url)
    bus.subscribe({
      name: 'new',
      events: ['note'],
      ordered,
      handler: ({ payload }) => void seen.push(payload as number),
    })
    await bus.start()
    const operation = await bus.subscriptions.remove('old', { ...ana, waiting: { moveTo: 'new' } })
    expect(await done(bus, operation.id)).toMatchObject({ counts: { moved: 63, skipped: 0 } })
    await publish(database, 1, key)
    await until(
      'all are delivered',
      async () => (await database.count('select count(*) from bus.deliveries')) === 64,
    )
    const inOrder = [1, 2, 3, ...Array.from({ length: 60 }, (_, n) => n + 1), 1]
    const sorted = (all: readonly number[]): number[] => (ordered ? [...all] : all.toSorted((a, b) => a - b))
    expect(sorted(seen)).toEqual(sorted(inOrder))
    expect(await database.count('select count(*) from bus.ordered_keys')).toBe(0)
    expect(await database.count('select count(*) from bus.failing')).toBe(0)
  },
)

test('what the other subscription has received already is left out', async () => {
  const database = await createTestDatabase()
  await register(database, 'old')
  const bus = testBus(database.url)
  let count = 0
  bus.subscribe({ name: 'new', events: ['note'], handler: () => void (count += 1) })
  await bus.start()
  await publish(database, 30)
  await until('they are delivered', async () => count === 30)
  const operation = await bus.subscriptions.remove('old', { ...ana, waiting: { moveTo: 'new' } })
  expect((await done(bus, operation.id)).counts).toEqual({ moved: 0, skipped: 30 })
  expect(count).toBe(30)
})

test('what waits is not moved to a subscription that does not cover it: it is refused, or stays', async () => {
  const database = await createTestDatabase()
  await register(database, 'old', { waiting: 3 })
  const bus = testBus(database.url)
  const seen: unknown[] = []
  bus.subscribe({ name: 'payments', events: ['payment.*'], handler: () => {} })
  bus.subscribe({ name: 'large', events: ['note'], where: '$ >= 3', handler: () => {} })
  bus.subscribe({ name: 'all', events: ['**'], handler: ({ payload }) => void seen.push(payload) })
  await bus.start()
  const moveTo = (name: string) => ({ ...ana, waiting: { moveTo: name } })
  for (const target of ['payments', 'large'])
    for (const dryRun of [true, false])
      expect(
        await refusalOf(async () => bus.subscriptions.remove('old', { ...moveTo(target), dryRun })),
      ).toMatchObject({
        code: 'BUS_SUBSCRIPTION_NOT_COVERING',
        message: expect.stringMatching(
          /`(payments|large)` does not cover.*: `note`: they would become/,
        ) as string,
      })
  expect(await bus.subscriptions.remove('old', { ...moveTo('all'), dryRun: true })).toEqual({
    waiting: 3,
    dead: 0,
  })
  expect((await bus.subscriptions.get('old')).waitingCount).toBe(3)
  expect(await bus.operations.list()).toEqual([])
  const { id } = await bus.subscriptions.remove('old', moveTo('all'))
  await until('it is done', async () => (await bus.operations.get(id)).state === 'done')
  await until('it has them', () => seen.length >= 3)
  expect(await bus.deadLetters.list()).toEqual([])
})

test('a removal stops at what its target does not cover any more, and goes on when it does', async () => {
  const database = await createTestDatabase()
  await register(database, 'old', { waiting: 3 })
  await register(database, 'new')
  const idle = testBus(database.url)
  const { id } = await idle.subscriptions.remove('old', { ...ana, waiting: { moveTo: 'new' } })
  const declare = async (patterns: string) =>
    database.rows(
      `update bus.declarations set patterns = $1::text[] where subscription_id = (select id from bus.subscriptions where name = 'new')`,
      [patterns],
    )
  await declare('{payment.*}')
  const bus = await runner(database)
  await until('it stops', async () => (await bus.operations.get(id)).state === 'stopped')
  expect(await bus.operations.get(id)).toMatchObject({
    stateReason: expect.stringMatching(/`new` does not cover.*`note`\. They stay where they are/) as string,
    counts: {},
  })
  expect(await database.count(`select count(*) from pgboss.job where name = 'bus.old'`)).toBeGreaterThan(0)
  await declare('{note}')
  await bus.operations.resume(id, ana)
  expect(await done(bus, id)).toMatchObject({ counts: { moved: 3, skipped: 0 } })
})

test('a redrive of dead letters that a removal has taken says why it has redriven none', async () => {
  const database = await createTestDatabase()
  const failing = testBus(database.url)
  failing.subscribe({
    ...{ name: 'dying', events: ['note'], retry: { maxAttempts: 1 }, circuitBreaker: false },
    handler: () => {
      throw new Error('down')
    },
  })
  await failing.start()
  await publish(database, 2)
  await until('they are dead', async () => (await failing.deadLetters.list()).length === 2)
  await failing.stop()
  const idle = testBus(database.url)
  const redrive = await idle.deadLetters.redrive({ subscription: 'dying' }, { by: 'ana' })
  await idle.operations.pause(redrive.id, ana)
  const removal = await idle.subscriptions.remove('dying', { ...ana, waiting: 'discard' })
  const bus = await runner(database)
  await done(bus, removal.id)
  await bus.operations.resume(redrive.id, ana)
  expect(await done(bus, redrive.id)).toMatchObject({
    stateReason:
      'None was redriven: the subscription was removed meanwhile, and its dead letters with it: `dying`',
  })
})

test('a process that registers it again meanwhile stops the removal, and gets what waits', async () => {
  const database = await createTestDatabase()
  await register(database, 'old', { waiting: 5 })
  const idle = testBus(database.url)
  const operation = await idle.subscriptions.remove('old', { ...ana, waiting: 'discard' })
  const again = testBus(database.url)
  let count = 0
  again.subscribe({ name: 'old', events: ['note'], handler: () => void (count += 1) })
  await again.start()
  await until('it stops', async () => (await again.operations.get(operation.id)).state === 'stopped')
  expect(await again.operations.get(operation.id)).toMatchObject({
    stateReason: expect.stringContaining('registered the subscription `old` again') as string,
  })
  await until('what waited is delivered', () => count === 5)
})

test('a killed process or one that comes in between loses and doubles nothing: parts are transactions', async () => {
  const database = await createTestDatabase()
  await register(database, 'old', { waiting: 1200 })
  const seen = new Map<string, number>()
  const target = testBus(database.url)
  target.subscribe({
    name: 'new',
    events: ['note'],
    handler: ({ id }) => void seen.set(id, (seen.get(id) ?? 0) + 1),
  })
  await target.start()
  const operation = await target.subscriptions.remove('old', { ...ana, waiting: { moveTo: 'new' } })
  // The server ends the sessions of the parts, again and again.
  for (let i = 0; i < 10; i += 1) {
    await database.rows(
      `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and query like '%bus.operations%'`,
    )
    await new Promise((resolve) => setTimeout(resolve, 30))
  }
  expect((await done(target, operation.id)).counts).toMatchObject({ moved: 1200 })
  await until('all are delivered', () => seen.size === 1200, 60_000)
  expect([...seen.values()].filter((times) => times !== 1)).toEqual([])
})

test('a dead letter that another session has locked is not lost: the removal waits for it', async () => {
  const database = await createTestDatabase()
  const down = testBus(database.url)
  down.subscribe({
    ...{ name: 'old', events: ['note'], retry: { maxAttempts: 1 }, circuitBreaker: false },
    handler: () => {
      throw new Error('down')
    },
  })
  await down.start()
  await publish(database, 1)
  await until('it is dead', async () => (await down.deadLetters.list()).length === 1)
  await down.stop()
  // As a redrive, which is rolled back as soon as somebody waits for it.
  const holder = new pg.Client({ connectionString: database.url })
  await holder.connect()
  onTestFinished(async () => holder.end())
  await holder.query(`begin; delete from pgboss.job where name = 'bus.old.dead'`)
  const [{ pid } = {}] = (await holder.query<{ pid: number }>('select pg_backend_pid() as pid')).rows
  const bus = await runner(database)
  const operation = await bus.subscriptions.remove('old', { ...ana, waiting: 'discard' })
  const isWaitedFor = async (): Promise<boolean> =>
    (await database.count(
      'select count(*) from pg_locks where not granted and $1 = any (pg_blocking_pids(pid))',
      [pid],
    )) > 0
  const beganAt = performance.now()
  await until(
    'it was tried several times, or somebody waits',
    async () => (await isWaitedFor()) || performance.now() - beganAt > 2500,
  )
  await holder.query('rollback')
  expect(await done(bus, operation.id)).toMatchObject({ counts: { discarded: 1 } })
  expect(await queues(database, 'old')).toEqual([])
})

test('bad input is refused before anything is changed', async () => {
  const database = await createTestDatabase()
  await register(database, 'old')
  const bus = testBus(database.url)
  const attempts: readonly [unknown, string][] = [
    [undefined, 'by'],
    [{ reason: 'x' }, '`by`'],
    [{ by: '' }, '`by`'],
    [{ by: 'ana', waiting: 'keep' }, '`waiting`'],
    [{ by: 'ana', waiting: { moveTo: 'old' } }, '`waiting.moveTo`'],
    [{ by: 'ana', waiting: { to: 'x' } }, '`to`'],
    [{ by: 'ana', force: true }, '`force`'],
  ]
  for (const [options, part] of attempts)
    await expect(bus.subscriptions.remove('old', options as never)).rejects.toMatchObject({
      code: 'BUS_INVALID_OPTION',
      message: expect.stringContaining(part) as string,
    })
  await expect(
    bus.subscriptions.remove('old', { by: 'ana', waiting: { moveTo: 'nobody' } }),
  ).rejects.toMatchObject({ code: 'BUS_SUBSCRIPTION_NOT_FOUND' })
  expect(await bus.subscriptions.list()).toHaveLength(1)
  expect(await bus.audit.list()).toHaveLength(1)
})

test('a filter by a name that no subscription has is refused everywhere, and by one that was removed answers what there is', async () => {
  const database = await createTestDatabase()
  await register(database, 'idle')
  await register(database, 'old', { waiting: 2 })
  const bus = await runner(database)
  const tenant = bus.tenant('acme')
  const reads: Readonly<Record<string, (subscription: string) => Promise<unknown>>> = {
    find: async (subscription) => bus.events.find({ status: { state: 'waiting', subscription } }),
    search: async (subscription) =>
      (await bus.events.search({ status: { state: 'delivered', subscription } })).events,
    letters: async (subscription) => bus.deadLetters.list({ subscription }),
    groups: async (subscription) => bus.deadLetters.groups({ subscription }),
    keys: async (subscription) => bus.blockedKeys.list({ subscription }),
    operations: async (subscription) => bus.operations.list({ subscription }),
    stats: async (subscription) => (await bus.stats({ subscription })).points,
    retries: async (subscription) => bus.queries.retries({ subscription }),
    minutes: async (subscription) => bus.queries.throughput({ subscription }),
  }
  const ofTenant: typeof reads = {
    find: async (subscription) => tenant.events.find({ status: { state: 'waiting', subscription } }),
    letters: async (subscription) => tenant.deadLetters.list({ subscription }),
  }
  const notFound = {
    code: 'BUS_SUBSCRIPTION_NOT_FOUND',
    message: 'There is no subscription "olt" in this database',
  }
  for (const [name, read] of [...Object.entries(reads), ...Object.entries(ofTenant)]) {
    const found = await read('idle')
    expect([name, Array.isArray(found) && found.length > 0]).toEqual([name, name === 'find'])
    expect([name, await refusalOf(async () => read('olt'))]).toMatchObject([name, notFound])
  }
  const { id } = await bus.subscriptions.remove('old', { ...ana, waiting: 'discard' })
  await done(bus, id)
  for (const [name, read] of Object.entries(reads))
    expect([name, await read('old')]).toMatchObject([name, name === 'operations' ? [{ id }] : []])
  // A tenant does not see what was removed.
  for (const [name, read] of Object.entries(ofTenant))
    expect([name, await refusalOf(async () => read('old'))]).toMatchObject([
      name,
      { code: 'BUS_SUBSCRIPTION_NOT_FOUND' },
    ])
  // The record of changes keeps whatever it has of a name.
  expect((await bus.audit.list({ subscription: 'old' })).map(({ action }) => action)).toContain(
    'subscriptions.remove',
  )
  expect(await bus.audit.list({ subscription: 'olt' })).toEqual([])
})
