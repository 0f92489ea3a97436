import { expect, onTestFinished, test } from 'vitest'
import { createDatabase } from '../../../src/database/database.ts'
import { openNotifier } from '../../../src/outbox/relay/notifier.ts'
import { claimRowsSql } from '../../../src/outbox/relay/claim-sql.ts'
import { startRelay } from '../../../src/outbox/relay/relay.ts'
import { recordingLogger, testBus, type PaymentBus } from '../../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'
import { startProgram } from '../../support/processes.ts'
import { roomFor } from '../../support/slowness.ts'

/** A tolerance for a machine that is busy with other things; docs/adr/0009 says what was measured on one that is not. */
const toleranceMs = 2000

const note = (payload: unknown, fields: { availableAt?: Date; expiresAt?: Date } = {}) =>
  ({ type: 'note', tenantId: 'acme', payload, ...fields }) as const
const inMs = (ms: number) => new Date(Date.now() + ms)

async function publish(
  bus: PaymentBus,
  { db }: TestDatabase,
  events: readonly ReturnType<typeof note>[],
): Promise<void> {
  await db.transaction(async (tx) => bus.publishMany(tx, events))
}

function subscribe(bus: PaymentBus): Map<unknown, number> {
  const seenAt = new Map<unknown, number>()
  bus.subscribe({
    name: 'seen',
    events: ['note'],
    handler: ({ payload }) => void seenAt.set(payload, Date.now()),
  })
  return seenAt
}

const sleeping = async (bus: PaymentBus): Promise<boolean> => (await bus.health()).relay === 'sleeping'

/** Rows that the nodes of a plan read from the outbox, those they threw away included. */
function outboxRows(node: Record<string, unknown>): number {
  const own =
    node['Relation Name'] === 'outbox' ||
    (node['Index Name'] as string | undefined)?.startsWith('outbox') === true
      ? (Number(node['Actual Rows']) + Number(node['Rows Removed by Filter'] ?? 0)) *
        Number(node['Actual Loops'])
      : 0
  const plans = (node['Plans'] ?? []) as Record<string, unknown>[]
  return plans.reduce((sum, plan) => sum + outboxRows(plan), own)
}

test.each(['before', 'after'])(
  'a claim reads none of a hundred thousand scheduled events, %s the statistics know of them',
  async (when) => {
    const database = await createTestDatabase()
    await database.rows('alter table bus.outbox set (autovacuum_enabled = off)')
    await database.rows(
      `insert into bus.events (tenant_id, type, source, payload, available_at)
       select 'acme', 'note', 'psql', '1', now() + n * interval '1 second' from generate_series(1000, 101000) n`,
    )
    await database.rows(
      `insert into bus.events (tenant_id, type, source, payload) select 'acme', 'note', 'psql', '1' from generate_series(1, 10)`,
    )
    if (when === 'after') await database.rows('analyze bus.outbox')
    expect(await database.count('select count(*) from bus.outbox where position > 4611686018427387904')).toBe(
      100_001,
    )
    const [row] = await database.rows(`explain (analyze, format json) ${claimRowsSql(0n)}`)
    const [{ Plan: plan }] = (row ?? {})['QUERY PLAN'] as [{ Plan: Record<string, unknown> }]
    // The ten, as they are found, locked and deleted, and the first of the scheduled ones.
    expect(outboxRows(plan)).toBeGreaterThanOrEqual(20)
    expect(outboxRows(plan)).toBeLessThan(100)
    expect(await database.count('select count(*) from bus.outbox')).toBe(100_001)
  },
)

test('scheduled events fire at their time, also one that is due sooner than the one the relay waits for', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const seenAt = subscribe(bus)
  await bus.start()
  const due = { late: inMs(2500), soon: inMs(0), sooner: inMs(0) }
  await publish(bus, database, [
    note('far', { availableAt: inMs(3_600_000) }),
    note('late', { availableAt: due.late }),
  ])
  await until('the relay sleeps', async () => sleeping(bus))
  due.soon = inMs(800)
  await publish(bus, database, [note('soon', { availableAt: due.soon })])
  await until('the relay sleeps again', async () => sleeping(bus))
  due.sooner = inMs(300)
  await publish(bus, database, [note('sooner', { availableAt: due.sooner })])
  await until('all are there', () => seenAt.size === 3)
  for (const [name, time] of Object.entries(due)) {
    const lateMs = (seenAt.get(name) ?? 0) - time.getTime()
    expect(lateMs).toBeGreaterThanOrEqual(0)
    expect(lateMs).toBeLessThan(roomFor(toleranceMs))
  }
})

test('with several relays each scheduled event fires once, also after the leading one has gone', async () => {
  const database = await createTestDatabase()
  const buses = [testBus(database.url), testBus(database.url), testBus(database.url)] as const
  const counts = new Map<unknown, number>()
  for (const bus of buses) {
    bus.subscribe({
      name: 'seen',
      events: ['note'],
      handler: ({ payload }) => void counts.set(payload, (counts.get(payload) ?? 0) + 1),
    })
    await bus.start()
  }
  const [first] = buses
  await until('the first one leads', async () => sleeping(first))
  await publish(
    first,
    database,
    Array.from({ length: 2500 }, (_, i) => note(i, { availableAt: inMs(200 + (i % 100)) })),
  )
  await until('all have fired', () => counts.size === 2500)
  await publish(first, database, [note('heir', { availableAt: inMs(1500) })])
  await first.stop()
  await until('it has fired without the first one', () => counts.has('heir'))
  await until(
    'all receipts are there',
    async () => (await database.count('select count(*) from bus.deliveries')) === 2501,
  )
  expect(new Set(counts.values())).toEqual(new Set([1]))
})

test('what was due while nothing ran fires at the start, and what is due later at its time', async () => {
  const database = await createTestDatabase()
  const before = testBus(database.url)
  subscribe(before)
  await before.start()
  const later = inMs(3000)
  await publish(before, database, [
    note('meanwhile', { availableAt: inMs(500) }),
    note('later', { availableAt: later }),
  ])
  await before.stop()
  await until(
    'one is due',
    async () =>
      (await database.count('select count(*) from bus.outbox where available_at <= clock_timestamp()')) === 1,
  )
  const after = testBus(database.url)
  const seenAt = subscribe(after)
  await after.start()
  await until('both have fired', () => seenAt.size === 2)
  expect([...seenAt.keys()]).toEqual(['meanwhile', 'later'])
  expect(seenAt.get('later')).toBeGreaterThanOrEqual(later.getTime())
})

test('due events join the line also while every claim is full', async () => {
  const database = await createTestDatabase()
  const insertMore = `insert into bus.events (tenant_id, type, source, payload) select 'acme', 'note', 'psql', '1' from generate_series(1, 1000)`
  await database.rows(
    `insert into bus.events (tenant_id, type, source, payload, available_at)
     values ('acme', 'payment.refunded', 'psql', '1', clock_timestamp() + interval '200 ms')`,
  )
  await database.rows(insertMore)
  await until(
    'it is due',
    async () =>
      (await database.count('select count(*) from bus.outbox where available_at <= clock_timestamp()')) > 0,
  )
  const logger = recordingLogger()
  const ownDatabase = createDatabase(database.url, logger)
  const doorbell = openNotifier(ownDatabase, 'test', logger, {
    onPublished: () => {},
    onWake: () => {},
    onStateChange: () => {},
    onOperations: () => {},
    onConnection: () => {},
  })
  let firedAfter: number | undefined
  let claimCount = 0
  const relay = startRelay(
    ownDatabase,
    doorbell,
    async (client, claimed) => {
      claimCount += 1
      if (claimed.some(({ type }) => type === 'payment.refunded')) firedAfter ??= claimCount
      // As busy publishers do: the next claim will be full, too.
      if (firedAfter === undefined && claimCount < 20) await client.query(insertMore)
      return () => {}
    },
    logger,
  )
  onTestFinished(async () => {
    await relay.stop()
    await doorbell.close()
    await ownDatabase.close()
  })
  await until('it was claimed', () => firedAfter !== undefined)
  expect(firedAfter).toBeLessThan(20)
})

test.each([3_600_000, -3_600_000])(
  'a process whose clock is wrong by %d ms schedules, expires and retries as any other',
  async (shiftMs) => {
    const database = await createTestDatabase()
    await database.rows('create table handled (event_id uuid not null, at timestamptz not null)')
    await startProgram('shifted-clock-process.ts', database.url, String(shiftMs))
    const publisher = testBus(database.url)
    await publish(publisher, database, [
      note('later', { availableAt: inMs(1000) }),
      note('in half an hour', { availableAt: inMs(1_800_000) }),
      note('good for half an hour', { expiresAt: inMs(1_800_000) }),
      note('gone for half an hour', { expiresAt: inMs(-1_800_000) }),
      note('again'),
    ])
    await until(
      'four have receipts',
      async () => (await database.count('select count(*) from bus.deliveries')) === 4,
    )
    const handled = await database.rows(
      `select e.payload, d.attempts, d.expired,
         extract(epoch from h.at - coalesce(e.available_at, e.created_at))::float8 as "lateSeconds"
       from bus.events e join bus.deliveries d on d.event_id = e.id left join handled h on h.event_id = e.id
       order by e.payload`,
    )
    const late = (from: number): unknown =>
      expect.toSatisfy((seconds: number) => seconds >= from && seconds < 15)
    expect(handled).toEqual([
      { payload: 'again', attempts: 2, expired: false, lateSeconds: late(0.5) },
      { payload: 'gone for half an hour', attempts: 0, expired: true, lateSeconds: null },
      { payload: 'good for half an hour', attempts: 1, expired: false, lateSeconds: late(0) },
      { payload: 'later', attempts: 1, expired: false, lateSeconds: late(0) },
    ])
  },
)
