import type pg from 'pg'
import type { JobInsert } from 'pg-boss'
import type { ClaimedEvent } from '../../outbox/relay/claim.ts'
import type { AttemptFailure } from '../attempts/failure.ts'
import { backgroundPriority, newJob, maxBatchBytes, type JobData, type ReplayOfJob } from '../jobs/job.ts'
import type { FailureOutput } from '../jobs/job-claim.ts'
import type { KeyFailureRule } from '../subscriptions/subscription-options.ts'
import type { DurableOptions } from '../subscriptions/subscription.ts'

/** The options that bound the jobs of a subscription. */
type JobOptions = Pick<DurableOptions, 'batchSize' | 'timeoutSeconds' | 'retry'>

interface BegunRow extends pg.QueryResultRow {
  readonly key_id: string
  readonly job_id: string
  readonly event_ids: readonly string[]
  /** If the events are of a replay: its id in the ledger, and its operation. */
  readonly replay_id: number | null
  readonly operation_id: string | null
}

/** Reports that some events were held back. */
interface HeldRow extends pg.QueryResultRow {
  readonly key_id: null
}

/**
 * Appends claimed events to their keys and returns the jobs to insert for keys that were idle, all in the claiming
 * transaction. Locks the keys in the order of their hashes until the transaction ends. Events whose key is locked by
 * another transaction, or already has held events, are held back in the outbox.
 *
 * @param options.retaken - the events were held, and their keys are already locked
 * @param options.patient - waits 50 ms for the first locked row
 */
export async function enqueueOrdered(
  client: pg.ClientBase,
  subscriptionId: number,
  options: JobOptions,
  claimed: readonly ClaimedEvent[],
  { retaken, patient }: { readonly retaken: boolean; readonly patient: boolean },
): Promise<{ readonly jobs: readonly JobInsert<JobData>[]; readonly isHeld: boolean }> {
  if (claimed.length === 0) return { jobs: [], isHeld: false }
  const { rows } = await client.query<BegunRow | HeldRow>(
    `select key_id, job_id, event_ids, replay_id, operation_id
     from bus.enqueue_ordered($1, $2, $3, $4::text[], $5::text[], $6::uuid[], $7::int[], $8::text[], $9, $10)`,
    [
      subscriptionId,
      options.batchSize,
      maxBatchBytes,
      claimed.map((event) => event.tenantId),
      claimed.map((event) => event.orderingKey),
      claimed.map((event) => event.id),
      claimed.map((event) => event.payloadBytes),
      claimed.map((event) => event.type),
      retaken,
      patient,
    ],
  )
  const begun = rows.filter((row): row is BegunRow => row.key_id !== null)
  return { jobs: begun.map((row) => toJob(row, options)), isHeld: begun.length < rows.length }
}

/** Appends an event of `bus.event_copies` to its key, as {@link enqueueOrdered} does. Returns the job to insert, if the key was idle. */
export async function enqueueCopy(
  client: pg.ClientBase,
  options: JobOptions,
  id: string,
): Promise<readonly JobInsert<JobData>[]> {
  const { rows } = await client.query<BegunRow | HeldRow>(
    'select key_id, job_id, event_ids, null::int as replay_id, null::uuid as operation_id from bus.enqueue_copy($1, $2, $3)',
    [id, options.batchSize, maxBatchBytes],
  )
  return rows.filter((row): row is BegunRow => row.key_id !== null).map((row) => toJob(row, options))
}

/** The progress of a key's job. */
export interface KeyProgress {
  readonly keyId: string
  readonly jobId: string
  /** The first event of the job. */
  readonly eventId: string
  /** How many of the job's events, from the first one on, are settled. */
  readonly doneCount: number
}

/**
 * Removes settled events from their keys and returns the next job to insert for each, in one transaction with the
 * completion of the jobs. Jobs that no longer belong to their key change nothing.
 */
export async function advanceKeys(
  client: pg.ClientBase,
  options: JobOptions,
  progress: readonly KeyProgress[],
): Promise<JobInsert<JobData>[]> {
  if (progress.length === 0) return []
  const { rows } = await client.query<BegunRow>(
    `select key_id, job_id, event_ids, replay_id, operation_id
     from bus.advance_ordered_keys($1::bigint[], $2::uuid[], $3::uuid[], $4::int[], $5, $6)`,
    [
      progress.map(({ keyId }) => keyId),
      progress.map(({ jobId }) => jobId),
      progress.map(({ eventId }) => eventId),
      progress.map(({ doneCount }) => doneCount),
      options.batchSize,
      maxBatchBytes,
    ],
  )
  return rows.map((row) => toJob(row, options))
}

/** A key whose job has stopped at an event that failed: it gets another job for it, or waits for an operator. */
export type FailedKey = KeyProgress & {
  /** So many events, from the first of the job on, are delivered one by one from now on. */
  readonly singlyCount?: number | undefined
} & (
    | { readonly state: 'active'; readonly nextJobId: string }
    | {
        readonly state: 'blocked' | 'parked'
        readonly failedEventId: string
        readonly attempts: number
        readonly failures: readonly AttemptFailure[]
      }
  )

/** Writes keys that have stopped. Returns the ids of those that still belonged to their job. */
export async function failKeys(
  client: pg.ClientBase,
  stopped: readonly FailedKey[],
): Promise<ReadonlySet<string>> {
  if (stopped.length === 0) return new Set()
  const { rows } = await client.query<{ held: readonly string[] }>(
    'select bus.fail_ordered_keys($1::jsonb) as held',
    [JSON.stringify(stopped)],
  )
  return new Set(rows[0]?.held)
}

/**
 * What a key does when its first event, after what is done, has become a dead letter, by the rule of its subscription: with `skip` it
 * advances behind that event, otherwise it waits for an operator.
 */
export function afterDeadLetter(
  rule: KeyFailureRule | undefined,
  progress: KeyProgress,
  failedEventId: string,
  { attempts, failures }: FailureOutput,
): { readonly advanced: KeyProgress } | { readonly stopped: FailedKey } {
  if (rule === 'skip') return { advanced: { ...progress, doneCount: progress.doneCount + 1 } }
  const state = rule === 'park' ? 'parked' : 'blocked'
  return { stopped: { ...progress, state, failedEventId, attempts, failures } }
}

/**
 * Appends events of a replay, or of a catch-up, to their keys, and returns the jobs to insert for keys that were idle, in the transaction of
 * the operation's part. Locks the order and the rows of the keys; rejects where another session holds one of them.
 */
export async function enqueueReplayed(
  client: pg.ClientBase,
  subscriptionId: number,
  options: JobOptions,
  events: readonly ClaimedEvent[],
  replay: ReplayOfJob | undefined,
): Promise<readonly JobInsert<JobData>[]> {
  if (events.length === 0) return []
  const { rows } = await client.query<BegunRow>(
    `select key_id, job_id, event_ids, replay_id, operation_id
     from bus.enqueue_replayed($1, $2, $3, $4, $5::text[], $6::text[], $7::uuid[], $8::int[])`,
    [
      subscriptionId,
      replay?.ledgerId ?? null,
      options.batchSize,
      maxBatchBytes,
      events.map((event) => event.tenantId),
      events.map((event) => event.orderingKey),
      events.map((event) => event.id),
      events.map((event) => event.payloadBytes),
    ],
  )
  return rows.map((row) => ({ ...toJob(row, options), priority: backgroundPriority }))
}

/** A job with events of a replay stands behind those of other keys. */
function toJob(
  { key_id, job_id, event_ids, replay_id, operation_id }: BegunRow,
  options: JobOptions,
): JobInsert<JobData> {
  const job = {
    ...newJob(event_ids, options),
    id: job_id,
    data: { eventIds: event_ids, keyId: key_id },
  }
  const replay = toReplay(replay_id, operation_id)
  return replay === undefined ? job : { ...job, data: { ...job.data, replay }, priority: backgroundPriority }
}

function toReplay(ledgerId: number | null, operationId: string | null): ReplayOfJob | undefined {
  return ledgerId === null || operationId === null ? undefined : { ledgerId, operationId }
}

/** A key that waits for an operator, locked by the transaction that reads it. */
export interface WaitingKey {
  readonly keyId: string
  readonly failedEventId: string
  readonly attempts: number
  readonly failures: readonly AttemptFailure[]
  /** The replay that the failed event is of. */
  readonly replay: ReplayOfJob | undefined
  /** Makes the key active again, its failed event first. Resolves to the id of its job: the given one, or a new one. */
  readonly resume: (jobId: string | undefined) => Promise<string>
}

/** Locks a blocked or parked key. Undefined where the key is neither. */
export async function lockWaitingKey(
  client: pg.ClientBase,
  subscriptionId: number,
  tenantId: string,
  orderingKey: string,
): Promise<WaitingKey | undefined> {
  const { rows } = await client.query<{
    id: string
    failed_event_id: string
    attempts: number
    failures: readonly AttemptFailure[]
    replay_id: number | null
    operation_id: string | null
  }>(
    `select k.id, k.failed_event_id, k.attempts, k.failures, r.id as replay_id, r.operation_id
     from bus.ordered_keys k
     left join bus.replays r on r.id = (
       select e.replay_id from bus.ordered_events e where e.key_id = k.id and e.seq > k.done_seq order by e.seq limit 1)
     where k.subscription_id = $1 and k.key_hash = bus.ordering_key_hash($2, $3) and k.state in ('blocked', 'parked')
     for update of k`,
    [subscriptionId, tenantId, orderingKey],
  )
  const [row] = rows
  if (row === undefined) return undefined
  return {
    keyId: row.id,
    failedEventId: row.failed_event_id,
    attempts: row.attempts,
    failures: row.failures,
    replay: toReplay(row.replay_id, row.operation_id),
    async resume(jobId) {
      const { rows: resumed } = await client.query<{ job_id: string }>(
        `update bus.ordered_keys
         set state = 'active', job_id = coalesce($2, bus.uuid_v7()),
           failed_event_id = null, attempts = null, failures = null, failed_at = null
         where id = $1 returning job_id`,
        [row.id, jobId ?? null],
      )
      return resumed[0]?.job_id ?? ''
    },
  }
}
