import { randomUUID } from 'node:crypto'
import { expect, test } from 'vitest'
import {
  jobIdLike,
  jobIdOf,
  maxSpanMs,
  timeInJobId,
  timeOf,
  waitOf,
} from '../../../src/delivery/jobs/job-id.ts'
import { createTestDatabase } from '../../support/database.ts'

/** An event that was published in a millisecond. */
function eventAt(ms: number): string {
  const time = ms.toString(16).padStart(12, '0')
  return `${time.slice(0, 8)}-${time.slice(8)}-7${randomUUID().slice(15)}`
}

const now = Date.UTC(2026, 10, 29, 12)

test('the id of a job says when its first event was published, or due', () => {
  const id = jobIdOf([{ id: eventAt(now + 40) }, { id: eventAt(now) }, { id: eventAt(now + 90) }])
  expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-b[0-9a-f]{3}-[0-9a-f]{12}$/)
  expect(timeInJobId(id)).toBe(now)
  expect(timeInJobId(jobIdOf([{ id: eventAt(now), dueMs: now + 5000 }]))).toBe(now + 5000)
  expect(timeInJobId(randomUUID())).toBeUndefined()
  expect(timeOf({ id: eventAt(now) })).toBe(now)
})

test('another id for some of the events has the same times, and is another one', () => {
  const events = [eventAt(now), eventAt(now + 1000)]
  const id = jobIdOf(events.map((event) => ({ id: event })))
  const other = jobIdLike(id, events.slice(1))
  expect(other).not.toBe(id)
  expect(other.slice(0, 20)).toBe(id.slice(0, 20))
  expect(timeInJobId(jobIdLike(randomUUID(), events.slice(1)))).toBe(now + 1000)
})

test('an event waits from its publish, or from when it was due, to the beginning of its first handler', () => {
  const eventId = eventAt(Date.now() - 5000)
  const delivered = { eventId, delivered: true, attempt: 1, durationMs: 1000 } as const
  const wait = waitOf(delivered, jobIdOf([{ id: eventId }])) ?? 0
  expect(wait).toBeGreaterThanOrEqual(4000)
  expect(wait).toBeLessThan(10_000)
  const due = jobIdOf([{ id: eventId, dueMs: Date.now() - 1000 }])
  expect(waitOf(delivered, due)).toBeLessThan(4000)
  expect(waitOf({ ...delivered, attempt: 2 }, due)).toBeUndefined()
  const failure = { attempt: 1, at: '', name: 'Error', message: '' }
  expect(waitOf({ eventId, delivered: false, failure, final: false }, due)).toBeUndefined()
})

test('the database finds every event of a job by its id, and does not look into jobs of other times', async () => {
  const { rows } = await createTestDatabase()
  const spans = [0, 1, 3, 4, 5, 4095, 4096, maxSpanMs]
  for (const span of spans) {
    const id = jobIdOf([{ id: eventAt(now) }, { id: eventAt(now + span) }])
    const moments = [0, Math.floor(span / 2), span, -1, span + 9]
    const found = await rows(
      'select array_agg(bus.job_may_hold($1, $2::bigint + m) order by n) as found from unnest($3::bigint[]) with ordinality as u (m, n)',
      [id, now, moments],
    )
    expect([span, found[0]?.['found']]).toEqual([span, [true, true, true, false, false]])
  }
})
