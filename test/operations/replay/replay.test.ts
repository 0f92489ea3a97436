import { expect, test } from 'vitest'
import { limits, type Operation } from '../../../src/index.ts'
import { testBus, type PaymentBus } from '../../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'
import { createEffects, writeEffect } from '../../support/effects.ts'

interface Call {
  readonly payload: unknown
  readonly isReplay: boolean
  readonly replayId: string | undefined
  readonly attempt: number
}

type Seen = Record<string, Call[]>

const retry = { maxAttempts: 3, delaySeconds: 0, backoff: false } as const

/** Two subscriptions of notes, which keep what they see. */
function subscribe(bus: PaymentBus, fails: (call: Call) => boolean = () => false): Seen {
  const seen: Seen = { first: [], second: [] }
  for (const name of ['first', 'second'])
    bus.subscribe({
      name,
      events: ['note'],
      retry,
      handler: ({ payload }, { isReplay, replayId, attempt }) => {
        const call = { payload, isReplay, replayId, attempt }
        seen[name]?.push(call)
        if (fails(call)) throw new Error('fails')
      },
    })
  return seen
}

const payloads = (calls: readonly Call[] | undefined, replayId?: string): string[] =>
  (calls ?? [])
    .filter((call) => call.replayId === replayId)
    .map(({ payload }) => String(payload))
    .toSorted()

async function publish(bus: PaymentBus, count: number, tenantId = 'acme', from = 0): Promise<string[]> {
  const ids: string[] = []
  for (let n = from; n < from + count; n += 1)
    ids.push((await bus.tryPublish({ type: 'note', tenantId, payload: `n${n}` }))?.id ?? '')
  return ids
}

async function untilOver(bus: PaymentBus, id: string): Promise<Operation> {
  let operation = await bus.operations.get(id)
  await until('the operation is over', async () => {
    operation = await bus.operations.get(id)
    return operation.state !== 'running'
  })
  return operation
}

const receipts = async ({ count }: TestDatabase, name: string): Promise<number> =>
  count(
    `select count(*) from bus.deliveries d join bus.subscriptions s on s.id = d.subscription_id where s.name = '${name}'`,
  )

test('a replay delivers each event of its selection once more to its subscriptions alone, and twice after two replays', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const seen = subscribe(bus)
  await bus.start()
  await publish(bus, 12)
  await publish(bus, 3, 'other', 12)
  await until(
    'all are delivered',
    () => (seen['first']?.length ?? 0) === 15 && (seen['second']?.length ?? 0) === 15,
  )
  await until('all are settled', async () => (await receipts(database, 'first')) === 15)
  const options = { tenantId: 'acme', subscriptions: ['first'], by: 'ana', reason: 'a test' }
  const one = await bus.replay(options)
  expect(one).toMatchObject({ kind: 'replay', state: 'running', by: 'ana', selection: { tenantId: 'acme' } })
  const done = await untilOver(bus, one.id)
  expect(done).toMatchObject({ state: 'done', counts: { selected: 12, enqueued: 12, delivered: 12 } })
  const two = await bus.replay(options)
  await untilOver(bus, two.id)
  const expected = Array.from({ length: 12 }, (_, n) => `n${n}`).toSorted()
  expect(payloads(seen['first'], one.id)).toEqual(expected)
  expect(payloads(seen['first'], two.id)).toEqual(expected)
  expect(payloads(seen['first'])).toHaveLength(15)
  expect(seen['second']).toHaveLength(15)
  expect(seen['first']?.filter(({ isReplay }) => isReplay)).toHaveLength(24)
  expect(await receipts(database, 'first')).toBe(15)
  expect(await bus.audit.list({ action: 'replay' })).toMatchObject([
    { by: 'ana', reason: 'a test', operationId: two.id, outcome: { state: 'done' } },
    { operationId: one.id, expected: { eventCount: 12 } },
  ])
})

test('an exactly-once subscription takes effect once for each replay, also where attempts fail', async () => {
  const database = await createTestDatabase()
  await createEffects(database)
  const bus = testBus(database.url)
  const replayIds = new Set<string | undefined>()
  bus.subscribe({
    name: 'once',
    events: ['note'],
    mode: 'exactly-once',
    retry,
    handler: async (event, { tx, attempt, replayId }) => {
      await writeEffect(tx, event)
      replayIds.add(replayId)
      if (attempt < 3 && String(event.payload).endsWith('3')) throw new Error('fails twice')
    },
  })
  await bus.start()
  const ids = await publish(bus, 20)
  await until('all are delivered', async () => (await receipts(database, 'once')) === 20)
  const effects = async (): Promise<number[]> =>
    (await database.rows('select count(*)::int as n from effects group by event_id')).map(({ n }) =>
      Number(n),
    )
  expect(await effects()).toEqual(ids.map(() => 1))
  const { id } = await bus.replay({ type: 'note', subscriptions: ['once'], by: 'ana' })
  expect(await untilOver(bus, id)).toMatchObject({ state: 'done', counts: { enqueued: 20, delivered: 20 } })
  expect(await effects()).toEqual(ids.map(() => 2))
  await bus
    .replay({ type: 'note', subscriptions: ['once'], by: 'ana' })
    .then(async (two) => untilOver(bus, two.id))
  expect(await effects()).toEqual(ids.map(() => 3))
  expect(replayIds.size).toBe(3)
  expect(await receipts(database, 'once')).toBe(20)
  const [delivery] = await bus.deliveries(ids[3] ?? '')
  expect(delivery).toMatchObject({
    state: 'delivered',
    attempts: 3,
    replays: [
      { state: 'delivered', attempts: 3 },
      { replayId: id, state: 'delivered', attempts: 3 },
    ],
  })
  expect(await bus.tenant('acme').deliveries(ids[3] ?? '')).toMatchObject([
    { replays: [{}, { replayId: id }] },
  ])
  expect(await bus.tenant('other').deliveries(ids[3] ?? '')).toEqual([])
})

test('what fails in a replay is recorded beside the first delivery, which stays delivered', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const seen = subscribe(bus, ({ isReplay, payload }) => isReplay && String(payload) === 'n1')
  await bus.start()
  const ids = await publish(bus, 4)
  await until('all are delivered', async () => (await receipts(database, 'second')) === 4)
  const { id } = await bus.replay({ ids, subscriptions: ['second'], by: 'ana' })
  expect(await untilOver(bus, id)).toMatchObject({
    state: 'done',
    counts: { enqueued: 4, delivered: 3, dead: 1 },
  })
  expect(
    seen['second']
      ?.filter(({ replayId, payload }) => replayId === id && payload === 'n1')
      .map(({ attempt }) => attempt),
  ).toEqual([1, 2, 3])
  expect(await bus.deliveries(ids[1] ?? '')).toMatchObject([
    { subscription: 'first', state: 'delivered', attempts: 1 },
    {
      subscription: 'second',
      state: 'delivered',
      attempts: 1,
      replays: [{ replayId: id, state: 'dead', attempts: 3, lastError: { message: 'fails' } }],
    },
  ])
  expect(await bus.deadLetters.list()).toEqual([])
  expect(await database.count('select count(*) from bus.attempts where subscription_id < 0')).toBe(3)
})

test('the dead letters of a replay are listed by its id, a page and a condition at a time, and replayed again', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  let fails = true
  subscribe(bus, ({ isReplay, payload }) => isReplay && fails && String(payload) !== 'n0')
  await bus.start()
  const ids = await publish(bus, 4)
  const [other = ''] = await publish(bus, 1, 'other', 4)
  const subscriptions = ['first', 'second']
  for (const name of subscriptions)
    await until('all are delivered', async () => (await receipts(database, name)) === 5)
  const { id: replayId } = await bus.replay({ type: 'note', subscriptions, by: 'ana' })
  await untilOver(bus, replayId)
  const { list } = bus.deadLetters
  expect(await list()).toEqual([])
  const all = await list({ replayId })
  const dead = [...ids.slice(1), other]
  for (const name of subscriptions)
    expect(
      all
        .filter(({ subscription }) => subscription === name)
        .map(({ id }) => id)
        .toSorted(),
    ).toEqual(dead)
  expect(all).toHaveLength(8)
  expect(all[0]).toMatchObject({ type: 'note', state: 'dead', attempts: 3, replayId, blockedKey: undefined })
  expect(all[0]?.failures.map(({ message }) => message)).toEqual(['fails', 'fails', 'fails'])
  const pages: string[] = []
  for (let after: string | undefined; ;) {
    const page = await list({ replayId, limit: 3, after })
    pages.push(...page.map(({ cursor }) => cursor))
    after = page.at(-1)?.cursor
    if (page.length < 3) break
  }
  expect(pages).toEqual(all.map(({ cursor }) => cursor))
  const count = async (filter: object): Promise<number> => (await list({ replayId, ...filter })).length
  expect(await count({ subscription: 'first' })).toBe(4)
  expect(await count({ tenantId: 'other' })).toBe(2)
  expect(await count({ type: 'note', limit: 7 })).toBe(7)
  expect(await count({ type: 'payment.paid' })).toBe(0)
  expect(await count({ errorName: 'Error', fingerprint: all[0]?.fingerprint })).toBe(8)
  expect(await count({ errorName: 'TypeError' })).toBe(0)
  expect(await count({ from: new Date(Date.now() + 60_000) })).toBe(0)
  await expect(list({ replayId: crypto.randomUUID() })).rejects.toMatchObject({
    code: 'BUS_OPERATION_NOT_FOUND',
  })
  await expect(list({ replayId: 'none' })).rejects.toMatchObject({ code: 'BUS_INVALID_OPTION' })
  await expect(bus.tenant('acme').deadLetters.list({ replayId } as object)).rejects.toMatchObject({
    code: 'BUS_INVALID_OPTION',
  })

  fails = false
  const again = await bus.replay({ ids: all.map(({ id }) => id), subscriptions, by: 'ana' })
  expect(await untilOver(bus, again.id)).toMatchObject({ counts: { enqueued: 8, delivered: 8 } })
  expect(await list({ replayId: again.id })).toEqual([])
  expect(await list({ replayId })).toHaveLength(8)
})

test.each([false, true])(
  'deliveries and explain say of a replay that it is to come to an event, has it in the queue, and delivers it (ordered: %s)',
  async (ordered) => {
    const database = await createTestDatabase()
    const gate = Promise.withResolvers<void>()
    const open = (): PaymentBus => {
      const bus = testBus(database.url)
      const handler = async (_: unknown, { isReplay }: { isReplay: boolean }): Promise<void> =>
        isReplay ? gate.promise : undefined
      bus.subscribe({ ...{ name: 'notes', events: ['note'], ordered }, handler })
      bus.subscribe({ name: 'payments', events: ['payment.*'], handler: () => {} })
      return bus
    }
    const first = open()
    await first.start()
    const ids: string[] = []
    for (const payload of [1, 2])
      ids.push(
        (await first.tryPublish({ type: 'note', tenantId: 'acme', payload, orderingKey: 'k' }))?.id ?? '',
      )
    const [id = ''] = ids
    await until('both are delivered', async () => (await receipts(database, 'notes')) === 2)
    await first.stop()

    const bus = testBus(database.url)
    const states = async (): Promise<string | undefined> =>
      (await bus.deliveries(id))[0]?.replays?.map(({ state, attempts }) => `${state} ${attempts}`).join()
    /** What everybody says of it, while nothing changes. */
    const sentenceWhile = async (state: string): Promise<string> => {
      await until(`it is ${state}`, async () => (await states()) === state)
      const deliveries = await bus.deliveries(id)
      expect(deliveries).toMatchObject([{ subscription: 'notes', state: 'delivered' }])
      const { replays } = deliveries[0] ?? {}
      expect(await bus.tenant('acme').deliveries(id)).toMatchObject([{ replays }])
      const [explained] = (await bus.explain(id, 'notes')).subscriptions
      expect(explained?.replays).toEqual(replays)
      const { sentence = '' } = explained ?? {}
      expect((await bus.tenant('acme').explain(id, 'notes')).subscriptions).toMatchObject([
        { replays, sentence },
      ])
      return sentence
    }
    expect(await states()).toBeUndefined()
    await bus.subscriptions.pause('notes')
    const selection = { tenantId: 'acme', type: ['*', 'payment.**'], from: new Date(0) }
    const subscriptions = ['notes', 'payments']
    const { id: replayId } = await bus.replay({ ...selection, subscriptions, by: 'ana' })
    for (const other of [
      { tenantId: 'rival' },
      { ids: ids.slice(1) },
      { type: 'payment.*' },
      { to: new Date(0) },
    ])
      await bus.replay({ ...other, subscriptions, by: 'ana' })
    expect(await sentenceWhile('planned 0')).toContain(` The replay ${replayId} has yet to come to it.`)
    expect((await bus.explain(id)).sentence).toMatch(/in a replay to notes\.$/)

    const second = open()
    await second.start()
    const inReplay = `In the replay ${replayId}`
    expect(await sentenceWhile('waiting 0')).toContain(` ${inReplay} it waits for its first attempt.`)
    expect(await bus.subscriptions.resume('notes')).toBe(true)
    expect(await sentenceWhile('delivering 0')).toContain(` ${inReplay} it is being delivered.`)
    gate.resolve()
    expect(await sentenceWhile('delivered 1')).not.toContain('replay')
  },
)

test('a replay that was cancelled has no event still to deliver', async () => {
  const database = await createTestDatabase()
  const first = testBus(database.url)
  subscribe(first)
  await first.start()
  const [id = ''] = await publish(first, 1)
  await until('it is delivered', async () => (await receipts(database, 'second')) === 1)
  await first.stop()
  const bus = testBus(database.url)
  const replay = await bus.replay({ ids: [id], subscriptions: ['second'], by: 'ana' })
  const replays = async () =>
    (await bus.deliveries(id)).find(({ subscription }) => subscription === 'second')?.replays
  expect(await replays()).toMatchObject([{ replayId: replay.id, state: 'planned' }])
  await bus.operations.cancel(replay.id, { by: 'ana' })
  expect(await replays()).toBeUndefined()
})

test('events that wait or are dead letters are skipped, and a dry run says how many', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const seen = subscribe(bus, ({ payload }) => String(payload) === 'n2')
  bus.subscribe({ name: 'large', events: ['payment.*'], where: '$.amountCents > 100', handler: () => {} })
  await bus.start()
  await publish(bus, 5)
  for (const amountCents of [50, 150])
    await bus.tryPublish({ type: 'payment.paid', tenantId: 'acme', payload: { paymentId: 'p', amountCents } })
  await until(
    'all are delivered',
    async () => (await receipts(database, 'first')) === 4 && (await receipts(database, 'large')) === 1,
  )
  await until('one is dead', async () => (await bus.deadLetters.list()).length === 2)
  await bus.subscriptions.pause('first')
  const [waiting] = await publish(bus, 1, 'acme', 5)
  await until('it waits', async () => (await bus.deliveries(waiting ?? '')).length === 2)
  const options = { tenantId: 'acme', subscriptions: ['first', 'large'] }
  const expected = {
    eventCount: 8,
    isPartial: false,
    subscriptions: [
      {
        subscription: 'first',
        hadCount: 4,
        neverHadCount: 0,
        waitingCount: 1,
        deadCount: 1,
        filteredCount: 2,
      },
      {
        subscription: 'large',
        hadCount: 1,
        neverHadCount: 0,
        waitingCount: 0,
        deadCount: 0,
        filteredCount: 7,
      },
    ],
  }
  expect(await bus.replay({ ...options, dryRun: true })).toEqual(expected)
  expect(await bus.operations.list()).toEqual([])
  await bus.subscriptions.resume('first')
  await bus.subscriptions.pause('first')
  const { id } = await bus.replay({ ...options, by: 'ana' })
  await until('all are enqueued', async () => (await bus.operations.get(id)).counts['enqueued'] !== undefined)
  await bus.subscriptions.resume('first')
  const { counts } = await untilOver(bus, id)
  expect(counts['skippedDead']).toBe(1)
  expect(payloads(seen['first'], id).filter((payload) => payload !== 'n5')).toEqual(['n0', 'n1', 'n3', 'n4'])
})

test('an ordered subscription gets the selection in order within each key, and one event of a key at a time', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const turns: string[] = []
  let running = 0
  let most = 0
  bus.subscribe({
    name: 'ordered',
    events: ['payment.paid'],
    ordered: true,
    retry,
    handler: async ({ orderingKey, payload: { amountCents } }, { isReplay, attempt }) => {
      if (orderingKey === 'a') most = Math.max(most, (running += 1))
      await new Promise((resolve) => setTimeout(resolve, 2))
      if (orderingKey === 'a') running -= 1
      if (attempt === 1 && amountCents % 3 === 0) throw new Error('fails once')
      turns.push(`${isReplay ? 'again' : 'live'} ${orderingKey}${amountCents}`)
    },
  })
  await bus.start()
  const pay = async (orderingKey: string, amountCents: number): Promise<unknown> =>
    bus.tryPublish({
      type: 'payment.paid',
      tenantId: 'acme',
      orderingKey,
      payload: { paymentId: 'p', amountCents },
    })
  for (let n = 0; n < 10; n += 1) for (const key of ['a', 'b']) await pay(key, n)
  await until('all are settled', async () => (await receipts(database, 'ordered')) === 20)
  // Not those that come meanwhile: the first of them may be delivered before the selection is read.
  const to = new Date()
  const { id } = await bus.replay({ type: 'payment.*', to, subscriptions: ['ordered'], by: 'ana' })
  for (let n = 10; n < 20; n += 1) await pay('a', n)
  expect(await untilOver(bus, id)).toMatchObject({ counts: { delivered: 20 } })
  await until('all are delivered', () => turns.length === 50)
  const of = (prefix: string): number[] =>
    turns.filter((turn) => turn.startsWith(prefix)).map((turn) => Number(turn.slice(prefix.length)))
  const upTo = (count: number): number[] => Array.from({ length: count }, (_, n) => n)
  expect(of('again a')).toEqual(upTo(10))
  expect(of('again b')).toEqual(upTo(10))
  expect(of('live a')).toEqual([...upTo(20)])
  expect(most).toBe(1)
  await until(
    'no key is left',
    async () => (await database.count('select count(*) from bus.ordered_keys')) === 0,
  )
})

test('a replayed event that blocks its key is released like any other, and stays one of its replay', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const turns: string[] = []
  let fails = true
  bus.subscribe({
    name: 'ordered',
    events: ['payment.paid'],
    ordered: true,
    retry: { ...retry, maxAttempts: 2 },
    handler: ({ payload: { amountCents } }, { isReplay }) => {
      if (isReplay && fails && amountCents === 1) throw new Error('fails')
      turns.push(`${isReplay ? 'again ' : ''}${amountCents}`)
    },
  })
  await bus.start()
  const pay = async (amountCents: number): Promise<unknown> =>
    bus.tryPublish({
      type: 'payment.paid',
      tenantId: 'acme',
      orderingKey: 'k',
      payload: { paymentId: 'p', amountCents },
    })
  for (let n = 0; n < 3; n += 1) await pay(n)
  await until('all are delivered', () => turns.length === 3)
  const { id } = await bus.replay({ type: 'payment.paid', subscriptions: ['ordered'], by: 'ana' })
  await until('the key is blocked', async () => (await bus.blockedKeys.list()).length === 1)
  await pay(3)
  expect((await bus.operations.get(id)).counts).toMatchObject({ delivered: 1, dead: 1 })
  fails = false
  expect(await bus.blockedKeys.release({ subscription: 'ordered', tenantId: 'acme', orderingKey: 'k' })).toBe(
    true,
  )
  await until('all are delivered', () => turns.length === 7)
  expect(turns).toEqual(['0', '1', '2', 'again 0', 'again 1', 'again 2', '3'])
  await untilOver(bus, id)
  expect(await database.count('select count(*) from bus.failing')).toBe(0)
})

test('cancelling a replay drops what has not begun', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const seen = subscribe(bus)
  bus.subscribe({
    name: 'ordered',
    events: ['note'],
    ordered: true,
    handler: (_, { isReplay }) => void (seen['ordered'] ??= []).push({ isReplay } as Call),
  })
  await bus.start()
  for (let n = 0; n < 30; n += 1)
    await bus.tryPublish({ type: 'note', tenantId: 'acme', payload: n, orderingKey: `k${n % 3}` })
  await until('all are delivered', () => seen['first']?.length === 30 && seen['ordered']?.length === 30)
  for (const name of ['first', 'ordered']) await bus.subscriptions.pause(name)
  const { id } = await bus.replay({ type: 'note', subscriptions: ['first', 'ordered'], by: 'ana' })
  await until('all are enqueued', async () => (await bus.operations.get(id)).counts['enqueued'] === 60)
  expect(await bus.operations.pause(id, { by: 'ana' })).toBe(true)
  expect(await bus.operations.resume(id, { by: 'ana' })).toBe(true)
  expect(await bus.operations.cancel(id, { by: 'ana', reason: 'a mistake' })).toBe(true)
  for (const name of ['first', 'ordered']) await bus.subscriptions.resume(name)
  await until('nothing waits', async () =>
    (await bus.subscriptions.list()).every(({ waitingCount }) => waitingCount === 0),
  )
  await until(
    'no key is left',
    async () => (await database.count('select count(*) from bus.ordered_keys')) === 0,
  )
  expect(seen['first']).toHaveLength(30)
  expect(seen['ordered']).toHaveLength(30)
  await bus.tryPublish({ type: 'note', tenantId: 'acme', payload: 'live', orderingKey: 'k0' })
  await until('live events go on', () => seen['first']?.length === 31 && seen['ordered']?.length === 31)
})

/** A process with a subscription whose handler waits in replays. */
async function startWaiting(database: TestDatabase, name: string): Promise<PaymentBus> {
  const bus = testBus(database.url)
  bus.subscribe({
    ...{ name, events: ['note'], concurrency: 1, batchSize: 1 },
    handler: async (_event, { isReplay, signal }) => {
      if (isReplay)
        await new Promise((_, reject) =>
          signal.addEventListener('abort', () => reject(new Error('the process stops'))),
        )
    },
  })
  await bus.start()
  return bus
}

test.each([
  [true, { delivered: 5, dropped: 5 }, 'The subscription `gone` was removed: the others have got the events'],
  [false, { dropped: 5 }, 'The subscription `gone` was removed: nobody is left who gets the events'],
])(
  'a replay ends when a subscription of it was removed, and says so (others are left: %s)',
  async (isOtherLeft, counts, reason) => {
    const database = await createTestDatabase()
    const bus = testBus(database.url)
    subscribe(bus)
    await bus.start()
    const gone = await startWaiting(database, 'gone')
    const ids = await publish(bus, 5)
    for (const name of ['first', 'gone'])
      await until('all are delivered', async () => (await receipts(database, name)) === 5)
    const subscriptions = isOtherLeft ? ['first', 'gone'] : ['gone']
    const { id } = await bus.replay({ ids, subscriptions, by: 'ana' })
    await until(
      'all are enqueued',
      async () => (await bus.operations.get(id)).counts['enqueued'] === 5 * subscriptions.length,
    )
    await until(
      'the others have got them',
      async () => !isOtherLeft || (await bus.operations.get(id)).counts['delivered'] === 5,
    )
    expect((await bus.operations.get(id)).state).toBe('running')
    await gone.stop({ graceMs: 0 })
    await bus.subscriptions.remove('gone', { by: 'bo', waiting: 'discard' })
    const done = await untilOver(bus, id)
    expect(done).toMatchObject({
      ...{ state: 'done', stateReason: reason, subscriptions },
      counts: { enqueued: 5 * subscriptions.length, ...counts },
    })
    expect(await bus.audit.list({ operationId: id })).toMatchObject([{ outcome: { state: 'done', reason } }])
  },
)

test('a catch-up ends when its subscription was removed, and says so', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  subscribe(bus)
  await bus.start()
  await publish(bus, 3)
  const late = testBus(database.url)
  late.subscribe({ name: 'late', events: ['note'], startFrom: 'beginning', handler: () => {} })
  await late.start()
  await until('it has caught up', async () => (await receipts(database, 'late')) === 3)
  const [catchUp] = await bus.operations.list({ kind: 'catch-up' })
  const id = catchUp?.id ?? ''
  await untilOver(bus, id)
  await late.stop()
  // As if it had been paused on the way.
  await database.rows(`update bus.operations set state = 'paused', finished_at = null where id = $1`, [id])
  await bus.subscriptions.remove('late', { by: 'bo' })
  await bus.operations.resume(id, { by: 'bo' })
  expect(await untilOver(bus, id)).toMatchObject({
    state: 'done',
    stateReason: 'The subscription was removed: nobody is left who gets the events',
  })
})

test('what a late worker has done of a replay whose jobs are gone is not counted, as it gets no receipt', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const gate = Promise.withResolvers<void>()
  let held = 0
  bus.subscribe({
    ...{ name: 'held', events: ['note'] },
    handler: async (_event, { isReplay }) => {
      if (!isReplay) return
      held += 1
      await gate.promise
    },
  })
  await bus.start()
  const ids = await publish(bus, 8)
  await until('all are delivered', async () => (await receipts(database, 'held')) === 8)
  const { id } = await bus.replay({ ids, subscriptions: ['held'], by: 'ana' })
  await until('it runs', () => held > 0)
  // As a crash of the server leaves it, which undoes the part that has inserted them.
  await database.rows(`delete from pgboss.job where name = 'bus.held'`)
  gate.resolve()
  await until('all have run', () => held === 8)
  // Behind it, in the order of settlements.
  await publish(bus, 1)
  await until('another one is delivered', async () => (await receipts(database, 'held')) === 9)
  await bus.operations.cancel(id, { by: 'ana' })
  expect((await bus.operations.get(id)).counts).toEqual({ selected: 8, enqueued: 8 })
  expect(await database.count('select count(*) from bus.receipts where subscription_id < 0')).toBe(0)
  expect(await database.count('select count(*) from bus.receipt_batches where subscription_id < 0')).toBe(0)
})

test('a selection is by tenant, type and pattern, correlation, subject, time and ids, and several of them', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  subscribe(bus)
  bus.subscribe({ name: 'all', events: ['**'], handler: () => {} })
  await bus.start()
  const note = async (rest: object): Promise<string> =>
    (await bus.tryPublish({ type: 'note', tenantId: 'acme', payload: 'n', ...rest }))?.id ?? ''
  const a = await note({ correlationId: 'c' })
  const b = await note({ subject: 's' })
  const c = await note({ tenantId: 'other', subject: 's', correlationId: 'c' })
  await bus.tryPublish({
    type: 'payment.paid',
    tenantId: 'acme',
    payload: { paymentId: 'p', amountCents: 1 },
  })
  await bus.tryPublish({ type: 'payment.refunded', tenantId: 'acme', payload: { paymentId: 'p' } })
  const count = async (selection: object): Promise<number> =>
    (await bus.replay({ ...selection, subscriptions: ['all'], dryRun: true })).eventCount
  expect(await count({ tenantId: 'acme' })).toBe(4)
  expect(await count({ tenantId: 'other' })).toBe(1)
  expect(await count({ type: 'note' })).toBe(3)
  expect(await count({ type: ['payment.*'] })).toBe(2)
  expect(await count({ type: ['payment.*', 'note'], tenantId: 'acme' })).toBe(4)
  expect(await count({ tenantId: 'acme', correlationId: 'c' })).toBe(1)
  expect(await count({ tenantId: 'acme', subject: 's' })).toBe(1)
  expect(await count({ ids: [a, b, c] })).toBe(3)
  expect(await count({ ids: [a, b, c], tenantId: 'other' })).toBe(1)
  expect(await count({ ids: Array.from({ length: limits.replayIdCount }, () => a) })).toBe(1)
  expect(await count({ from: new Date(0) })).toBe(5)
  expect(await count({ from: new Date(Date.now() + 60_000) })).toBe(0)
  expect(await count({ to: new Date(Date.now() - 60_000) })).toBe(0)
  const refusals: [object, string][] = [
    [{ by: 'ana' }, 'BUS_INVALID_OPTION'],
    [{ tenantId: 'acme' }, 'BUS_INVALID_OPTION'],
    [{ subject: 's', by: 'ana' }, 'BUS_INVALID_OPTION'],
    [{ type: [], by: 'ana' }, 'BUS_INVALID_OPTION'],
    [{ type: 'a..b', by: 'ana' }, 'BUS_INVALID_PATTERN'],
    [{ ids: ['x'], by: 'ana' }, 'BUS_INVALID_OPTION'],
    [{ ids: Array.from({ length: limits.replayIdCount + 1 }, () => a), by: 'ana' }, 'BUS_INVALID_OPTION'],
    [{ tenantId: 'acme', rate: 0, by: 'ana' }, 'BUS_INVALID_OPTION'],
    [{ tenantId: 'acme', rate: null, by: 'ana' }, 'BUS_INVALID_OPTION'],
    [{ tenantId: 'acme', rate: limits.operationRate + 1, by: 'ana' }, 'BUS_INVALID_OPTION'],
    [{ tenantId: 'acme', by: '', dryRun: true }, 'BUS_INVALID_OPTION'],
    [{ tenantId: 'acme', by: null }, 'BUS_INVALID_OPTION'],
    [{ tenantId: 'acme', tennant: 1, by: 'ana' }, 'BUS_INVALID_OPTION'],
    [{ tenantId: 'acme', by: 'ana', subscriptions: [] }, 'BUS_INVALID_OPTION'],
    [{ tenantId: 'acme', by: 'ana', subscriptions: ['none'] }, 'BUS_SUBSCRIPTION_NOT_FOUND'],
  ]
  for (const [options, code] of refusals)
    await expect(bus.replay({ subscriptions: ['all'], ...options } as never)).rejects.toMatchObject({ code })
  expect(await bus.operations.list()).toEqual([])
})
