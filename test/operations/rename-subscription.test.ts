import { expect, test } from 'vitest'
import { testBus, type PaymentBus } from '../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'

const ana = { by: 'ana', reason: 'a better name' }

async function publish({ rows }: TestDatabase, count: number, key: string | null = null): Promise<void> {
  await rows(
    `insert into bus.events (tenant_id, type, source, payload, ordering_key) select 'acme', 'note', 'psql', to_jsonb(n), $2 from generate_series(1, $1::int) n`,
    [count, key],
  )
}

function subscribe(
  bus: PaymentBus,
  name: string,
  ordered: boolean,
  handler: (payload: number, attempt: number) => void,
): void {
  bus.subscribe({
    name,
    events: ['note'],
    ordered,
    circuitBreaker: false,
    retry: { maxAttempts: 2, delaySeconds: 1, backoff: false },
    handler: ({ payload }, { attempt }) => handler(payload as number, attempt),
  })
}

test.each([false, true])(
  'a subscription that nobody serves keeps its id, receipts, what waits and its dead letters under a new name (ordered: %s)',
  async (ordered) => {
    const database = await createTestDatabase()
    const key = ordered ? 'k' : null
    const old = testBus(database.url)
    subscribe(old, 'old', ordered, (payload) => {
      if (payload === 3) throw new Error('bad')
    })
    await old.start()
    await publish(database, 3, key)
    await until(
      'two are delivered, one is dead',
      async () =>
        (await database.count('select count(*) from bus.deliveries')) === 2 &&
        (await old.deadLetters.list()).length === 1,
    )
    await old.subscriptions.pause('old', { by: 'ana' })
    await publish(database, 20, key)
    await until('they wait', async () => (await old.subscriptions.get('old')).waitingCount >= 20)
    await expect(old.subscriptions.rename('old', 'new', ana)).rejects.toMatchObject({
      code: 'BUS_SUBSCRIPTION_SERVED',
    })
    await old.stop()
    const before = await database.rows('select id from bus.subscriptions')

    const seen: number[] = []
    const fresh = testBus(database.url)
    subscribe(fresh, 'new', ordered, (payload) => void seen.push(payload))
    await fresh.subscriptions.rename('old', 'new', ana)
    expect(await database.rows('select id from bus.subscriptions')).toEqual(before)
    expect(
      await database.rows(`select name from pgboss.queue where name like 'bus.%' order by name`),
    ).toEqual([{ name: 'bus.new' }, { name: 'bus.new.dead' }])
    expect(await fresh.subscriptions.get('new')).toMatchObject({ state: 'paused', pause: { by: 'ana' } })
    expect(await fresh.deadLetters.list()).toMatchObject([{ subscription: 'new', attempts: 2 }])
    await fresh.start()
    await fresh.subscriptions.resume('new')
    const waited = Array.from({ length: 20 }, (_, i) => i + 1)
    expect((await fresh.blockedKeys.list()).map(({ waitingCount }) => waitingCount)).toEqual(
      ordered ? [20] : [],
    )
    const blockedKey = { subscription: 'new', tenantId: 'acme', orderingKey: 'k' }
    expect(await fresh.blockedKeys.release(blockedKey)).toBe(ordered)
    const expected = ordered ? [3, ...waited] : waited
    await until('all are delivered', () => seen.length === expected.length)
    expect(ordered ? seen : seen.toSorted((a, b) => a - b)).toEqual(expected)
    await publish(database, 1)
    await until('new ones follow', () => seen.length === (ordered ? 22 : 21))
    expect(await fresh.audit.list({ action: 'subscriptions.rename' })).toMatchObject([
      { by: 'ana', subscription: 'old', change: { from: 'old', to: 'new' } },
    ])
  },
)

test('retries that wait keep their attempts and their time', async () => {
  const database = await createTestDatabase()
  const old = testBus(database.url)
  old.subscribe({
    name: 'old',
    events: ['note'],
    retry: { delays: [3600, 3600] },
    handler: () => {
      throw new Error('down')
    },
  })
  await old.start()
  await publish(database, 1)
  const job = async (name: string) =>
    database.rows(
      `select id, start_after, retry_count, retry_limit, state, dead_letter from pgboss.job where name = $1 and state = 'retry'`,
      [name],
    )
  await until('it is retried', async () => (await job('bus.old')).length === 1)
  const before = await job('bus.old')
  await old.stop()
  await testBus(database.url).subscriptions.rename('old', 'new', ana)
  expect(await job('bus.new')).toEqual(before.map((row) => ({ ...row, dead_letter: 'bus.new.dead' })))
})

test('while events are published and relays run, nothing is lost', async () => {
  const database = await createTestDatabase()
  const old = testBus(database.url)
  subscribe(old, 'old', false, () => {})
  await old.start()
  await old.stop()
  const relays = [testBus(database.url), testBus(database.url)]
  for (const relay of relays) await relay.start()
  let published = 0
  let isPublishing = true
  const publishing = (async () => {
    while (isPublishing) {
      await publish(database, 5)
      published += 5
    }
  })()
  await until('some were published', () => published > 100)
  await relays[0]?.subscriptions.rename('old', 'new', ana)
  const atRename = published
  await until('more were published', () => published > atRename + 100)
  isPublishing = false
  await publishing
  const fresh = testBus(database.url)
  const seen: number[] = []
  subscribe(fresh, 'new', false, (payload) => void seen.push(payload))
  await fresh.start()
  await until('all are delivered', () => seen.length === published, 30_000)
  await until(
    'all have receipts',
    async () => (await database.count('select count(*) from bus.deliveries')) === published,
  )
  expect(await database.count(`select count(*) from pgboss.job where name = 'bus.old'`)).toBe(0)
})

test('what cannot be renamed is refused, and nothing is changed', async () => {
  const database = await createTestDatabase()
  const owner = testBus(database.url)
  subscribe(owner, 'old', false, () => {})
  subscribe(owner, 'other', false, () => {})
  await owner.start()
  await owner.stop()
  const bus = testBus(database.url)
  await expect(bus.subscriptions.rename('nobody', 'new', ana)).rejects.toMatchObject({
    code: 'BUS_SUBSCRIPTION_NOT_FOUND',
  })
  await expect(bus.subscriptions.rename('old', 'other', ana)).rejects.toMatchObject({
    code: 'BUS_SUBSCRIPTION_TAKEN',
  })
  for (const newName of ['old', '', 'a b', 'x.dead', 'x'.repeat(101), 5])
    await expect(bus.subscriptions.rename('old', newName as string, ana)).rejects.toMatchObject({
      code: 'BUS_INVALID_OPTION',
    })
  await expect(bus.subscriptions.rename('old', 'new', {} as never)).rejects.toMatchObject({
    code: 'BUS_INVALID_OPTION',
  })
  await database.rows(
    `insert into pgboss.job (name, data, policy) select 'bus.old', '{"eventIds": []}', 'standard' from generate_series(1, 20001)`,
  )
  await expect(bus.subscriptions.rename('old', 'new', ana)).rejects.toMatchObject({
    code: 'BUS_SUBSCRIPTION_NOT_EMPTY',
  })
  expect((await bus.subscriptions.list()).map(({ name }) => name)).toEqual(['old', 'other'])
  expect(await bus.audit.list()).toEqual([])
})

test('the record of a subscription is found by its name with what was done under its earlier names, and nothing of others', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const register = async (name: string): Promise<void> => {
    const process = testBus(database.url)
    subscribe(process, name, false, () => {})
    await process.start()
    await process.stop()
  }
  const pause = async (name: string, by: string): Promise<void> => {
    await bus.subscriptions.pause(name, { by })
    await bus.subscriptions.resume(name, { by })
  }
  const rename = async (from: string, to: string): Promise<void> =>
    bus.subscriptions.rename(from, to, { by: `${from} to ${to}` })
  const found = async (subscription: string, filter: object = {}): Promise<string> =>
    (await bus.audit.list({ subscription, ...filter })).map(({ by }) => by).join(', ')
  await register('b')
  await pause('b', 'other')
  await rename('b', 'c')
  await register('a')
  await pause('a', 'first')
  await rename('a', 'b')
  await pause('b', 'second')
  await rename('b', 'd')
  await register('b')
  await pause('b', 'new')
  await pause('d', 'third')
  expect(await found('d')).toBe('third, third, b to d, second, second, a to b, first, first')
  expect(await found('d', { action: 'subscriptions.pause' })).toBe('third, second, first')
  expect(await found('c')).toBe('b to c, other, other')
  expect(await found('a')).toBe('a to b, first, first')
  // By its name alone: whoever had it.
  expect(await found('b')).toBe(
    'new, new, b to d, second, second, a to b, first, first, b to c, other, other',
  )
  const [latest] = await bus.audit.list({ subscription: 'd' })
  expect(await found('d', { after: latest?.id, limit: 2 })).toBe('third, b to d')
  expect(await found('none')).toBe('')
})

test('a filter by the old name is refused, and says the new one', async () => {
  const database = await createTestDatabase()
  const old = testBus(database.url)
  subscribe(old, 'old', false, () => {})
  await old.start()
  await old.stop()
  const bus = testBus(database.url)
  await bus.subscriptions.rename('old', 'new', ana)
  await expect(bus.deadLetters.list({ subscription: 'old' })).rejects.toMatchObject({
    code: 'BUS_SUBSCRIPTION_NOT_FOUND',
    message: 'There is no subscription "old" in this database: it was renamed to "new"',
  })
  expect(await bus.deadLetters.list({ subscription: 'new' })).toEqual([])
})

test('every call by a name of before says the new one, or that it was removed, and what is still to be done', async () => {
  const database = await createTestDatabase()
  const old = testBus(database.url)
  for (const name of ['old', 'gone']) subscribe(old, name, false, () => {})
  await old.start()
  await old.stop()
  const bus = testBus(database.url)
  const { id = '' } = (await bus.tryPublish({ type: 'note', tenantId: 'acme', payload: 1 })) ?? {}
  await bus.subscriptions.rename('old', 'newer', ana)
  await bus.subscriptions.rename('newer', 'newest', ana)
  const change = { ...ana, expiresInSeconds: 60 }
  const calls: Readonly<Record<string, (name: string) => Promise<unknown>>> = {
    explain: async (name) => bus.explain(id, name),
    get: async (name) => bus.subscriptions.get(name),
    pause: async (name) => bus.subscriptions.pause(name),
    resume: async (name) => bus.subscriptions.resume(name),
    setOptions: async (name) => bus.subscriptions.setOptions(name, { concurrency: 2 }, change),
    rename: async (name) => bus.subscriptions.rename(name, 'other', ana),
    remove: async (name) => bus.subscriptions.remove(name, ana),
    moveTo: async (moveTo) => bus.subscriptions.remove('newest', { ...ana, waiting: { moveTo } }),
    replay: async (name) => bus.replay({ tenantId: 'acme', subscriptions: [name], by: 'ana' }),
    redrive: async (subscription) => bus.deadLetters.redrive({ subscription }, { by: 'ana' }),
    discard: async (subscription) =>
      bus.deadLetters.discard({ subscription }, { by: 'ana', reason: 'a test' }),
    letter: async (name) => bus.deadLetters.get(id, name),
    release: async (subscription) =>
      bus.blockedKeys.release({ subscription, tenantId: 'acme', orderingKey: 'a' }),
  }
  const messages = async (name: string): Promise<Readonly<Record<string, string>>> => {
    const found: Record<string, string> = {}
    for (const [call, run] of Object.entries(calls))
      found[call] = await run(name).then(
        () => 'it is done',
        (error: Error) => error.message,
      )
    return found
  }
  const all = (message: unknown): Record<string, unknown> =>
    Object.fromEntries(Object.keys(calls).map((call) => [call, message]))
  const none = 'There is no subscription'
  expect(await messages('old')).toEqual(all(`${none} "old" in this database: it was renamed to "newest"`))
  const removal = await bus.subscriptions.remove('gone', ana)
  expect(await messages('gone')).toEqual(
    all(
      expect.stringMatching(
        new RegExp(
          `^${none} "gone" in this database: it was removed by "ana" at 20.*, and the operation ${removal.id} deals with`,
        ),
      ),
    ),
  )
  await bus.operations.cancel(removal.id, ana)
  expect((await messages('gone'))['explain']).toMatch(/: it was removed by "ana" at [\d-]+T[\d:.]+Z$/)
  expect(await messages('never')).toEqual(all(`${none} "never" in this database`))
})
