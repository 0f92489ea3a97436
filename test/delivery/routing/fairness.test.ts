import { expect, test } from 'vitest'
import { testBus } from '../../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'

/** Events as plain SQL publishes them: `count` of each tenant, the tenants one after the other. */
async function publish({ rows }: TestDatabase, count: number, tenants: readonly string[]): Promise<void> {
  await rows(
    `insert into bus.events (tenant_id, type, source, payload)
     select tenant, 'note', 'psql', to_jsonb(n) from unnest($1::text[]) with ordinality t (tenant, i), generate_series(1, $2) n order by i, n`,
    [tenants, count],
  )
}

async function handedOver(database: TestDatabase): Promise<void> {
  await until(
    'everything is handed over',
    async () => (await database.count('select count(*) from bus.outbox')) === 0,
  )
}

/** Registers the subscription, and leaves relays that run no worker of it. */
async function relayOnly(database: TestDatabase, relayCount: number): Promise<void> {
  const first = testBus(database.url)
  first.subscribe({ name: 'line', events: ['note'], handler: () => {} })
  await first.start()
  await first.stop()
  for (let i = 0; i < relayCount; i += 1) await testBus(database.url).start()
}

/** The waiting jobs in the order pg-boss takes them: whose events each holds (the first tenant's name), and how many. */
async function line({
  rows,
}: TestDatabase): Promise<readonly { tenant: string; events: number; tenants: number }[]> {
  return (await rows(
    `select min(e.tenant_id) as tenant, count(*)::int as events, count(distinct e.tenant_id)::int as tenants
     from pgboss.job j cross join lateral jsonb_array_elements_text(j.data->'eventIds') ids (event_id) join bus.events e on e.id = ids.event_id::uuid
     where j.name = 'bus.line' and j.state < 'active'
     group by j.id, j.priority, j.created_on order by j.priority desc, j.created_on`,
  )) as never
}

/** The place of a tenant's first job among all that wait. */
function placeOf(jobs: readonly { tenant: string }[], tenant: string): number {
  const place = jobs.findIndex((job) => job.tenant === tenant)
  if (place === -1) throw new Error(`No job of ${tenant} waits`)
  return place
}

const tenantsOf = (jobs: readonly { tenant: string }[]): string => jobs.map(({ tenant }) => tenant).join(' ')

test('a tenant with few events comes next, whatever waits of another', async () => {
  const database = await createTestDatabase()
  await relayOnly(database, 1)
  await publish(database, 5000, ['big'])
  await handedOver(database)
  await publish(database, 10, ['small'])
  await handedOver(database)
  const jobs = await line(database)
  expect(jobs).toHaveLength(51)
  expect(placeOf(jobs, 'small')).toBeLessThanOrEqual(1)
  // Also when both come with one claim, the small one behind.
  await database.rows(
    `insert into bus.events (tenant_id, type, source, payload)
     select case when n <= 900 then 'big' else 'tiny' end, 'note', 'psql', to_jsonb(n) from generate_series(1, 910) n order by n`,
  )
  await handedOver(database)
  const both = await line(database)
  expect(both.filter(({ tenants }) => tenants > 1)).toEqual([])
  expect(placeOf(both, 'tiny')).toBeLessThanOrEqual(3)
})

test('tenants that both have many events take turns, from when the second one comes', async () => {
  const database = await createTestDatabase()
  await relayOnly(database, 1)
  await publish(database, 3000, ['a'])
  await handedOver(database)
  await publish(database, 3000, ['b'])
  await handedOver(database)
  const jobs = await line(database)
  expect(jobs.every(({ tenants }) => tenants === 1)).toBe(true)
  expect(jobs.reduce((sum, { events }) => sum + events, 0)).toBe(6000)
  const first = tenantsOf(jobs.slice(0, 40))
  expect(first.split('a').length - 1).toBeGreaterThanOrEqual(18)
  expect(first.split('b').length - 1).toBeGreaterThanOrEqual(18)
  expect(first).not.toMatch(/a a a|b b b/)
})

test('a tenant with many events is not starved by many with few', { tags: ['slow'] }, async () => {
  const database = await createTestDatabase()
  await relayOnly(database, 1)
  await publish(database, 3000, ['big'])
  await handedOver(database)
  for (let i = 0; i < 100; i += 1) {
    await publish(
      database,
      2,
      Array.from({ length: 50 }, (_, n) => `t${n}`),
    )
    await handedOver(database)
  }
  const jobs = await line(database)
  const places = jobs.flatMap(({ tenant }, place) => (tenant === 'big' ? [place] : []))
  // A batch of 100 events of 50 tenants counts two of each: fifty such batches for one of the big tenant's.
  expect(places[0]).toBeLessThanOrEqual(1)
  expect(places[1]).toBeLessThanOrEqual(60)
  expect(places[2]).toBeLessThanOrEqual(110)
})

test('few events of many tenants share their batches', async () => {
  const database = await createTestDatabase()
  await relayOnly(database, 1)
  await publish(
    database,
    1,
    Array.from({ length: 1000 }, (_, n) => `t${n}`),
  )
  await handedOver(database)
  expect((await line(database)).length).toBeLessThanOrEqual(12)
  const quiet = await createTestDatabase()
  await relayOnly(quiet, 1)
  await publish(quiet, 1, ['a', 'b', 'c'])
  await handedOver(quiet)
  expect(await line(quiet)).toEqual([{ tenant: 'a', events: 3, tenants: 3 }])
})

test('several relays keep one line', async () => {
  const database = await createTestDatabase()
  await relayOnly(database, 3)
  await publish(database, 20_000, ['big'])
  await handedOver(database)
  await Promise.all(['x', 'y', 'z'].map(async (tenant) => publish(database, 10, [tenant])))
  await handedOver(database)
  const jobs = await line(database)
  expect(jobs.reduce((sum, { events }) => sum + events, 0)).toBe(20_030)
  // Relays that claim at the same moment do not see each other's jobs: some of the big tenant's share a place.
  for (const tenant of ['x', 'y', 'z']) expect(placeOf(jobs, tenant)).toBeLessThanOrEqual(12)
})

test("ten events of one tenant do not wait for another's 50,000", { tags: ['slow'] }, async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  const handled = { big: 0, small: 0 }
  bus.subscribe({
    name: 'busy',
    events: ['note'],
    concurrency: 20,
    handler: async ({ tenantId }) => {
      await new Promise((resolve) => setTimeout(resolve, 4))
      handled[tenantId as 'big' | 'small'] += 1
    },
  })
  await publish(database, 50_000, ['big'])
  await bus.start()
  await handedOver(database)
  await until('the big one is under way', () => handled.big > 500)
  const before = handled.big
  const beganAt = performance.now()
  await publish(database, 10, ['small'])
  await until('the small one is done', () => handled.small === 10)
  const meanwhile = handled.big - before
  console.log(
    `the small tenant: ${(performance.now() - beganAt).toFixed(0)} ms, the big one meanwhile: ${meanwhile} events`,
  )
  // In the order they came it would be nearly all of them.
  expect(meanwhile).toBeLessThan(20_000)
  expect(handled.big).toBeLessThan(49_000)
})
