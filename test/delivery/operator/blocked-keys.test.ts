import { PgBoss } from 'pg-boss'
import { expect, onTestFinished, test, vi } from 'vitest'
import { testBus } from '../../support/bus.ts'
import { createTestDatabase, until } from '../../support/database.ts'

test.each([
  ['tries the failed event again', false, [1, 1, 2]],
  ['skips the failed event', true, [1, 2]],
])(
  'a release by a bus that is not started, with one connection, %s and starts no pg-boss',
  async (_, skipFailed, expected) => {
    const database = await createTestDatabase()
    const start = vi.spyOn(PgBoss.prototype, 'start')
    onTestFinished(() => start.mockRestore())
    const bus = testBus(database.url)
    const seen: unknown[] = []
    bus.subscribe({
      name: 'in-order',
      events: ['note'],
      ordered: true,
      retry: { maxAttempts: 1 },
      handler: ({ payload }) => {
        seen.push(payload)
        if (seen.length === 1) throw new Error('never the first time')
      },
    })
    await bus.start()
    expect(start).toHaveBeenCalledTimes(1)
    const note = { type: 'note', tenantId: 'acme', orderingKey: 'k' } as const
    await database.db.transaction(async (tx) =>
      bus.publishMany(
        tx,
        [1, 2].map((payload) => ({ ...note, payload })),
      ),
    )
    await until('the key is blocked', async () => (await bus.blockedKeys.list()).length === 1)
    const operator = testBus({ connectionString: database.url, max: 1 })
    const key = { subscription: 'in-order', tenantId: 'acme', orderingKey: 'k', skipFailed }
    expect(await operator.blockedKeys.release(key)).toBe(true)
    await until('all are delivered', () => seen.length === expected.length)
    expect(seen).toEqual(expected)
    expect(start).toHaveBeenCalledTimes(1)
  },
)
