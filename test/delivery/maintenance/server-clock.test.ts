import { expect, test } from 'vitest'
import { adjustJobTimes } from '../../../src/delivery/jobs/queue-state/job-times.ts'
import { createServerClock } from '../../../src/delivery/maintenance/server-clock.ts'
import { createDatabase } from '../../../src/database/database.ts'
import { recordingLogger, testBus } from '../../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'
import { openBoss } from '../../support/queues.ts'

/** What a database looks like whose clock was set back: every time that it has kept is that much ahead. */
async function setClockBack({ rows }: TestDatabase, by = '1 hour'): Promise<void> {
  await rows(`update pgboss.job set start_after = start_after + interval '${by}', created_on = created_on + interval '${by}',
    started_on = started_on + interval '${by}', heartbeat_on = heartbeat_on + interval '${by}'`)
  await rows(`update pgboss.queue set monitor_on = now() + interval '${by}', monitor_claim_on = now() + interval '${by}',
    maintain_on = now() + interval '${by}'`)
  await rows(`update bus.subscriptions set circuit_opened_at = circuit_opened_at + interval '${by}',
    circuit_probe_at = circuit_probe_at + interval '${by}'`)
}

test('what waits when the clock of the server goes back an hour is delivered at once, or after its own delay, in order', async () => {
  const database = await createTestDatabase()
  const retry = { maxAttempts: 3, delaySeconds: 3, backoff: false }
  const before = testBus(database.url)
  let failedCount = 0
  const fail = (): never => {
    failedCount += 1
    throw new Error('not yet')
  }
  before.subscribe({ name: 'lines', events: ['note'], ordered: true, retry, handler: fail })
  before.subscribe({ name: 'first', events: ['note'], handler: fail })
  await before.start()
  await before.subscriptions.pause('first')
  for (const payload of ['one', 'two', 'three'])
    await before.tryPublish({ type: 'note', tenantId: 'acme', orderingKey: 'k', payload })
  await until(
    'the key has failed, and the others wait',
    async () => failedCount > 0 && (await inState(database, 'first', 'created')) > 0,
  )
  await until('its next attempt waits', async () => (await inState(database, 'lines', 'active')) === 0)
  await before.stop()
  await setClockBack(database)
  const waitsForAnHour = await database.count(
    `select count(*) from pgboss.job where name like 'bus.%' and state < 'active' and start_after > now() + interval '50 minutes'`,
  )
  expect(waitsForAnHour).toBeGreaterThanOrEqual(2)

  const logger = recordingLogger()
  const after = testBus(database.url, { logger })
  const lines: string[] = []
  const first: string[] = []
  after.subscribe({
    name: 'lines',
    events: ['note'],
    ordered: true,
    retry,
    handler: (e, { attempt }) => void lines.push(`${String(e.payload)} ${attempt}`),
  })
  after.subscribe({ name: 'first', events: ['note'], handler: (e) => void first.push(String(e.payload)) })
  await after.start()
  await after.subscriptions.resume('first')
  await until('first attempts run', () => first.length === 3)
  await until('the key goes on', () => lines.length === 3)
  expect(lines).toEqual(['one 2', 'two 1', 'three 1'])
  expect(logger.lines).toContainEqual({
    level: 'warn',
    fields: { subscription: 'lines', movedCount: 1 },
    message: 'jobs were rescheduled: the clock of the database server had been set back',
  })
})

test(
  'a worker that died before the clock went back is missed after its heartbeat',
  { tags: ['slow'] },
  async () => {
    const database = await createTestDatabase()
    const seen: number[] = []
    const logger = recordingLogger()
    const bus = testBus(database.url, { logger })
    bus.subscribe({
      name: 'a',
      events: ['note'],
      heartbeatSeconds: 10,
      retry: { delaySeconds: 0, backoff: false },
      handler: (_, { attempt }) => void seen.push(attempt),
    })
    await bus.start()
    await bus.subscriptions.pause('a')
    await until('the process has heard of it', () =>
      logger.lines.some(({ message }) => message === 'a subscription was paused'),
    )
    await bus.tryPublish({ type: 'note', tenantId: 'acme', payload: 1 })
    await until('it waits', async () => (await inState(database, 'a', 'created')) === 1)
    const boss = await openBoss(database.url)
    await until('it is taken', async () => (await boss.fetch('bus.a')).length === 1)
    await setClockBack(database)
    await bus.subscriptions.resume('a')
    await until('it runs again', () => seen.length === 1)
    expect(seen).toEqual([2])
  },
)

test('a circuit breaker whose next probe was set before the clock went back tries an event after its longest wait', async () => {
  const database = await createTestDatabase()
  const make = (handler: () => void): ReturnType<typeof testBus> => {
    const bus = testBus(database.url)
    bus.subscribe({
      ...{
        name: 'a',
        events: ['note'],
        handler,
        retry: { maxAttempts: 100, delaySeconds: 0, backoff: false },
      },
      circuitBreaker: { windowSize: 5, failureRatio: 0.9, probeSeconds: 2, maxProbeSeconds: 2 },
    })
    return bus
  }
  const failing = make(() => {
    throw new Error('down')
  })
  await failing.start()
  for (let n = 0; n < 10; n += 1) await failing.tryPublish({ type: 'note', tenantId: `t${n}`, payload: n })
  await until('it has opened', async () => (await failing.subscriptions.list())[0]?.state === 'circuit open')
  await failing.stop()
  await setClockBack(database)
  let handledCount = 0
  const mended = make(() => {
    handledCount += 1
  })
  await mended.start()
  await until('everything is delivered', () => handledCount === 10)
  expect((await mended.subscriptions.list())[0]?.state).toBe('active')
})

test('a clock that is set is told from one that goes on, from slow answers, and from a first look', () => {
  const clock = createServerClock()
  expect(clock.note(1_000_000, 0, 10)).toBe(0)
  expect(clock.note(1_005_000, 5000, 5010)).toBe(0)
  // An answer that took long says little.
  expect(clock.note(1_010_000, 5000, 30_000)).toBe(0)
  expect(clock.note(1_031_000, 31_000, 31_010)).toBe(0)
  expect(clock.note(1_031_000 - 3_590_000, 41_000, 41_010)).toBe(-3_599_990)
  expect(clock.note(1_031_000 - 3_585_000, 46_000, 46_010)).toBe(0)
  expect(clock.note(1_050_000, 50_000, 50_010)).toBeGreaterThan(3_590_000)
})

test('fitting a queue to the clock keeps delays and order, says what it moved, and changes nothing when done again', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({ name: 'a', events: ['note'], handler: () => {} })
  await bus.start()
  await bus.stop()
  await database.rows(`insert into pgboss.job (name, data, state, created_on, start_after, started_on, heartbeat_on, heartbeat_seconds)
    select 'bus.a', to_jsonb(what), state::pgboss.job_state, now() + created::interval, now() + due::interval, now() + started::interval, now() + started::interval, 30
    from (values
      ('first', 'created', '50 min', '50 min', null), ('second', 'created', '59 min', '59 min', null), ('later', 'created', '59 min', '69 min', null),
      ('retry', 'retry', '-2 hours', '61 min', '58 min'), ('of today', 'retry', '50 min', '1 min', '50 min'), ('scheduled', 'created', '-1 min', '2 hours', null),
      ('silent', 'active', '50 min', '50 min', '58 min'), ('alive', 'active', '-1 min', '-1 min', '-1 s')) v (what, state, created, due, started)`)
  const bare = createDatabase(database.url, recordingLogger())
  const read = async (): Promise<Record<string, unknown>[]> =>
    database.rows(`select data #>> '{}' as what, round(extract(epoch from start_after - now()) / 60)::int as due, greatest(started_on, case when state = 'active' then heartbeat_on else created_on end) > now() as ahead
      from pgboss.job where name = 'bus.a' order by 1`)
  expect(await adjustJobTimes(bare, 'a', 0)).toBe(5)
  const fit = [
    { what: 'alive', due: -1, ahead: false },
    { what: 'first', due: -9, ahead: false },
    { what: 'later', due: 10, ahead: false },
    { what: 'of today', due: 1, ahead: false },
    { what: 'retry', due: 2, ahead: false },
    { what: 'scheduled', due: 120, ahead: false },
    { what: 'second', due: 0, ahead: false },
    { what: 'silent', due: 50, ahead: false },
  ]
  expect(await read()).toEqual(fit)
  expect(await adjustJobTimes(bare, 'a', 0)).toBe(0)
  expect(await read()).toEqual(fit)
  // Set forward: who is active is not taken for dead.
  await database.rows(
    `update pgboss.job set heartbeat_on = now() - interval '1 hour', started_on = now() - interval '1 hour' where state = 'active'`,
  )
  await adjustJobTimes(bare, 'a', 3_500_000)
  expect(
    await database.count(
      `select count(*) from pgboss.job where state = 'active' and least(heartbeat_on, started_on) > now() - interval '1 min'`,
    ),
  ).toBe(2)
  await bare.close()
})

async function inState({ count }: TestDatabase, subscription: string, state: string): Promise<number> {
  return count('select count(*) from pgboss.job where name = $1 and state = $2::pgboss.job_state', [
    `bus.${subscription}`,
    state,
  ])
}
