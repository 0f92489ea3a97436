import { expect, test } from 'vitest'
import { withFaultHook } from '../../../src/foundation/fault-points.ts'
import { testBus } from '../../support/bus.ts'
import { createTestDatabase, until } from '../../support/database.ts'

const subscriptionCount = 80

test.each([
  ['at-least-once', {}, undefined],
  ['ordered', { ordered: true }, 'key'],
] as const)(
  '%s: an event that more subscriptions want than one claim serves reaches each of them once, in order',
  async (_, options, orderingKey) => {
    const { url, db, count, rows } = await createTestDatabase()
    const bus = testBus(url)
    const seen = new Map<string, unknown[]>()
    for (let i = 0; i < subscriptionCount; i += 1) {
      const name = `s${i}`
      seen.set(name, [])
      bus.subscribe({
        ...options,
        name,
        events: ['note'],
        handler: ({ payload }) => void seen.get(name)?.push(payload),
      })
    }
    await bus.start()
    const notes = [...Array(5).keys()]
    await db.transaction(async (tx) =>
      bus.publishMany(
        tx,
        notes.map((payload) => ({ type: 'note', tenantId: 't', payload, orderingKey }) as const),
      ),
    )
    // Later ones may not overtake those that wait for a claim of their own.
    for (const payload of [5, 6])
      await db.transaction(async (tx) =>
        bus.publish(tx, { type: 'note', tenantId: 't', payload, orderingKey }),
      )
    await until(
      'every receipt is there',
      async () => (await count('select count(*) from bus.deliveries')) === 7 * subscriptionCount,
    )
    const got = [...seen.values()].map((payloads) =>
      (orderingKey === undefined ? payloads.toSorted((a, b) => Number(a) - Number(b)) : payloads).join(),
    )
    expect(new Set(got)).toEqual(new Set(['0,1,2,3,4,5,6']))
    await until('the outbox is empty', async () => (await count('select count(*) from bus.outbox')) === 0)
    expect(await rows(`select name from pgboss.job where name like 'bus.%' and state < 'completed'`)).toEqual(
      [],
    )
  },
)

test('a claim serves 32 subscriptions, and holds the event for the others', async () => {
  const { url, db, rows } = await createTestDatabase()
  const heldCounts: number[] = []
  const bus = withFaultHook(
    async (point) => {
      if (point !== 'relay.committed' || heldCounts.length > 0) return
      const [row] = await rows(
        'select count(*)::int as held from bus.outbox where subscription_id is not null',
      )
      heldCounts.push(Number(row?.['held']))
    },
    () => testBus(url),
  )
  const seen = new Set<string>()
  for (let i = 0; i < subscriptionCount; i += 1)
    bus.subscribe({ name: `s${i}`, events: ['note'], handler: () => void seen.add(`s${i}`) })
  await bus.start()
  await db.transaction(async (tx) => bus.publish(tx, { type: 'note', tenantId: 't', payload: 1 }))
  await until('every subscription has it', () => seen.size === subscriptionCount)
  expect(heldCounts).toEqual([subscriptionCount - 32])
})
