import { randomUUID } from 'node:crypto'
import { checkActor, writeAudit } from '../../audit/audit.ts'
import type { Executor } from '../../database/database.ts'
import { locks } from '../../database/locks.ts'
import { takeDeadLetterJobs, findRedrivenJobs } from '../../delivery/jobs/dead-letter-jobs.ts'
import { jobIdOf } from '../../delivery/jobs/job-id.ts'
import { newJob } from '../../delivery/jobs/job.ts'
import {
  insertDiscards,
  readEntries,
  removeEntries,
  type DeadLetterEntry,
} from '../../delivery/ledger/dead-letter-rows.ts'
import { jobWriterOf, type LetterTransaction } from '../../delivery/operator/redrive-letters.ts'
import { lockHeldKeys, replaceFailedEvent, resumeKeys } from '../../delivery/ordering/held-keys.ts'
import { enqueueCopy } from '../../delivery/ordering/ordered-keys.ts'
import type { RegisteredSubscription } from '../../delivery/registry/registry.ts'
import type { EventMetadata } from '../../events/envelope.ts'
import { encodeJson } from '../../events/json/encode-json.ts'
import { placeholderIn, redactPayload, restoreRedacted } from '../../events/payload-redaction.ts'
import type { EventDefinition } from '../../events/catalogue.ts'
import { upcastPayload } from '../../events/upcast.ts'
import { validatePayload } from '../../events/validate-payload.ts'
import { ConfigurationError, InvalidEventError } from '../../foundation/errors.ts'
import {
  assertObject,
  booleanOption,
  describe,
  invalidOption,
  refuseUnknownKeys,
} from '../../foundation/options.ts'
import { encodeMetadata, type PublishSettings } from '../../outbox/publish/check-events.ts'
import { wakePayload, wakeSql } from '../../outbox/relay/notifier.ts'
import { eventColumns, toStoredEvent, type EventRow } from '../../outbox/schema/event-row.ts'
import { changesBetween, type Change } from './payload-changes.ts'

/** What is edited, by whom and why. */
export interface EditedRedriveOptions {
  /**
   * The whole payload of the copy, valid for the schema of this process's catalogue. Omitted: that of the event. Where `redact` hides a value and
   * this has the text `[redacted]`, as reads show it, the copy keeps the value; items of a list keep theirs by position, if the list keeps its
   * length.
   */
  readonly payload?: unknown
  /** All metadata of the copy. Omitted: those of the event. */
  readonly metadata?: EventMetadata | undefined
  /** The person or program, 1 to 255 characters. Recorded. */
  readonly by: string
  /** Up to 2,000 characters. Recorded. */
  readonly reason?: string | undefined
  /** Validates, says what would change, and writes nothing. @defaultValue `false` */
  readonly dryRun?: boolean | undefined
}

/** The result of an edited redrive. */
export interface EditedRedrive {
  /** The id of the copy. Undefined for a dry run. */
  readonly id: string | undefined
  /** Where it differs from the event, without values: up to 100 places. */
  readonly changes: readonly Change[]
}

/** A copy that is to be stored. */
interface Edit {
  /** As JSON text; undefined: as it is. */
  readonly payload: string | undefined
  readonly version: number | undefined
  readonly metadata: string | undefined
  readonly changes: readonly Change[]
}

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
export function checkEdit(given: EditedRedriveOptions): EditedRedriveOptions & { readonly dryRun: boolean } {
  assertObject('options like { payload, by, reason }', given)
  refuseUnknownKeys(given, ['payload', 'metadata', 'by', 'reason', 'dryRun'], 'deadLetters.redriveEdited')
  const { payload, metadata } = given
  const { by, reason } = checkActor(given)
  if (payload === undefined && metadata === undefined)
    throw invalidOption('Expected `payload` or `metadata`: deadLetters.redrive delivers the event as it is')
  return { payload, metadata, by, reason, dryRun: booleanOption('dryRun', given.dryRun, false) }
}

/** The dead letter of an event. @throws a {@link ConfigurationError} `BUS_DEAD_LETTER_NOT_FOUND` */
export async function readEntry(
  executor: Executor,
  { id, name }: Pick<RegisteredSubscription, 'id' | 'name'>,
  eventId: string,
): Promise<DeadLetterEntry> {
  const [entry] = await readEntries(executor, { subscriptionId: id, eventIds: [eventId] }, 1)
  if (entry === undefined) throw notFound(eventId, name)
  return entry
}

/** Validates an edit of the event of a dead letter. Only reads. */
export async function planEdit(
  executor: Executor,
  { catalogue, maxPayloadBytes }: PublishSettings,
  subscription: string,
  eventId: string,
  { payload, metadata }: Pick<EditedRedriveOptions, 'payload' | 'metadata'>,
): Promise<Edit> {
  const { rows } = await executor.query<EventRow>(
    `select ${eventColumns('e')} from bus.events e where e.id = $1::uuid and e.erased_at is null`,
    [eventId],
  )
  if (rows[0] === undefined) throw notFound(eventId, subscription)
  const event = toStoredEvent(rows[0])
  const changes: Change[] = []
  let text: string | undefined
  let version: number | undefined
  if (payload !== undefined) {
    const { type } = event
    const definition = Object.hasOwn(catalogue, type) ? catalogue[type] : undefined
    if (definition === undefined)
      throw new InvalidEventError(
        'BUS_UNKNOWN_EVENT_TYPE',
        `Expected the type of the event to be in the catalogue of this process, which validates its payload: got ${describe(type)}`,
        [],
        { option: 'type' },
      )
    const before = upcastPayload(type, definition, rows[0].schema_version, event.payload)
    const edited = withHiddenValues(definition, payload, before, maxPayloadBytes)
    const after = await validatePayload(type, definition, edited)
    text = encodeJson(after, 'payload', maxPayloadBytes)
    refusePlaceholder(definition, JSON.parse(text), before)
    version = definition.version ?? 1
    const shown = (stored: unknown): { readonly stored: unknown; readonly shown: unknown } => ({
      stored,
      shown: redactPayload(catalogue, type, stored),
    })
    changes.push(...changesBetween(shown(before), shown(JSON.parse(text)), 'payload'))
  }
  if (metadata !== undefined) {
    const [before, after] = [event.metadata, metadata].map((stored) => ({ stored, shown: stored }))
    if (before !== undefined && after !== undefined)
      changes.push(...changesBetween(before, after, 'metadata'))
  }
  return { payload: text, version, metadata: encodeMetadata(metadata), changes }
}

/** Puts the stored values back where an edit was made in a payload as it is shown. */
function withHiddenValues(
  definition: EventDefinition,
  payload: unknown,
  before: unknown,
  maxBytes: number,
): unknown {
  if (definition.redact === undefined) return payload
  let text: string
  try {
    text = encodeJson(payload, 'payload', maxBytes)
  } catch {
    // Whatever it is, no read has shown it: the schema decides.
    return payload
  }
  const given: unknown = JSON.parse(text)
  const restored = restoreRedacted(definition, given, before)
  return restored === given ? payload : restored
}

/** @throws an {@link InvalidEventError} `BUS_INVALID_EVENT` */
function refusePlaceholder(definition: EventDefinition, edited: unknown, before: unknown): void {
  const path = placeholderIn(definition, edited, before)
  if (path === undefined) return
  const message =
    'the text `[redacted]` stands for a hidden value, and the event has none at this place: give the value'
  throw new InvalidEventError(
    'BUS_INVALID_EVENT',
    `Expected \`payload\` without placeholders. ${path}: ${message}. Items of a list are told by their position, so a list has to keep its length`,
    [{ path, message }],
    { option: 'payload' },
  )
}

/**
 * Stores the edited copy of an event for one subscription, delivers it in its place, and discards the dead letter, in one transaction. In an
 * ordered subscription the copy takes the place of an event that holds its key; otherwise it goes to the end of its key.
 */
export async function redriveCopy(
  transaction: LetterTransaction,
  subscription: RegisteredSubscription,
  eventId: string,
  edit: Edit,
  { by, reason }: Pick<EditedRedriveOptions, 'by' | 'reason'>,
): Promise<string> {
  const { client, database } = transaction
  const { rows: ids } = await client.query<{ id: string }>('select bus.uuid_v7() as id')
  const copyId = ids[0]?.id ?? ''
  const auditId = await writeAudit(
    client,
    {
      ...{ by, reason, eventId, action: 'deadLetters.redriveEdited', subscription: subscription.name },
      change: { copyId, changes: edit.changes },
    },
    {},
  )
  if (subscription.ordered === true)
    await client.query('select pg_advisory_xact_lock($1, $2)', [locks.namespace, locks.order])
  const [entry] = await readEntries(client, { subscriptionId: subscription.id, eventIds: [eventId] }, 1)
  if (entry === undefined) throw notFound(eventId, subscription.name)
  const keys = await lockHeldKeys(client, subscription.id, entry.keyId === undefined ? [] : [entry.keyId])
  const key = keys.get(eventId)
  const taken = await takeDeadLetterJobs(client, database, subscription.name, [entry.jobId])
  if (!taken.has(entry.jobId)) {
    const redriven = await findRedrivenJobs(client, database, subscription.name, [entry.jobId])
    if (key === undefined || redriven.size > 0) throw notFound(eventId, subscription.name)
  }
  const { rows } = await client.query<{ bytes: number | null }>(
    'select bus.copy_event($1, $2, $3, $4::jsonb, $5::int, $6::jsonb) as bytes',
    [copyId, eventId, subscription.id, edit.payload ?? null, edit.version ?? null, edit.metadata ?? null],
  )
  const payloadBytes = rows[0]?.bytes
  if (payloadBytes === null || payloadBytes === undefined) throw notFound(eventId, subscription.name)
  await insertDiscards(client, subscription.id, [entry], auditId)
  await removeEntries(client, subscription.id, [eventId])
  const jobs = jobWriterOf(transaction, subscription)
  if (key !== undefined) {
    const job = newJob([copyId], subscription)
    const jobId = randomUUID()
    await replaceFailedEvent(client, key, { id: copyId, payloadBytes })
    await resumeKeys(client, [{ keyId: key.keyId, jobId }])
    await jobs.insert([{ ...job, id: jobId, data: { eventIds: [copyId], keyId: key.keyId } }])
  } else {
    const { rows: stored } = await client.query<{ ordering_key: string | null }>(
      'select ordering_key from bus.events where id = $1::uuid',
      [copyId],
    )
    const hasKey = subscription.ordered === true && typeof stored[0]?.ordering_key === 'string'
    await jobs.insert(
      hasKey
        ? await enqueueCopy(client, subscription, copyId)
        : [{ ...newJob([copyId], subscription), id: jobIdOf([{ id: copyId }]) }],
    )
  }
  await client.query(wakeSql, [wakePayload('', [subscription.id])])
  return copyId
}

function notFound(eventId: string, subscription: string): ConfigurationError {
  return new ConfigurationError(
    'BUS_DEAD_LETTER_NOT_FOUND',
    `The event ${describe(eventId)} is no dead letter of \`${subscription}\`, or is not in the log any more, or was erased`,
  )
}
