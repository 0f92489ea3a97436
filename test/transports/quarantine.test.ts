import { expect, test } from 'vitest'
import type { ReceivedMessage } from '../../src/transports/index.ts'
import { runCli } from '../support/cli.ts'
import { testBus, type PaymentBus } from '../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { memorySource, messageWith } from '../support/memory-source.ts'
import { createOperatorFolder, jsonLines } from '../support/operated.ts'

const { signal } = new AbortController()
const me = { by: 'ana' }

interface Mapping {
  isMended: boolean
}

function startReceiver(url: string, mapping: Mapping, name = 'orders') {
  const bus = testBus(url)
  const source = memorySource()
  const seen: ReceivedMessage[] = []
  bus.receive({
    ...{ name, from: source },
    map(message) {
      seen.push(message)
      if (!mapping.isMended) throw new Error('no such field')
      return { type: 'note', tenantId: 'acme', payload: Buffer.from(message.body).toString() }
    },
  })
  return { bus, source, seen }
}

const stateOf = async ({ rows }: TestDatabase): Promise<unknown[]> =>
  rows(
    'select message_id as id, state, code, event_ids::text[] as events from bus.quarantined_messages order by id',
  )

/** Messages of the quarantine, which an operator with a bus of its own sees. */
async function poisoned(
  messages: readonly ReceivedMessage[],
): Promise<{ database: TestDatabase; operator: PaymentBus; mapping: Mapping; ids: readonly string[] }> {
  const database = await createTestDatabase()
  const mapping = { isMended: false }
  const { bus, source } = startReceiver(database.url, mapping)
  await bus.start({ run: ['orders'] })
  await source.receive(messages, { signal })
  await bus.stop()
  const operator = testBus(database.url)
  const ids = (await operator.quarantine.list()).map(({ id }) => id)
  return { database, operator, mapping, ids: ids.toReversed() }
}

test('people list messages by pages, newest first, and see one as it came', async () => {
  const body = Buffer.from([0, 255, 254, 10])
  const { operator, ids } = await poisoned([
    messageWith('1', '', { body, headers: { a: 'b' }, key: 'k', contentType: 'x/y', from: 'topic' }),
    ...Array.from({ length: 4 }, (_, n) => messageWith(`${n + 2}`, 'x')),
  ])
  const first = await operator.quarantine.list({ limit: 3 })
  expect(first.map(({ messageId }) => messageId)).toEqual(['5', '4', '3'])
  expect(
    (await operator.quarantine.list({ limit: 3, after: first[2]?.id })).map(({ messageId }) => messageId),
  ).toEqual(['2', '1'])
  expect(await operator.quarantine.get(ids[0] ?? '')).toMatchObject({
    ...{ receiver: 'orders', messageId: '1', state: 'new', code: 'BUS_MAP_FAILED', reason: 'no such field' },
    ...{ from: 'topic', contentType: 'x/y', key: 'k', headers: { a: 'b' }, body, bodyBytes: 4 },
    ...{ isCut: false, receivedCount: 1, eventIds: [], decidedBy: undefined },
  })
  expect(await operator.quarantine.list({ receiver: 'other' })).toEqual([])
  expect(await operator.quarantine.list({ code: 'BUS_INVALID_EVENT' })).toEqual([])
  expect(
    await operator.quarantine.list({ from: new Date(0), to: new Date(Date.now() + 60_000) }),
  ).toHaveLength(5)
  expect(await operator.quarantine.get('01932f2c-5b4e-7cc0-8a2d-3f1e5d7c9b10')).toBeUndefined()
})

test('a message that is tried again goes through the map of a process that runs its receiver, and becomes one event', async () => {
  const { database, operator, mapping, ids } = await poisoned([
    messageWith('1', 'one', { headers: { a: 'b' }, key: 'k' }),
    messageWith('2', 'two'),
    messageWith('3', 'three'),
  ])
  expect(await operator.quarantine.retry({ ids: ids.slice(0, 1) }, { ...me, dryRun: true })).toEqual({
    count: 1,
  })
  expect(await operator.quarantine.retry({ ids: ids.slice(0, 1) }, { ...me, reason: 'mended' })).toEqual({
    count: 1,
  })
  expect(await stateOf(database)).toMatchObject([{ state: 'retrying' }, { state: 'new' }, { state: 'new' }])
  const receiver = startReceiver(database.url, mapping)
  await receiver.bus.start({ run: ['orders'] })
  await until('it has failed again', async () => (await operator.quarantine.list()).length === 3)
  expect(receiver.seen).toMatchObject([{ id: '1', headers: { a: 'b' }, key: 'k', body: Buffer.from('one') }])
  mapping.isMended = true
  // The running process is told.
  expect(await operator.quarantine.retry({ receiver: 'orders' }, me)).toEqual({ count: 3 })
  await until(
    'all are stored',
    async () => (await operator.quarantine.list({ state: 'stored' })).length === 3,
  )
  const events = await database.rows(
    'select id::text, payload, idempotency_key as key from bus.events order by id',
  )
  expect(events.map(({ payload, key }) => [payload, key])).toEqual([
    ['one', 'orders:1'],
    ['two', 'orders:2'],
    ['three', 'orders:3'],
  ])
  expect(await stateOf(database)).toMatchObject(events.map(({ id }) => ({ state: 'stored', events: [id] })))
  // Neither its system nor a person makes a second event of it.
  await receiver.source.receive([messageWith('1', 'one')], { signal })
  expect(await operator.quarantine.retry({ ids }, me)).toEqual({ count: 0 })
  expect(await database.count('select count(*) from bus.events')).toBe(3)
  expect(await operator.audit.list({ action: 'quarantine.retry' })).toMatchObject([
    { by: 'ana', selection: { receiver: 'orders' }, outcome: { count: 3 } },
    { by: 'ana', reason: 'mended', outcome: { count: 1 } },
  ])
})

test('a message that is stored by its system meanwhile is no second event', async () => {
  const { database, operator, mapping } = await poisoned([messageWith('1', 'one')])
  mapping.isMended = true
  const { bus, source } = startReceiver(database.url, mapping)
  await bus.start()
  await source.receive([messageWith('1', 'one')], { signal })
  await operator.quarantine.retry({ receiver: 'orders' }, me)
  await until('it is stored', async () => (await operator.quarantine.list({ state: 'stored' })).length === 1)
  expect(await database.count('select count(*) from bus.events')).toBe(1)
})

test('several processes that try the same messages again make one event of each', async () => {
  const { database, operator, mapping } = await poisoned(
    Array.from({ length: 60 }, (_, n) => messageWith(`${n}`, `${n}`)),
  )
  mapping.isMended = true
  const buses = [1, 2, 3].map(() => startReceiver(database.url, mapping).bus)
  await Promise.all(buses.map(async (bus) => bus.start({ run: ['orders'] })))
  expect(await operator.quarantine.retry({ from: new Date(0) }, me)).toEqual({ count: 60 })
  await until(
    'all are stored',
    async () => (await operator.quarantine.list({ state: 'stored', limit: 100 })).length === 60,
  )
  expect(await database.count('select count(*) from bus.events')).toBe(60)
})

test('a discarded message stays so when it comes again, and may be tried again by its id', async () => {
  const { database, operator, mapping, ids } = await poisoned([
    messageWith('1', 'one'),
    messageWith('2', 'two'),
  ])
  expect(await operator.quarantine.discard({ ids: ids.slice(0, 1) }, { ...me, reason: 'a test' })).toEqual({
    count: 1,
  })
  expect(await operator.quarantine.discard({ ids: ids.slice(0, 1) }, { ...me, reason: 'a test' })).toEqual({
    count: 0,
  })
  const { bus, source } = startReceiver(database.url, mapping)
  await bus.start()
  await source.receive([messageWith('1', 'one')], { signal })
  expect(await operator.quarantine.get(ids[0] ?? '')).toMatchObject({
    state: 'discarded',
    receivedCount: 2,
    decidedReason: 'a test',
  })
  expect(await operator.audit.list({ action: 'quarantine.discard' })).toHaveLength(1)
  mapping.isMended = true
  expect(await operator.quarantine.retry({ receiver: 'orders' }, me)).toEqual({ count: 1 })
  expect(await operator.quarantine.retry({ ids }, me)).toEqual({ count: expect.toBeOneOf([0, 1]) as number })
  await operator.quarantine.retry({ ids: ids.slice(0, 1) }, me)
  await until(
    'both are stored',
    async () => (await operator.quarantine.list({ state: 'stored' })).length === 2,
  )
})

test('a body that is too large is kept in part, and cannot be tried again', async () => {
  const { database, operator, mapping } = await poisoned([
    messageWith('large', 'x', {
      body: Buffer.alloc(16_777_217, 1),
      headers: { long: 'x'.repeat(100_000), short: 'y' },
    }),
  ])
  const [found] = await operator.quarantine.list()
  expect(found).toMatchObject({ bodyBytes: 16_777_217, isCut: true })
  const details = await operator.quarantine.get(found?.id ?? '')
  expect(details?.body).toHaveLength(16_777_216)
  expect(details?.headers).toEqual({ short: 'y' })
  mapping.isMended = true
  await startReceiver(database.url, mapping).bus.start()
  await operator.quarantine.retry({ receiver: 'orders' }, me)
  await until(
    'it is refused',
    async () => (await operator.quarantine.list())[0]?.code === 'BUS_MESSAGE_TOO_LARGE',
  )
})

test('what is not to be taken for a message is refused', async () => {
  const { quarantine } = testBus((await createTestDatabase()).url)
  for (const call of [
    () => quarantine.retry({}, me),
    () => quarantine.retry({ ids: [] }, me),
    () => quarantine.retry({ ids: ['x'] }, me),
    () => quarantine.retry({ receiver: 'a' }, {} as never),
    () => quarantine.discard({ receiver: 'a' }, me as never),
    () => quarantine.list({ state: 'lost' as never }),
    () => quarantine.list({ reciever: 'a' } as never),
    () => quarantine.get('x'),
  ])
    await expect(call()).rejects.toMatchObject({ code: 'BUS_INVALID_OPTION' })
})

test('health, metrics and the command line tell of messages that wait for a person', async () => {
  const { database, operator, mapping } = await poisoned([
    messageWith('1', 'one'),
    messageWith(undefined, 'two'),
  ])
  const findings = async (): Promise<unknown[]> => {
    const health = await operator.health({ full: true })
    return health.findings.filter(({ code }) => code === 'messages-quarantined')
  }
  expect(await findings()).toMatchObject([
    { severity: 'warning', data: { receivers: [{ receiver: 'orders', count: 2 }], count: 2 } },
  ])
  expect(await operator.metrics()).toContain('bossbus_quarantined_messages{receiver="orders"} 2')
  const folder = await createOperatorFolder()
  const cli = async (...args: readonly string[]) => runCli(folder, args, { DATABASE_URL: database.url })
  const listed = await cli('quarantine', 'list', '--json')
  expect(jsonLines(listed)).toMatchObject([{ receiver: 'orders' }, { receiver: 'orders', messageId: '1' }])
  expect((await cli('quarantine', 'list')).out).toContain('BUS_MAP_FAILED')
  const [withoutId, withId] = (await operator.quarantine.list()).map(({ id }) => id)
  const shown = await cli('quarantine', 'show', withId ?? '')
  expect(shown.out).toContain('no such field')
  expect(shown.out).toContain('one')
  expect((await cli('quarantine', 'show', '01932f2c-5b4e-7cc0-8a2d-3f1e5d7c9b10')).code).toBe(1)
  expect((await cli('quarantine', 'retry')).code).toBe(2)
  expect((await cli('quarantine', 'retry', '--all', '--dry-run')).out).toContain(
    '2 messages would be tried again',
  )
  expect((await cli('quarantine', 'discard', withoutId ?? '', '--yes')).code).toBe(2)
  expect((await cli('quarantine', 'discard', withoutId ?? '', '--reason', 'a test', '--yes')).out).toContain(
    '1 discarded',
  )
  expect((await cli('quarantine', 'retry', '--receiver', 'orders', '--yes')).out).toContain(
    '1 are tried again',
  )
  expect(await findings()).toEqual([])
  mapping.isMended = true
  await startReceiver(database.url, mapping).bus.start()
  await until('it is stored', async () => (await operator.quarantine.list({ state: 'stored' })).length === 1)
})
