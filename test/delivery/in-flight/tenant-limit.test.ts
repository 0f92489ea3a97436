import { expect, test } from 'vitest'
import { testBus, type PaymentBus } from '../../support/bus.ts'
import { createTestDatabase, until, type TestDatabase } from '../../support/database.ts'
import { isFullForm } from '../../support/form.ts'
import { roomFor } from '../../support/slowness.ts'

type Mode = 'at-least-once' | 'exactly-once' | 'ordered'

async function publish(
  { rows }: TestDatabase,
  count: number,
  tenants: readonly string[],
  keyed = false,
): Promise<void> {
  await rows(
    `insert into bus.events (tenant_id, type, source, payload, ordering_key)
     select tenant, 'note', 'psql', to_jsonb(n), case when $3 then 'k' || n % 50 end from unnest($1::text[]) tenant, generate_series(1, $2) n`,
    [tenants, count, keyed],
  )
}

const handedOver = async (database: TestDatabase): Promise<void> =>
  until(
    'everything is handed over',
    async () => (await database.count('select count(*) from bus.outbox')) === 0,
  )

/** What handlers of one process count. */
class Seen {
  readonly counts = new Map<string, number>()
  readonly running = new Map<string, number>()
  readonly peaks = new Map<string, number>()
  readonly attempts = new Set<number>()

  async handle(tenantId: string, attempt: number, handlerMs: number): Promise<void> {
    const now = (this.running.get(tenantId) ?? 0) + 1
    this.running.set(tenantId, now)
    this.peaks.set(tenantId, Math.max(now, this.peaks.get(tenantId) ?? 0))
    this.attempts.add(attempt)
    await new Promise((resolve) => setTimeout(resolve, handlerMs))
    this.running.set(tenantId, (this.running.get(tenantId) ?? 0) - 1)
    this.counts.set(tenantId, (this.counts.get(tenantId) ?? 0) + 1)
  }

  of(tenantId: string): number {
    return this.counts.get(tenantId) ?? 0
  }
}

function subscribe(
  database: TestDatabase,
  mode: Mode,
  handlerMs: number,
  options: { tenantConcurrency?: number; concurrency?: number },
): { bus: PaymentBus; seen: Seen } {
  const bus = testBus(database.url)
  const seen = new Seen()
  bus.subscribe({
    name: 'limited',
    events: ['note'],
    mode: mode === 'exactly-once' ? mode : 'at-least-once',
    ...(mode === 'ordered' ? { ordered: true } : {}),
    ...options,
    handler: async ({ tenantId }, { attempt }) => seen.handle(tenantId, attempt, handlerMs),
  })
  return { bus, seen }
}

/** How long the rate of a big tenant is measured. Its events last for many times as long. */
const measuredMs = isFullForm ? 5000 : 3000

const limited: readonly [Mode, number, number][] = isFullForm
  ? [
      ['at-least-once', 50_000, 50],
      ['at-least-once', 5000, 100],
      ['exactly-once', 5000, 50],
      ['ordered', 5000, 50],
    ]
  : [
      ['at-least-once', 5000, 50],
      ['exactly-once', 2000, 50],
      ['ordered', 2000, 50],
    ]

test.each(limited)(
  'a tenant at its limit delays nobody, and is never above it: %s, %i events, handlers of %i ms',
  { tags: ['slow'] },
  async (mode, count, handlerMs) => {
    const database = await createTestDatabase()
    const { bus, seen } = subscribe(database, mode, handlerMs, { tenantConcurrency: 3 })
    await publish(database, count, ['big'], mode === 'ordered')
    await bus.start()
    await handedOver(database)
    await until('the big one is under way', () => seen.of('big') > 100)
    const delays: number[] = []
    const [beganAt, before] = [performance.now(), seen.of('big')]
    for (const tenant of ['small', 'tiny', 'late']) {
      const publishedAt = performance.now()
      await publish(database, 10, [tenant], mode === 'ordered')
      await until(`${tenant} is done`, () => seen.of(tenant) === 10)
      delays.push(performance.now() - publishedAt)
    }
    await until('some seconds have passed', () => performance.now() - beganAt > measuredMs)
    const perSecond = ((seen.of('big') - before) / (performance.now() - beganAt)) * 1000
    const possible = 3000 / handlerMs
    console.log(
      `${mode}, ${handlerMs} ms: small tenants ${delays.map((ms) => ms.toFixed(0)).join(', ')} ms; big one ${perSecond.toFixed(1)} of ${possible}/s`,
    )
    expect(seen.peaks.get('big')).toBe(3)
    // A machine with other things to do may hold up some of them.
    expect(delays.toSorted((x, y) => x - y)[1]).toBeLessThan(roomFor(1000))
    expect(perSecond).toBeGreaterThan((possible * 0.6) / roomFor(1))
    expect([...seen.attempts]).toEqual([1])
  },
)

test('everything of a limited tenant is delivered, once, by two processes', async () => {
  const database = await createTestDatabase()
  const one = subscribe(database, 'at-least-once', 5, { tenantConcurrency: 2 })
  const two = subscribe(database, 'at-least-once', 5, { tenantConcurrency: 2 })
  await one.bus.start()
  await two.bus.start()
  await publish(database, 2000, ['a', 'b'])
  await publish(
    database,
    5,
    Array.from({ length: 100 }, (_, n) => `t${n}`),
  )
  await until(
    'all are delivered',
    async () => (await database.count('select count(*) from bus.deliveries')) === 4500,
  )
  for (const { seen } of [one, two]) {
    expect(Math.max(...seen.peaks.values())).toBeLessThanOrEqual(2)
    expect([...seen.attempts]).toEqual([1])
    expect(seen.of('a')).toBeGreaterThan(200)
  }
  expect(one.seen.of('a') + two.seen.of('a')).toBe(2000)
})

const unlimited = isFullForm
  ? [
      [50_000, 50],
      [50_000, 100],
    ]
  : [[5000, 50]]

test.each(unlimited)(
  'without a limit, ten events do not wait a second for %i of another tenant: handlers of %i ms',
  { tags: ['slow'] },
  async (count = 0, handlerMs = 0) => {
    const database = await createTestDatabase()
    const { bus, seen } = subscribe(database, 'at-least-once', handlerMs, {})
    await publish(database, count, ['big'])
    await bus.start()
    await handedOver(database)
    await until('the big one is under way', () => seen.of('big') > 50)
    const delays: number[] = []
    const [beganAt, before] = [performance.now(), seen.of('big')]
    for (const tenant of ['small', 'tiny', 'late', 'last']) {
      const publishedAt = performance.now()
      await publish(database, 10, [tenant])
      await until(`${tenant} is done`, () => seen.of(tenant) === 10)
      delays.push(performance.now() - publishedAt)
    }
    await until('some seconds have passed', () => performance.now() - beganAt > measuredMs)
    const perSecond = ((seen.of('big') - before) / (performance.now() - beganAt)) * 1000
    console.log(
      `${handlerMs} ms: small tenants ${delays.map((ms) => ms.toFixed(0)).join(', ')} ms; big one ${perSecond.toFixed(1)} of ${10_000 / handlerMs}/s`,
    )
    // A machine with other things to do may hold up some of them.
    expect(delays.toSorted((x, y) => x - y)[1]).toBeLessThan(roomFor(1000))
    expect(perSecond).toBeGreaterThan((10_000 / handlerMs) * (0.5 / roomFor(1)))
  },
)
