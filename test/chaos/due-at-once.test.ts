// @module-tag slow
import { setTimeout as pause } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { testBus } from '../support/bus.ts'
import { createTestDatabase, until } from '../support/database.ts'
import { recordFigure } from '../support/figures.ts'
import { isFullForm } from '../support/form.ts'
import { roomFor } from '../support/slowness.ts'

const dueCount = isFullForm ? 300_000 : 30_000

/** In how many seconds they are due: by then all are written, and the bus waits for them. */
const dueInSeconds = isFullForm ? 20 : 10

/** A tolerance for a machine that is busy with other things. */
const boundMs = 2000

test(`${dueCount} events that are due in one second delay what is published meanwhile by no more than a moment`, async () => {
  const database = await createTestDatabase()
  const bus = testBus(database.url)
  let dueSeen = 0
  const latencies: number[] = []
  bus.subscribe({
    name: 'seen',
    events: ['note'],
    handler: ({ payload }) => {
      if (payload === 'due') dueSeen += 1
      else latencies.push(performance.timeOrigin + performance.now() - (payload as number))
    },
  })
  const { now } =
    (await database.rows(`select clock_timestamp() + $1 * interval '1 second' as now`, [dueInSeconds]))[0] ??
    {}
  for (let n = 0; n < dueCount; n += 10_000)
    await database.rows(
      `insert into bus.events (tenant_id, type, source, payload, available_at)
         select 'acme', 'note', 'sql', '"due"', $1::timestamptz + random() * interval '1 second' from generate_series(1, $2::int)`,
      [now, Math.min(10_000, dueCount - n)],
    )
  await bus.start()
  await until(
    'they are due',
    async () => (await database.rows(`select clock_timestamp() >= $1 as due`, [now]))[0]?.['due'] === true,
  )
  // Of the same tenant: nobody else's fairness helps.
  let published = 0
  const beganAt = performance.now()
  while (dueSeen < dueCount) {
    await database.db.transaction(async (tx) =>
      bus.publish(tx, {
        type: 'note',
        tenantId: 'acme',
        payload: performance.timeOrigin + performance.now(),
      }),
    )
    published += 1
    await pause(20)
    if (performance.now() - beganAt > 200_000) throw new Error(`${dueSeen} of ${dueCount} were delivered`)
  }
  const tookMs = performance.now() - beganAt
  await until('all are there', () => latencies.length === published)
  await until(
    'all receipts are there',
    async () => (await database.count('select count(*) from bus.deliveries')) === dueCount + published,
  )
  const sorted = latencies.toSorted((a, b) => a - b)
  const at = (share: number): number => sorted[Math.floor((sorted.length - 1) * share)] ?? 0
  recordFigure(
    `${dueCount} events due in one second`,
    `delivered in ${(tookMs / 1000).toFixed(1)} s; ${published} others of the same tenant meanwhile: p50 ${at(0.5).toFixed(0)} ms, p99 ${at(0.99).toFixed(0)} ms, worst ${at(1).toFixed(0)} ms`,
  )
  expect(at(0.99)).toBeLessThan(roomFor(boundMs))
})
