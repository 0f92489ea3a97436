import { expect, test } from 'vitest'
import { NonRetryableError, RetryAfterError } from '../../../src/index.ts'
import { recordingLogger, testBus } from '../../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'

async function publish(
  { rows }: TestDatabase,
  count: number,
  tenants: readonly string[] = ['acme'],
  keyed = false,
): Promise<void> {
  await rows(
    `insert into bus.events (tenant_id, type, source, payload, ordering_key)
     select tenant, 'note', 'psql', to_jsonb(n), case when $3 then 'k' || n % 30 end from generate_series(1, $1) n, unnest($2::text[]) tenant`,
    [count, tenants, keyed],
  )
}

const receipts = async ({ count }: TestDatabase): Promise<number> =>
  count('select count(*) from bus.deliveries')

for (const mode of ['at-least-once', 'exactly-once', 'ordered'] as const)
  test(
    `a subscription that fails everything halts, burns no attempts, and goes on with the first success: ${mode}`,
    { tags: mode === 'at-least-once' ? [] : ['slow'] },
    async () => {
      const database = await createTestDatabase()
      const state = { healed: false, attempts: 0 }
      const open = async () => {
        const logger = recordingLogger()
        const bus = testBus(database.url, { logger })
        bus.subscribe({
          name: 'down',
          events: ['note'],
          circuitBreaker: { probeSeconds: 1, maxProbeSeconds: 1 },
          mode: mode === 'exactly-once' ? mode : 'at-least-once',
          ...(mode === 'ordered' ? { ordered: true } : {}),
          handler: async () => {
            state.attempts += 1
            await new Promise((resolve) => setTimeout(resolve, 2))
            if (!state.healed) throw new Error('the payment provider is down')
          },
        })
        await bus.start()
        return { bus, logger }
      }
      const [one, two] = [await open(), await open()]
      await publish(database, 500, ['a', 'b'], mode === 'ordered')
      await until(
        'the breaker is open',
        async () => (await one.bus.subscriptions.list())[0]?.state === 'circuit open',
      )
      const [listed] = await two.bus.subscriptions.list()
      expect(listed).toMatchObject({ circuit: { reason: 'the payment provider is down' } })
      await until(
        'everything in hand is back, but for what a probe holds',
        async () =>
          (await database.count(
            `select count(*) from pgboss.job where name = 'bus.down' and state = 'active'`,
          )) <= 1,
      )
      const before = state.attempts
      // Both processes have begun a batch of the first tenant before one of the second.
      expect(before).toBeLessThan(300)
      await until('events were tried', () => state.attempts >= before + 3)
      expect(state.attempts).toBeLessThan(before + 20)
      expect(await one.bus.deadLetters.list()).toEqual([])
      // A process that starts now finds it open.
      const three = await open()
      const tried = state.attempts
      await until('another event was tried', () => state.attempts > tried)
      expect(state.attempts).toBeLessThan(tried + 10)
      state.healed = true
      await until('everything is delivered', async () => (await receipts(database)) === 1000)
      expect((await three.bus.subscriptions.list())[0]).toMatchObject({ state: 'active', waitingCount: 0 })
      expect(await one.bus.deadLetters.list()).toEqual([])
      const lines = [one, two, three].flatMap(({ logger }) => logger.lines)
      const messages = lines.map(({ message }) => message)
      const closed = lines.find(({ message }) =>
        message.endsWith('the circuit breaker of a subscription has closed'),
      )
      expect(closed?.fields['openMs']).toBeGreaterThan(0)
      expect(messages).toContain(
        'nearly every attempt of a subscription fails: its circuit breaker has opened',
      )
      expect(messages).toContain('an attempt succeeded: the circuit breaker of a subscription has closed')
      expect(messages).toContain(
        'the circuit breaker of a subscription stays open: the event that was tried has failed',
      )
    },
  )

test('what fails for one tenant does not halt the others', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({
    name: 'partly',
    events: ['note'],
    retry: { maxAttempts: 2, delaySeconds: 0, backoff: false },
    handler: ({ tenantId }) => {
      if (tenantId === 'bad') throw new Error('no such account')
    },
  })
  await bus.start()
  // Also where the others are silent meanwhile.
  await publish(database, 1, ['good'])
  await until('the good one is delivered', async () => (await receipts(database)) === 1)
  await publish(database, 200, ['bad'])
  await until(
    'all of the bad ones are dead',
    async () =>
      (await database.count(`select count(*) from pgboss.job where name = 'bus.partly.dead'`)) === 200,
  )
  expect((await bus.subscriptions.list())[0]?.state).toBe('active')
})

test('NonRetryableError opens nothing; RetryAfterError does', async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  bus.subscribe({
    name: 'final',
    events: ['note'],
    handler: () => {
      throw new NonRetryableError('not for us')
    },
  })
  bus.subscribe({
    name: 'later',
    events: ['note'],
    handler: () => {
      throw new RetryAfterError(30)
    },
  })
  bus.subscribe({
    name: 'stubborn',
    events: ['note'],
    retry: { maxAttempts: 2, delaySeconds: 0, backoff: false },
    circuitBreaker: false,
    handler: () => {
      throw new Error('always')
    },
  })
  await bus.start()
  await publish(database, 100)
  await until(
    'all are dead',
    async () =>
      (await database.count(
        `select count(*) from pgboss.job where name in ('bus.final.dead', 'bus.stubborn.dead')`,
      )) === 200,
  )
  await until('one is halted', async () =>
    (await bus.subscriptions.list()).some(({ state }) => state === 'circuit open'),
  )
  expect((await bus.subscriptions.list()).map(({ name, state }) => `${name} ${state}`)).toEqual([
    'final active',
    'later circuit open',
    'stubborn active',
  ])
  expect(await bus.subscriptions.resume('later')).toBe(true)
  expect((await bus.subscriptions.list())[1]?.state).toBe('active')
})
