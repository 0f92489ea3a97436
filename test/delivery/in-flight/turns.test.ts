// @module-tag slow
import { expect, test } from 'vitest'
import type { DeliveryMode, SubscriptionOptions } from '../../../src/index.ts'
import { testBus } from '../../support/bus.ts'
import type { paymentEvents } from '../../support/catalogue.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'
import { takeAndDie } from '../../support/queues.ts'

const pause = async (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** Events as plain SQL publishes them. */
async function publish({ rows }: TestDatabase, count: number, tenant: string): Promise<void> {
  await rows(
    `insert into bus.events (tenant_id, type, source, payload) select $1, 'note', 'psql', to_jsonb(n) from generate_series(1, $2) n`,
    [tenant, count],
  )
}

type Options = Omit<
  SubscriptionOptions<typeof paymentEvents, 'note', DeliveryMode>,
  'name' | 'events' | 'handler'
>

/** Registers the subscription, and hands events over to it with nobody there to deliver them. */
async function handOver(
  database: TestDatabase,
  options: Options,
  count: number,
  tenant: string,
): Promise<void> {
  const first = testBus(database.url)
  first.subscribe({ name: 'turns', events: ['note'], ...options, handler: () => {} } as never)
  await first.start()
  await first.stop()
  const relay = testBus(database.url)
  await publish(database, count, tenant)
  await relay.start()
  await until(
    'all is handed over',
    async () =>
      (await database.count('select count(*) from bus.outbox')) === 0 &&
      (await database.count(
        `select count(*) from pgboss.job where name = 'bus.turns' and state < 'active'`,
      )) > 0,
  )
  await relay.stop()
}

const waitingLater = async ({ count }: TestDatabase): Promise<number> =>
  count(
    `select count(*) from pgboss.job where name = 'bus.turns' and state < 'active' and start_after <= now()
     and (data ? 'attempts' or state = 'retry') and jsonb_array_length(data->'eventIds') = 1`,
  )

/** Counts what begins, and says how much of it while something is waited for. */
function record() {
  const begun: { readonly tenant: string; readonly attempt: number }[] = []
  const of = (from: number, isLater: boolean): number =>
    begun.slice(from).filter(({ attempt }) => attempt > 1 === isLater).length
  return { begun, of }
}

const modes: readonly (readonly [string, Options])[] = [
  ['at least once', {}],
  ['exactly once', { mode: 'exactly-once' }],
  ['one at a time', { concurrency: 1 }],
]

test.each(modes)('%s: first attempts and events of a lost worker take turns', async (how, given) => {
  const database = await createTestDatabase()
  const options: Options = {
    concurrency: 4,
    retry: { maxAttempts: 5, delaySeconds: 0, backoff: false },
    ...given,
  }
  const lost = given.concurrency === 1 ? 60 : 200
  const fresh = given.concurrency === 1 ? 10 : 40
  await handOver(database, options, lost, 'lost')
  await takeAndDie(database.url, 'bus.turns')
  const { begun, of } = record()
  const bus = testBus(database.url)
  bus.subscribe({
    name: 'turns',
    events: ['note'],
    ...options,
    handler: async ({ tenantId }: { tenantId: string }, { attempt }: { attempt: number }) => {
      begun.push({ tenant: tenantId, attempt })
      await pause(50)
    },
  } as never)
  await bus.start()
  await until('they run again', () => of(0, true) >= 8)
  const before = begun.length
  const beganAt = performance.now()
  await publish(database, fresh, 'fresh')
  await until('the first attempts have begun', () => of(before, false) === fresh)
  const laterMeanwhile = of(before, true)
  console.log(
    `${how}: ${fresh} first attempts began within ${(performance.now() - beganAt).toFixed(0)} ms, beside ${laterMeanwhile} later ones`,
  )
  // Half each; in the order of pg-boss's priority it would be nearly all of them.
  expect(laterMeanwhile).toBeLessThan(fresh * 2 + 10)
  expect(laterMeanwhile).toBeGreaterThan(fresh / 4)
  await until('all are done', () => begun.length >= lost + fresh)
})

test('first attempts and retries take turns, whoever has more', async () => {
  const database = await createTestDatabase()
  const { begun, of } = record()
  const bus = testBus(database.url)
  bus.subscribe({
    name: 'turns',
    events: ['note'],
    concurrency: 4,
    circuitBreaker: false,
    retry: { maxAttempts: 5, delaySeconds: 2, backoff: false },
    handler: async ({ tenantId }, { attempt }) => {
      begun.push({ tenant: tenantId, attempt })
      if (tenantId === 'fails' && attempt === 1) throw new Error('the first attempt fails')
      await pause(50)
    },
  })
  await bus.start()
  await publish(database, 200, 'fails')
  await until('retries run', () => of(0, true) >= 4)
  const before = begun.length
  await publish(database, 200, 'fresh')
  await until('40 first attempts have begun', () => of(before, false) >= 40)
  const laterBeside = of(before, true)
  await until('all retries are done', () => of(0, true) === 200)
  const firstBeside = of(before, false)
  console.log(
    `40 first attempts beside ${laterBeside} retries; all retries beside ${firstBeside} first attempts`,
  )
  expect(laterBeside).toBeLessThan(90)
  // They began while 200 first attempts waited, and those were not all done before.
  expect(laterBeside).toBeGreaterThan(10)
})

test('a steady stream of first attempts does not starve retries', async () => {
  const database = await createTestDatabase()
  const { begun, of } = record()
  const bus = testBus(database.url)
  let stopped = false
  bus.subscribe({
    name: 'turns',
    events: ['note'],
    concurrency: 4,
    circuitBreaker: false,
    retry: { maxAttempts: 5, delaySeconds: 0, backoff: false },
    handler: async ({ tenantId }, { attempt }) => {
      begun.push({ tenant: tenantId, attempt })
      await pause(20)
      if (tenantId === 'fails' && attempt === 1) throw new Error('the first attempt fails')
    },
  })
  await bus.start()
  await publish(database, 1000, 'steady')
  await until('the stream is under way', () => begun.length > 20)
  const stream = (async () => {
    while (!stopped) {
      const waiting = await database.count(
        `select coalesce(sum(jsonb_array_length(data->'eventIds')), 0) from pgboss.job where name = 'bus.turns' and state < 'active'`,
      )
      if (waiting < 500) await publish(database, 500, 'steady')
      await pause(50)
    }
  })()
  const before = begun.length
  await publish(database, 40, 'fails')
  await until(
    'they have failed once',
    () => begun.slice(before).filter(({ tenant }) => tenant === 'fails').length >= 40,
  )
  const from = begun.length
  await until('all were tried again', () => of(before, true) >= 40)
  const firstMeanwhile = of(from, false)
  stopped = true
  await stream
  console.log(`40 retries beside ${firstMeanwhile} first attempts`)
  expect(firstMeanwhile).toBeLessThan(200)
})

test('suspects, which run one by one, keep no first attempts waiting', async () => {
  const database = await createTestDatabase()
  const options: Options = { concurrency: 4, retry: { maxAttempts: 5, delaySeconds: 0, backoff: false } }
  await handOver(database, options, 100, 'suspect')
  await takeAndDie(database.url, 'bus.turns')
  // As a second death leaves them.
  const { begun, of } = record()
  const bus = testBus(database.url)
  bus.subscribe({
    name: 'turns',
    events: ['note'],
    ...options,
    handler: async ({ tenantId }, { attempt }) => {
      begun.push({ tenant: tenantId, attempt })
      if (tenantId === 'suspect') await pause(100)
    },
  })
  await bus.start()
  await until('they were taken apart', () => begun.length > 0)
  await database.rows(
    `update pgboss.job set data = data || '{"losses": 2}' where name = 'bus.turns' and state < 'active' and data ? 'attempts'`,
  )
  const all = begun.length
  await until('suspects run', () => begun.length > all + 8)
  const before = begun.length
  await publish(database, 40, 'fresh')
  await until('the first attempts are done', () => of(before, false) === 40)
  const suspectsMeanwhile = of(before, true)
  console.log(`40 first attempts beside ${suspectsMeanwhile} suspects`)
  expect(suspectsMeanwhile).toBeLessThan(20)
  expect(await waitingLater(database)).toBeGreaterThan(0)
})

test('while many later attempts wait, first attempts keep their places in the line', async () => {
  const database = await createTestDatabase()
  await handOver(database, {}, 3000, 'big')
  await database.rows(
    `insert into pgboss.job (name, data, priority)
     select 'bus.turns', jsonb_build_object('eventIds', jsonb_build_array(gen_random_uuid()), 'attempts', 1), 1 from generate_series(1, 300)`,
  )
  // Half of the line was served.
  await database.rows(
    `delete from pgboss.job where id in (
       select id from pgboss.job where name = 'bus.turns' and priority < 0 order by priority desc limit 15)`,
  )
  const relay = testBus(database.url)
  await relay.start()
  await publish(database, 500, 'other')
  await until(
    'all is handed over',
    async () => (await database.count('select count(*) from bus.outbox')) === 0,
  )
  await publish(database, 500, 'third')
  await until(
    'all is handed over',
    async () => (await database.count('select count(*) from bus.outbox')) === 0,
  )
  const jobs = await database.rows(
    `select min(e.tenant_id) as tenant from pgboss.job j
     cross join lateral jsonb_array_elements_text(j.data->'eventIds') ids (event_id) join bus.events e on e.id = ids.event_id::uuid
     where j.name = 'bus.turns' and j.state < 'active' group by j.id, j.priority, j.created_on order by j.priority desc, j.created_on`,
  )
  // They take turns from the front on, instead of coming before all that waits.
  const tenants = jobs.filter(({ tenant }) => tenant !== null).map(({ tenant }) => tenant)
  expect(tenants[0]).toBe('big')
  for (const tenant of ['big', 'other', 'third'])
    expect(tenants.slice(0, 13).filter((one) => one === tenant).length).toBeGreaterThanOrEqual(4)
})
