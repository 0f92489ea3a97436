import { randomUUID } from 'node:crypto'
import { idPrefix, timeInId } from '../../events/event-id.ts'
import type { EventOutcome } from '../attempts/outcome.ts'

/** What the id of a job is made from. */
export interface TimedEvent {
  readonly id: string
  /** When it was due, for a scheduled event, in milliseconds since 1970. */
  readonly dueMs?: number | undefined
}

/** The span of times that an id can express: 12 bits of four milliseconds. */
const unitMs = 4
export const maxSpanMs = 4095 * unitMs

/** By which time an event is found in its queue: when it was due, or else when it was published, which its id says. */
export function timeOf({ id, dueMs }: TimedEvent): number {
  return dueMs ?? timeInId(id)
}

/**
 * The id of a job of first attempts: a uuid of version 8 that says between which times its events are, so that the job of an event is found
 * by the primary key of pg-boss's table. 48 bits are the earliest time in milliseconds, 12 bits the span in units of four; the rest is
 * random. `bus.job_may_hold` reads it.
 *
 * @param events - at most {@link maxSpanMs} apart
 */
export function jobIdOf(events: readonly TimedEvent[]): string {
  let first = Number.POSITIVE_INFINITY
  let last = 0
  for (const event of events) {
    const time = timeOf(event)
    if (time < first) first = time
    if (time > last) last = time
  }
  const span = Math.min(4095, Math.floor((last - first) / unitMs))
    .toString(16)
    .padStart(3, '0')
  const random = randomUUID()
  return `${idPrefix(first)}-8${span}-b${random.slice(20)}`
}

function saysTimes(id: string): boolean {
  return id[14] === '8' && id[19] === 'b'
}

/** When the first event of a job was due or published, in milliseconds since 1970, where its id says so. */
export function timeInJobId(id: string): number | undefined {
  return saysTimes(id) ? timeInId(id) : undefined
}

/** Another id for events of the same times. */
export function jobIdLike(id: string, eventIds: readonly string[]): string {
  if (saysTimes(id)) return `${id.slice(0, 20)}${randomUUID().slice(20)}`
  // A job of an earlier version.
  return jobIdOf(eventIds.map((eventId) => ({ id: eventId })))
}

/**
 * How long an event waited for the handler of its first attempt, which has just ended: since it was published or due, by the clock of the
 * database, to its beginning, by that of this process. Undefined for later attempts, and where no handler ran.
 */
export function waitOf(outcome: EventOutcome, jobId: string): number | undefined {
  const { eventId, durationMs } = outcome
  const attempt = outcome.delivered ? outcome.attempt : outcome.failure.attempt
  if (attempt > 1 || durationMs === undefined) return undefined
  return Math.max(0, Date.now() - durationMs - Math.max(timeInId(eventId), timeInJobId(jobId) ?? 0))
}
