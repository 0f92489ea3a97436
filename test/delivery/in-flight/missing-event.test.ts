import { expect, test } from 'vitest'
import { recordingLogger, testBus } from '../../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'

const modes = [
  { name: 'plain', options: { mode: 'at-least-once' } },
  { name: 'once', options: { mode: 'exactly-once' } },
  { name: 'ordered', options: { mode: 'at-least-once', ordered: true } },
] as const

/** Two events of a key in one job, the second of which the log does not show when it is to be delivered. */
async function loseSecond(options: (typeof modes)[number]['options']) {
  const database = await createTestDatabase()
  const logger = recordingLogger()
  const bus = testBus(database.url, { logger })
  const seen: string[] = []
  bus.subscribe({
    ...{ name: 'sub', events: ['note'], retry: { maxAttempts: 1 } },
    ...options,
    handler: ({ payload }, { attempt }) => void seen.push(`${String(payload)} ${attempt}`),
  })
  await bus.start()
  await bus.subscriptions.pause('sub')
  await database.db.transaction(async (tx) =>
    bus.publishMany(
      tx,
      ['first', 'second', 'third'].map((payload) => ({
        type: 'note',
        tenantId: 'acme',
        orderingKey: 'k',
        payload,
      })),
    ),
  )
  await until('they are in the queue', async () => (await jobsOf(database)).length > 0)
  await database.rows(`create table lost as select * from bus.events where payload = '"second"'`)
  await database.rows(`delete from bus.events where payload = '"second"'`)
  await bus.subscriptions.resume('sub')
  return { database, bus, seen, logger }
}

const jobsOf = async ({ rows }: TestDatabase) =>
  rows(
    `select data->>'missCount' as "missCount", start_after > now() as waits from pgboss.job where name = 'bus.sub' and state < 'completed'`,
  )

const putBack = async ({ rows }: TestDatabase): Promise<unknown> =>
  rows(
    `set session_replication_role = replica; insert into bus.events select * from lost; reset session_replication_role`,
  )

const hurry = async ({ rows }: TestDatabase): Promise<unknown> =>
  rows(`update pgboss.job set start_after = now() where state < 'active' and start_after > now();
    select pg_notify('bus_wake', 'test ' || id) from bus.subscriptions`)

for (const { name, options } of modes) {
  test(`an event that the log does not show for a while is delivered later, and that is no attempt: ${name}`, async () => {
    const { database, bus, seen } = await loseSecond(options)
    await until('it is put off', async () => {
      const jobs = await jobsOf(database)
      return jobs.length === 1 && jobs[0]?.['missCount'] === '1'
    })
    // Of a key nothing overtakes it.
    expect(seen.toSorted()).toEqual(name === 'ordered' ? ['first 1'] : ['first 1', 'third 1'])
    expect(await bus.deadLetters.list()).toEqual([])
    await putBack(database)
    await until('it is delivered', () => seen.length === 3)
    expect(name === 'ordered' ? seen : seen.toSorted()).toEqual(
      name === 'ordered' ? ['first 1', 'second 1', 'third 1'] : ['first 1', 'second 1', 'third 1'],
    )
    await until('all is settled', async () => (await jobsOf(database)).length === 0)
    expect(await database.count('select count(*) from bus.deliveries')).toBe(3)
  })

  test(`an event that is gone for good becomes a dead letter after six looks, with its reason: ${name}`, async () => {
    const { database, bus, seen, logger } = await loseSecond(options)
    await until(
      'it is a dead letter',
      async () => {
        await hurry(database)
        return (await bus.deadLetters.list()).length === 1
      },
      120_000,
    )
    const looks = logger.lines.filter(({ message }) => message.includes('were not found in the log'))
    // What a key had delivered before goes out of its job first, and the rest begins anew.
    const before = name === 'ordered' ? [1] : []
    expect(looks.map(({ fields }) => fields['delaySeconds'])).toEqual([...before, 1, 5, 15, 30, 60, 120])
    const [dead] = await bus.deadLetters.list()
    expect(dead).toMatchObject({ attempts: 1, failures: [{ attempt: 1, code: 'BUS_EVENT_NOT_FOUND' }] })
    expect(seen.toSorted()).toEqual(name === 'ordered' ? ['first 1'] : ['first 1', 'third 1'])
  }, 150_000)
}
