import { expect, onTestFinished, test } from 'vitest'
import { createDatabase } from '../../../src/database/database.ts'
import { startDeadLetterCalls } from '../../../src/delivery/maintenance/dead-letter-calls.ts'
import { createBus, type DeadLetterAlert, type DeadLetterNotice } from '../../../src/index.ts'
import { paymentEvents, recordingLogger, testBus, type PaymentBus } from '../../support/bus.ts'
import { createTestDatabase, until } from '../../support/database.ts'
import { subscribeDoomed, untilDead } from '../../support/dead-letters.ts'
import { publish } from '../../support/ledger.ts'

const note = { type: 'note', tenantId: 'acme' } as const

test('the callback of a subscription, or else that of the bus, is told of each dead letter', async () => {
  const database = await createTestDatabase()
  const ofBus: DeadLetterNotice[] = []
  const own: DeadLetterNotice[] = []
  const bus: PaymentBus = createBus({
    ...{
      database: database.url,
      events: paymentEvents,
      source: 'payment-service',
      logger: recordingLogger(),
    },
    onDeadLetter: (letter) => ofBus.push(letter),
  })
  onTestFinished(async () => bus.stop())
  subscribeDoomed(bus, 'doomed', { onDeadLetter: (letter) => own.push(letter) })
  subscribeDoomed(bus, 'in-order', { ordered: true })
  await bus.start()
  const [id = ''] = await publish(database, bus, { ...note, payload: 'x', orderingKey: 'k' })
  await until('both are told', () => own.length === 1 && ofBus.length === 1)
  const letter = {
    ...{ id, tenantId: 'acme', attempts: 2, deadAt: expect.any(Date) as Date },
    error: { name: 'TypeError', message: 'account 1 is unknown', code: undefined },
  }
  expect(own).toEqual([{ ...letter, subscription: 'doomed', state: 'dead' }])
  expect(ofBus).toEqual([{ ...letter, subscription: 'in-order', state: 'blocked' }])
  await until(
    'nothing is left to tell',
    async () => (await database.count('select count(*) from bus.dead_letter_calls')) === 0,
  )
})

test('a callback that throws is called again, is logged, and delivery goes on', async () => {
  const database = await createTestDatabase()
  const logger = recordingLogger()
  const bus = testBus(database.url, { logger })
  const told: string[] = []
  let calls = 0
  const doomed = subscribeDoomed(bus, 'doomed', {
    onDeadLetter: ({ id }) => {
      calls += 1
      if (calls === 1) throw new Error('the pager is down')
      told.push(id)
    },
  })
  doomed.fails = (payload) => payload === 1
  await bus.start()
  const [id] = await publish(database, bus, { ...note, payload: 1 }, { ...note, payload: 2 })
  await until('it is tried', () => calls === 1)
  await until('delivery goes on', () => doomed.done.length === 1)
  await database.rows('update bus.dead_letter_calls set next_call_at = now()')
  await until('it is told', () => told.length === 1)
  expect(told).toEqual([id])
  expect(logger.lines.filter(({ level }) => level === 'error').map(({ message }) => message)).toContain(
    'a callback for dead letters failed: it is called again',
  )
})

test('what a process leaves untold another one tells, and several processes tell each once', async () => {
  const database = await createTestDatabase()
  const told: string[] = []
  const open = (): PaymentBus => {
    const bus = testBus(database.url)
    subscribeDoomed(bus, 'doomed', { onDeadLetter: ({ id }) => told.push(id) })
    return bus
  }
  const buses = [open(), open(), open()]
  for (const bus of buses) await bus.start()
  const [first] = buses
  const ids =
    first === undefined
      ? []
      : await publish(database, first, ...Array.from({ length: 50 }, (_, payload) => ({ ...note, payload })))
  await untilDead(database, 50)
  await until('all are told', () => told.length >= 50)
  expect(told.toSorted()).toEqual(ids.toSorted())
  for (const bus of buses) await bus.stop()
  // As a process that crashed after it had claimed a call: its claim ends in a minute.
  await database.rows(
    `insert into bus.dead_letter_calls (subscription_id, event_id, state, attempts, next_call_at)
     select subscription_id, event_id, state, attempts, now() - interval '1 second' from bus.failing limit 1`,
  )
  await open().start()
  await until('it is told by the next one', () => told.length === 51)
})

test('an alert is raised once when a subscription collects so many dead letters in a time, and again after it', async () => {
  const database = await createTestDatabase()
  const alerts: DeadLetterAlert[] = []
  const bus = testBus(database.url)
  let fails = true
  subscribeDoomed(bus, 'doomed', {
    onDeadLetter: () => {},
    deadLetterAlert: {
      count: 3,
      perSeconds: 3600,
      onAlert: (alert) => {
        if (!fails) alerts.push(alert)
        else throw new Error('the pager is down')
      },
    },
  })
  await bus.start()
  await publish(database, bus, { ...note, payload: 1 }, { ...note, payload: 2 })
  await untilDead(database, 2)
  await publish(database, bus, { ...note, payload: 3 })
  await until(
    'an alert is raised',
    async () =>
      (await database.count('select count(*) from bus.dead_letter_alerts where error_count = 1')) === 1,
  )
  fails = false
  await until('it is told', () => alerts.length === 1)
  expect(alerts).toEqual([
    { subscription: 'doomed', count: 3, perSeconds: 3600, firstAt: expect.any(Date) as Date },
  ])
  await publish(database, bus, { ...note, payload: 4 })
  await untilDead(database, 4)
  await until(
    'the callback for the letter has run',
    async () => (await database.count('select count(*) from bus.dead_letter_calls')) === 0,
  )
  expect(alerts).toHaveLength(1)
  await database.rows(`update bus.dead_letter_alerts set raised_at = raised_at - interval '2 hours'`)
  await publish(database, bus, { ...note, payload: 5 })
  await until('it is raised again', () => alerts.length === 2)
})

test('a callback that never resolves holds neither the others of its look nor a stop beyond the grace period', async () => {
  const database = await createTestDatabase()
  const before = testBus(database.url)
  subscribeDoomed(before, 'doomed')
  await before.start()
  const ids = await publish(
    database,
    before,
    ...Array.from({ length: 5 }, (_, payload) => ({ ...note, payload })),
  )
  await untilDead(database, 5)
  await before.stop()
  await database.rows(
    `insert into bus.dead_letter_calls (subscription_id, event_id, state, attempts)
     select subscription_id, event_id, state, attempts from bus.failing`,
  )
  const logger = recordingLogger()
  const bus = testBus(database.url, { logger })
  const told: string[] = []
  let isHanging = false
  subscribeDoomed(bus, 'doomed', {
    onDeadLetter: async ({ id }) => {
      if (isHanging) told.push(id)
      else {
        isHanging = true
        await new Promise(() => {})
      }
    },
  })
  await bus.start()
  await until('one hangs, and the others are told', () => isHanging && told.length === 4)
  const left = async (): Promise<string[]> =>
    (await database.rows('select event_id from bus.dead_letter_calls')).map(({ event_id }) =>
      String(event_id),
    )
  const beganAt = performance.now()
  await bus.stop({ graceMs: 500 })
  expect(performance.now() - beganAt).toBeLessThan(5000)
  // What was told is not told again, and what was not told is.
  const untold = ids.filter((id) => !told.includes(id))
  expect((await left()).toSorted()).toEqual(untold.toSorted())
  expect(logger.lines.filter(({ level }) => level === 'warn' || level === 'error')).not.toContainEqual(
    expect.objectContaining({ message: expect.stringContaining('could not be announced') as string }),
  )
  await database.rows('update bus.dead_letter_calls set next_call_at = now()')
  const next = testBus(database.url)
  subscribeDoomed(next, 'doomed', { onDeadLetter: ({ id }) => void told.push(id) })
  await next.start()
  await until('nothing is left to tell', async () => (await left()).length === 0)
  expect(told.toSorted()).toEqual(ids.toSorted())
})

test('a look takes as many statements for many subscriptions and letters as for one', async () => {
  const database = await createTestDatabase()
  const own = createDatabase(database.url, recordingLogger())
  onTestFinished(async () => own.close())
  const statements: string[] = []
  const counted = {
    ...own,
    query: async (...call: Parameters<typeof own.query>) => {
      statements.push(call[0])
      return own.query(...call)
    },
  } as typeof own
  await database.rows(
    `insert into bus.dead_letter_calls (subscription_id, event_id, state, attempts)
     select s, bus.uuid_v7(), 'dead', 2 from generate_series(1, 7) s, generate_series(1, 4) n`,
  )
  await database.rows(
    `insert into bus.failing (subscription_id, event_id, state, attempts, job_id)
     select s, bus.uuid_v7(), 'dead', 2, gen_random_uuid() from generate_series(1, 7) s`,
  )
  const told: string[] = []
  const alerted: string[] = []
  const calls = startDeadLetterCalls(counted, recordingLogger(), () =>
    Array.from({ length: 7 }, (_, index) => ({
      id: index + 1,
      name: `s${index + 1}`,
      callbacks: {
        onDeadLetter: ({ subscription }) => {
          // Half of them fail for now.
          if (index % 2 === 1) throw new Error('the pager is down')
          told.push(subscription)
        },
        deadLetterAlert: {
          ...{ count: 1, perSeconds: 3600 },
          onAlert: ({ subscription }) => void alerted.push(subscription),
        },
      },
    })),
  )
  await until('the letters of four are told', () => told.length === 16)
  await until('all alerts are raised', () => alerted.length === 7)
  await calls.stop(performance.now() + 10_000)
  expect(new Set(told)).toEqual(new Set(['s1', 's3', 's5', 's7']))
  expect(new Set(alerted).size).toBe(7)
  expect(
    await database.rows('select error_count, count(*)::int as n from bus.dead_letter_calls group by 1'),
  ).toEqual([{ error_count: 1, n: 12 }])
  expect(await database.count('select count(*) from bus.dead_letter_alerts where next_call_at is null')).toBe(
    7,
  )
  // Claim, read the errors, end, postpone, and find no more; claim and end the alerts.
  expect(statements.length).toBeLessThanOrEqual(7)
})

test.each([
  ['onDeadLetter', { onDeadLetter: 'log' }],
  ['a count of 0', { deadLetterAlert: { count: 0, perSeconds: 1, onAlert: () => {} } }],
  ['no time', { deadLetterAlert: { count: 1, onAlert: () => {} } }],
  ['no callback', { deadLetterAlert: { count: 1, perSeconds: 1 } }],
  ['an unknown option', { deadLetterAlert: { count: 1, perSeconds: 1, onAlert: () => {}, per: 1 } }],
])('a wrong callback is refused: %s', (_, options) => {
  const refusal = expect.objectContaining({ code: 'BUS_INVALID_OPTION' }) as Error
  const bus = testBus('postgres://localhost/none')
  expect(() => subscribeDoomed(bus, 'doomed', options as object)).toThrow(refusal)
  expect(() =>
    createBus({
      database: 'postgres://localhost/none',
      events: paymentEvents,
      source: 's',
      ...(options as object),
    }),
  ).toThrow(refusal)
})
