import { setTimeout as pause } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { createDatabase } from '../../../src/database/database.ts'
import { createCleanup } from '../../../src/delivery/maintenance/cleanup.ts'
import { createReceiptPacker } from '../../../src/delivery/ledger/pack-receipts.ts'
import { publish } from '../../support/ledger.ts'
import { recordingLogger, testBus } from '../../support/bus.ts'
import { openBoss } from '../../support/queues.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'
import { isFullForm } from '../../support/form.ts'
import { migrateTo } from '../../support/migrations.ts'

/** The number of migrations before the ledger. */
const before = 5

/** Receipts of an earlier version: so many events, two hundred a second up to an hour ago, for two subscriptions. */
async function fillAsBefore({ rows }: TestDatabase, count: number): Promise<void> {
  await rows(`
    insert into bus.subscriptions (name, service, patterns, options) values
      ('plain', 'payment-service', '{never}', '{"mode": "at-least-once"}'), ('once', 'payment-service', '{never}', '{"mode": "exactly-once"}')`)
  await rows(
    `insert into bus.deliveries (subscription_id, event_id, attempts, duration_ms, expired, erased, delivered_at)
     select s.id, overlay(overlay(bus.uuid_v7_floor(at)::text placing '7' from 15) placing lpad(to_hex(n), 12, '0') from 25)::uuid,
       case when n % 100 = 7 then 2 else 1 end, n % 50, n % 100 = 8, case when n % 100 = 9 then true end, at
     from generate_series(1, $1::int) n
     cross join lateral (select date_trunc('hour', now()) - interval '1 hour' - n * interval '5 milliseconds' as at) t
     cross join bus.subscriptions s`,
    [count],
  )
}

async function packAll({ url }: TestDatabase): Promise<number> {
  const database = createDatabase(url, recordingLogger())
  const packed = await createReceiptPacker(database)()
  await database.close()
  return packed
}

const contents = `select subscription_id, event_id, attempts, expired, erased, duration_ms from bus.deliveries order by 1, 2`

test('receipts of an earlier version are packed, and read as before', async () => {
  const database = await createTestDatabase({ empty: true })
  const { rows, count } = database
  await migrateTo(database.url, before)
  await fillAsBefore(database, 1200)
  const old = await rows(contents)
  await testBus(database.url).migrate()
  expect(await rows(contents)).toEqual(old)
  // Of each hundred, one was tried twice, one expired, and one was erased.
  expect(await packAll(database)).toBe(1200 - 36)
  expect(await rows(contents)).toEqual(old)
  expect(await count('select count(*) from bus.receipts')).toBe(1200 + 36)
  expect(await count('select count(*) from bus.receipt_batches')).toBeLessThan(40)
  expect(await packAll(database)).toBe(0)
})

test('a process of the version before that runs beside newer ones delivers what was failing, and its dead letters are found', async () => {
  const database = await createTestDatabase()
  const { rows, count } = database
  const bus = testBus(database.url)
  bus.subscribe({
    ...{ name: 'doomed', events: ['note'], retry: { maxAttempts: 1 } },
    handler: () => {
      throw new Error('refused')
    },
  })
  await bus.start()
  const note = { type: 'note', tenantId: 'acme', payload: 1 } as const
  const [delivered = '', dead = ''] = await publish(database, bus, note, note)
  await until('both are dead', async () => (await bus.deadLetters.list()).length === 2)
  // What it writes about one that it has delivered after all ...
  await rows(`delete from pgboss.job where name = 'bus.doomed.dead' and data->'eventIds' ? $1`, [delivered])
  await rows(
    `insert into bus.deliveries (subscription_id, event_id, attempts, duration_ms) select id, $1, 2, 1 from bus.subscriptions`,
    [delivered],
  )
  expect(await rows('select event_id from bus.failing')).toEqual([{ event_id: dead }])
  // ... and does not write about one that has failed.
  await rows('truncate bus.attempts')
  await rows(`update bus.failing set state = 'retrying', attempts = 0, next_attempt_at = now()`)
  // Recorded at the moment when it was delivered.
  await rows(
    `insert into bus.failing (subscription_id, event_id, state, attempts, job_id) select id, $1, 'retrying', 1, gen_random_uuid() from bus.subscriptions`,
    [delivered],
  )
  await bus.stop()
  const own = createDatabase(database.url, recordingLogger())
  const boss = await openBoss(database.url)
  await createCleanup(own, boss)()
  expect(
    await rows('select event_id, state, attempts, error_name from bus.failing where event_id = $1', [dead]),
  ).toEqual([{ event_id: dead, state: 'dead', attempts: 1, error_name: 'Error' }])
  expect(await count('select count(*) from bus.dead_letters(null, null, 10)')).toBe(1)
  expect(await rows('select event_id, next_attempt_at from bus.failing')).toEqual([
    { event_id: dead, next_attempt_at: null },
  ])
  await own.close()
})

test('what is new, and what is alone, is not packed', async () => {
  const database = await createTestDatabase()
  const { rows } = database
  await rows(
    `insert into bus.subscriptions (name, service, patterns, options) values ('plain', 's', '{note}', '{}')`,
  )
  await rows(`
    insert into bus.receipts (subscription_id, event_id, attempts, duration_ms, delivered_at)
    select s.id, bus.uuid_v7(), 1, 1, now() from bus.subscriptions s, generate_series(1, 20)`)
  await rows(`
    insert into bus.receipts (subscription_id, event_id, attempts, duration_ms, delivered_at)
    select s.id, bus.uuid_v7_floor(now() - n * interval '1 minute'), 1, 1, now() - interval '1 hour' from bus.subscriptions s, generate_series(1, 20) n`)
  expect(await packAll(database)).toBe(0)
})

test('failing events of jobs of an earlier version are recorded by the migration, once', async () => {
  const database = await createTestDatabase()
  const { rows, count } = database
  const bus = testBus(database.url)
  bus.subscribe({
    ...{ name: 'doomed', events: ['note'], retry: { maxAttempts: 2, delaySeconds: 3600 } },
    handler: ({ payload }) => {
      throw new Error(`refused ${String(payload)}`)
    },
  })
  bus.subscribe({
    ...{ name: 'ordered', events: ['note'], ordered: true, retry: { maxAttempts: 1 } },
    handler: () => {
      throw new Error('refused in order')
    },
  })
  await bus.start()
  const note = { type: 'note', tenantId: 'acme', orderingKey: 'k' } as const
  const ids = await publish(database, bus, { ...note, payload: 1 }, { ...note, payload: 2 })
  await until('all have failed', async () => (await count('select count(*) from bus.failing')) === 3)
  await bus.stop()
  const known = `select s.name, f.event_id, f.state, f.attempts, f.tenant_id, f.error_name, f.job_id, f.key_id::text, f.next_attempt_at
    from bus.failing f join bus.subscriptions s on s.id = f.subscription_id order by 1, 2`
  const history = `select event_id, attempt, succeeded, error_message, ended_at from bus.attempts order by subscription_id, event_id`
  const [failing, attempts] = [await rows(known), await rows(history)]
  expect(failing.map(({ name, state }) => [name, state])).toEqual([
    ['doomed', 'retrying'],
    ['doomed', 'retrying'],
    ['ordered', 'blocked'],
  ])
  await rows('truncate bus.failing, bus.attempts')
  // Somebody else's job in the queue.
  await rows(
    `insert into pgboss.job (name, data, policy) values ('bus.doomed', '{"eventIds": "none"}', 'standard')`,
  )
  const recorded = async () => count('select sum(bus.record_known_failures(id, 1000)) from bus.subscriptions')
  expect(await recorded()).toBe(3)
  expect(await rows(known)).toEqual(failing)
  expect(await rows(history)).toEqual(attempts)
  expect(await recorded()).toBe(0)
  expect(await bus.deliveries(ids[0] ?? '').catch(() => 'stopped')).toBe('stopped')
})

/** Of two subscriptions each; a slice has 5000 receipts. */
const oldCount = isFullForm ? 500_000 : 50_000

test(
  `${2 * oldCount} receipts are packed in slices while events flow`,
  { tags: ['slow'], timeout: 300_000 },
  async () => {
    const database = await createTestDatabase({ empty: true })
    const { count } = database
    await migrateTo(database.url, before)
    await fillAsBefore(database, oldCount)
    const bus = testBus(database.url)
    await bus.migrate()
    const seen: string[] = []
    bus.subscribe({ name: 'live', events: ['note'], handler: ({ id }) => void seen.push(id) })
    await bus.start()
    const ids: string[] = []
    let isPacked = false
    const packing = packAll(database).finally(() => (isPacked = true))
    while (!isPacked) {
      ids.push(
        ...(await publish(
          database,
          bus,
          ...Array.from({ length: 20 }, () => ({ type: 'note', tenantId: 'acme', payload: 1 }) as const),
        )),
      )
      await pause(20)
    }
    // The leader of the bus may have packed some of them.
    expect(await packing).toBeGreaterThan(0)
    await until('all are delivered', () => seen.length === ids.length)
    expect(seen.toSorted()).toEqual(ids.toSorted())
    expect(await count('select count(*) from bus.deliveries')).toBe(2 * oldCount + ids.length)
    expect(
      await count(
        `select count(*) from bus.receipts r join bus.subscriptions s on s.id = r.subscription_id where s.name = 'plain'`,
      ),
    ).toBe(oldCount * 0.03)
  },
)
