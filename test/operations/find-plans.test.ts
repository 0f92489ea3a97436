// @module-tag slow
import { expect, test } from 'vitest'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../support/database.ts'
import { isFullForm } from '../support/form.ts'

const eventCount = isFullForm ? 60_000 : 21_000

/** Two months of events of 300 tenants: received by one subscription, waiting and dead letters of another. */
async function fill({ rows }: TestDatabase): Promise<void> {
  await rows(
    `create table public.ids as
     select n, overlay(overlay(bus.uuid_v7_floor(now() - (${eventCount} - n) * interval '45 seconds')::text placing '7' from 15)
       placing lpad(to_hex(n % 4096), 3, '0') || '-8000-' || lpad(to_hex(n), 12, '0') from 16)::uuid as id
     from generate_series(1, ${eventCount}) n`,
  )
  await rows('alter table bus.events disable trigger user')
  await rows(
    `insert into bus.events (id, tenant_id, type, source, subject, correlation_id, causation_id, event_id, payload)
     select id, 'tenant-' || n % 300, case when n % 10 = 0 then 'payment.paid' else 'note' end, 'source-' || n % 7, 'subject-' || n % 500,
       'flow-' || n / 10, case when n % 10 > 0 then id end, 'order-' || n, jsonb_build_object('n', n) from public.ids`,
  )
  await rows(
    `insert into bus.event_keys (tenant_id, kind, key, event_id) select 'tenant-' || n % 300, 'event_id', 'order-' || n, id from public.ids`,
  )
  await rows(
    `insert into bus.receipts (subscription_id, event_id, attempts, duration_ms)
     select s.id, i.id, 1, 1 from public.ids i cross join bus.subscriptions s where s.name = 'fine' or i.n <= ${eventCount / 3}`,
  )
  await rows(
    `insert into bus.failing (subscription_id, event_id, state, attempts, tenant_id, job_id)
     select s.id, i.id, 'dead', 1, 'tenant-' || n % 300, i.id from public.ids i join bus.subscriptions s on s.name = 'behind'
     where n > ${eventCount / 3} and n <= ${(eventCount * 2) / 3}`,
  )
  await rows(
    `insert into pgboss.job (id, name, data, policy, singleton_key)
     select (substr(i.id::text, 1, 14) || '8000-b' || substr(gen_random_uuid()::text, 21))::uuid, 'bus.behind',
       jsonb_build_object('eventIds', jsonb_build_array(i.id)), 'standard', '*'
     from public.ids i where n > ${(eventCount * 2) / 3}`,
  )
  await rows(
    `insert into pgboss.job (name, data, policy, source_id, source_root_id)
     select 'bus.behind.dead', jsonb_build_object('eventIds', jsonb_build_array(i.id)), 'standard', i.id, i.id
     from public.ids i where n > ${eventCount / 3} and n <= ${(eventCount * 2) / 3}`,
  )
  await rows('alter table bus.events enable trigger user')
  await rows('analyze')
}

/** How often each large table of the log, the ledger and the jobs was read from beginning to end. */
async function scans({ rows }: TestDatabase): Promise<Record<string, number>> {
  const found = await rows(
    `select s.relid::regclass::text as name, s.seq_scan::int as count from pg_stat_all_tables s join pg_class c on c.oid = s.relid
     where s.schemaname in ('bus', 'pgboss') and c.reltuples > 1000 order by 1`,
  )
  return Object.fromEntries(found.map(({ name, count }) => [String(name), Number(count)]))
}

test('no read scans a table of the log, the ledger or the jobs', async () => {
  const database = await createTestDatabase()
  const { rows } = database
  const filling = testBus(database.url)
  filling.subscribe({ name: 'fine', events: ['**'], handler: () => {} })
  filling.subscribe({ name: 'behind', events: ['**'], handler: () => {} })
  await filling.start()
  await filling.stop()
  await fill(database)
  const bus = testBus(database.url)
  const [row] = await rows(
    `select array(select id::text from public.ids where n in (15, ${eventCount / 2 - 5}, ${eventCount - 5}) order by n) as ids`,
  )
  const [received = '', dead = '', waiting = ''] = (row?.['ids'] ?? []) as string[]
  const tenant = bus.tenant(`tenant-${(eventCount - 5) % 300}`)
  // What the tables were read for until now is counted late.
  await new Promise((resolve) => setTimeout(resolve, 1500))
  const before = await scans(database)
  expect(Object.keys(before).length).toBeGreaterThan(5)
  const filters = [
    {},
    { tenantId: 'tenant-7' },
    { type: 'payment.paid' },
    { type: ['payment.paid', 'note'] },
    { pattern: 'payment.*' },
    { source: 'source-3' },
    { source: 'never' },
    { tenantId: 'tenant-7', source: 'never' },
    { tenantId: 'tenant-7', type: 'payment.paid' },
    { tenantId: 'tenant-7', pattern: 'payment.*' },
    { subject: 'subject-3' },
    { tenantId: 'tenant-3', subject: 'subject-3' },
    { correlationId: 'flow-30' },
    { tenantId: 'tenant-3', correlationId: 'flow-30' },
    { causationId: received },
    { eventId: 'order-77' },
    { idempotencyKey: 'never' },
    { payload: { n: -1 } },
    { status: 'dead' },
    { status: 'dead', tenantId: 'tenant-7' },
    { status: 'retrying' },
    { status: 'waiting' },
    { status: 'delivering' },
    { status: 'delivered' },
    { status: 'expired' },
    { status: 'dead', order: 'oldest' },
  ] as const
  for (const filter of filters) await bus.events.search(filter)
  for (const { tenantId: _, ...filter } of filters as readonly { readonly tenantId?: string }[])
    await tenant.events.search(filter)
  for (const id of [received, dead, waiting]) {
    await bus.explain(id)
    await bus.deliveries(id)
    await bus.events.traceTree(id)
    expect((await bus.lookup(id)).matches).toHaveLength(1)
  }
  expect((await tenant.explain(waiting)).isInLog).toBe(true)
  const [page] = await rows(
    `select array(select id::text from public.ids where n % 300 = ${(eventCount - 5) % 300} order by n) as ids`,
  )
  const ids = page?.['ids'] as string[]
  const states = await bus.events.states(ids)
  expect(new Set(states.map(({ state }) => state))).toEqual(new Set(['delivered', 'dead', 'waiting']))
  expect(await tenant.events.states(ids)).toEqual(states)
  await bus.events.trace('flow-30')
  for (const text of ['order-77', 'subject-3', 'flow-30', 'tenant-7', 'note', crypto.randomUUID()]) {
    await bus.lookup(text)
    await tenant.lookup(text)
  }
  // Connections write their counts when they end.
  await bus.stop()
  await new Promise((resolve) => setTimeout(resolve, 1500))
  expect(await scans(database)).toEqual(before)
  // The counters work.
  await rows('select count(*) from (select payload from bus.events offset 0) e')
  await until(
    'a scan is counted',
    async () => JSON.stringify(await scans(database)) !== JSON.stringify(before),
  )
})
