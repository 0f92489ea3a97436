import { createHash } from 'node:crypto'
import type pg from 'pg'
import type { Database } from '../../database/database.ts'
import { countReplayed } from './replay-outcomes.ts'
import type { AttemptFailure } from '../attempts/failure.ts'
import type { DeadLetterCallbacks } from '../subscriptions/dead-letter-callbacks.ts'
import { insertCalls } from './dead-letter-calls.ts'

/** A failed attempt at an event, and what it means for it. */
export interface FailureRecord {
  readonly eventId: string
  /** Where it is not known, it is looked up. */
  readonly tenantId?: string | undefined
  /** For the log line of a dead letter: if it is known. It is not recorded. */
  readonly type?: string | undefined
  /** The key of an ordered subscription that it holds. */
  readonly keyId?: string | undefined
  readonly failure: AttemptFailure
  /** Of the handler, if one ran. */
  readonly durationMs?: number | undefined
  /** `retrying`: pg-boss runs `jobId` again. Otherwise it is a dead letter, which holds its key `blocked` or `parked`, or none. */
  readonly state: 'retrying' | 'dead' | 'blocked' | 'parked'
  /** The job that carries the event on, or that became the dead letter. */
  readonly jobId: string
}

/** An event that was failing and is done. */
export interface RecoveryRecord {
  readonly eventId: string
  readonly attempt: number
  readonly durationMs: number
  /** False if it expired or was erased instead. */
  readonly succeeded: boolean
}

/** Who writes, and for which subscription. */
interface Writer {
  readonly subscriptionId: number
  readonly instanceId: string
  /** If it has a callback, that is to be told of dead letters. */
  readonly subscription?: DeadLetterCallbacks | undefined
  /** Set where that is a replay. */
  readonly replay?: object | undefined
}

/**
 * Records failed attempts in `bus.attempts` and their events in `bus.failing`, in the transaction that settles them: after their jobs, whose
 * next start it reads. Repeating it changes nothing.
 */
export async function recordFailures(
  client: pg.ClientBase,
  { subscriptionId, instanceId, subscription, replay }: Writer,
  failures: readonly FailureRecord[],
): Promise<void> {
  if (failures.length === 0) return
  if (replay !== undefined)
    await countReplayed(client, subscriptionId, {
      dead: failures.filter(({ state }) => state !== 'retrying').length,
    })
  const rows = failures.map((failed) => {
    const { failure, type: _, ...record } = failed
    return {
      ...failure,
      ...record,
      durationMs: rounded(record.durationMs),
      fingerprint: fingerprintOf(failure),
    }
  })
  await client.query('select bus.record_failures($1, $2::jsonb, $3)', [
    subscriptionId,
    JSON.stringify(rows),
    instanceId,
  ])
  const dead = failures.flatMap(({ state, eventId }) => (state === 'retrying' ? [] : [eventId]))
  if (replay === undefined && subscription?.onDeadLetter !== undefined && dead.length > 0)
    await insertCalls(client, subscriptionId, dead)
}

/** Removes events from `bus.failing`, and records the attempts that succeeded. Repeating it changes nothing. */
export async function recordRecoveries(
  client: pg.ClientBase,
  { subscriptionId, instanceId }: Writer,
  recoveries: readonly RecoveryRecord[],
): Promise<void> {
  if (recoveries.length === 0) return
  await client.query('select bus.record_recoveries($1, $2::jsonb, $3)', [
    subscriptionId,
    JSON.stringify(recoveries.map((record) => ({ ...record, durationMs: rounded(record.durationMs) }))),
    instanceId,
  ])
}

/** To the microsecond, as in receipts. */
function rounded(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : Math.round(ms * 1000) / 1000
}

/** The job that carries a failing event on, or that became its dead letter. */
export async function findFailingJob(
  client: pg.ClientBase,
  subscriptionId: number,
  eventId: string,
): Promise<string | undefined> {
  const { rows } = await client.query<{ job_id: string }>(
    'select job_id from bus.failing where subscription_id = $1 and event_id = $2',
    [subscriptionId, eventId],
  )
  return rows[0]?.job_id
}

/** Records that a dead letter, which somebody has redriven through pg-boss, is being tried again. Repeating it changes nothing. */
export async function recordRedriven(
  database: Pick<Database, 'query'>,
  subscriptionId: number,
  eventId: string,
  jobId: string,
): Promise<void> {
  await database.query(
    `update bus.failing set state = 'retrying', job_id = $3, next_attempt_at = now()
     where subscription_id = $1 and event_id = $2 and state <> 'retrying'`,
    [subscriptionId, eventId, jobId],
  )
}

/**
 * Records that the event which held a key no longer does: it is retried now by the given job, or without one it is a dead letter like any
 * other.
 */
export async function releaseFailing(
  client: pg.ClientBase,
  subscriptionId: number,
  eventId: string,
  jobId: string | undefined,
): Promise<void> {
  await client.query(
    `update bus.failing
     set state = case when $3::uuid is null then 'dead' else 'retrying' end, job_id = coalesce($3, job_id),
       next_attempt_at = case when $3::uuid is not null then now() end
     where subscription_id = $1 and event_id = $2`,
    [subscriptionId, eventId, jobId ?? null],
  )
}

/** What errors of the same kind have in common: name, code and message, without the numbers, ids and quoted texts in it. */
export function fingerprintOf({
  name,
  code,
  message,
}: Pick<AttemptFailure, 'name' | 'code' | 'message'>): string {
  const kind = message
    .replaceAll(/"[^"]*"|(?<!\w)'[^']*'|`[^`]*`/g, '?')
    .replaceAll(/\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b/gi, '?')
    .replaceAll(/\b(?=[0-9a-f]*\d)[0-9a-f]{12,}\b/gi, '?')
    .replaceAll(/\d+/g, '?')
  return createHash('sha256')
    .update(JSON.stringify([name, code ?? '', kind]))
    .digest('hex')
    .slice(0, 16)
}
