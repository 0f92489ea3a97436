import type pg from 'pg'
import { upcastPayload, type EventCatalogue } from '../events/catalogue.ts'
import type { EventMetadata, StoredEvent } from '../events/envelope.ts'
import { parseJson } from '../events/json-parse.ts'
import type { Executor } from '../outbox/database.ts'

/** Events, and when the oldest of them was read, in the time of `performance.now()`. */
export interface LoadedEvents {
  readonly events: readonly StoredEvent[]
  readonly readAt: number
}

/** Reads events of the log for the workers of a process. */
export interface EventReader {
  /**
   * Events by id, as they were stored, in no order; ids that are not in the log are left out. What several workers ask
   * for at once is read in one statement, and what was read lately is not read again.
   */
  load: (ids: readonly string[]) => Promise<LoadedEvents>
  /** Begins to read events that are about to be asked for. */
  prefetch: (ids: readonly string[]) => void
}

/** Payload texts kept, in characters: what the subscriptions of a process are about to deliver, and not more. */
const maxCachedLength = 8_000_000

/**
 * No handler begins with a payload that was read longer ago: it is read again. `bus.erase` waits so long, and then no
 * handler of any process begins with what was erased.
 */
export const maxPayloadAgeMs = 5000

/** What is kept is of use for a while after it was asked for. */
const maxCachedMs = maxPayloadAgeMs / 2

/** Most events read in one statement. */
const maxEventsPerRead = 1000

interface EventRow extends pg.QueryResultRow {
  readonly id: string
  readonly tenant_id: string
  readonly type: string
  readonly source: string
  readonly subject: string | null
  readonly schema_version: number
  readonly payload: string
  readonly event_id: string | null
  readonly idempotency_key: string | null
  readonly correlation_id: string | null
  readonly causation_id: string | null
  readonly ordering_key: string | null
  readonly metadata: string
  readonly created_ms: number
  readonly expires_ms: number | null
  /** From the database's clock, when the row was read, to its expiry. */
  readonly expires_in_ms: number | null
  readonly erased: boolean
}

interface CachedRow {
  readonly row: EventRow
  readonly readAt: number
}

/** The rows of one statement, by id, once it has answered. */
type Read = Promise<ReadonlyMap<string, CachedRow>>

/** @param workerCount - workers that read: for a single one nothing is kept */
export function createEventReader(executor: Executor, workerCount: number): EventReader {
  const cache = new Map<string, CachedRow>()
  /** The read that will bring an event. */
  const underWay = new Map<string, Read>()
  /** The statements, by their ids, whose rows are to be kept until they are asked for. */
  const readAhead = new WeakSet<readonly string[]>()
  let cachedLength = 0
  let nextIds: string[] = []
  let nextRead: Read | undefined

  function find(id: string): CachedRow | undefined {
    const cached = cache.get(id)
    return cached !== undefined && performance.now() - cached.readAt < maxCachedMs ? cached : undefined
  }

  function keep(rows: readonly EventRow[], readAt: number): void {
    for (const row of rows) {
      drop(row.id)
      cache.set(row.id, { row, readAt })
      cachedLength += row.payload.length
    }
    // The oldest first: a Map keeps the order of insertion.
    for (const [id, cached] of cache) {
      if (cachedLength <= maxCachedLength && readAt - cached.readAt < maxCachedMs) break
      drop(id)
    }
  }

  function drop(id: string): void {
    const cached = cache.get(id)
    if (cached === undefined) return
    cache.delete(id)
    cachedLength -= cached.row.payload.length
  }

  /** What is asked for until the next turn of the event loop goes into one statement. */
  function read(id: string): Read {
    if (nextRead === undefined || nextIds.length >= maxEventsPerRead) {
      const ids: string[] = []
      nextIds = ids
      nextRead = new Promise<void>((resolve) => setImmediate(resolve)).then(async () => readNow(ids))
    }
    nextIds.push(id)
    underWay.set(id, nextRead)
    return nextRead
  }

  async function readNow(ids: readonly string[]): Read {
    if (nextIds === ids) nextRead = undefined
    try {
      // Before it is asked for, so that an expiry is never taken to be later than it is.
      const readAt = performance.now()
      const rows = await readRows(executor, ids)
      if (workerCount > 1 || readAhead.has(ids)) keep(rows, readAt)
      return new Map(rows.map((row) => [row.id, { row, readAt }]))
    } finally {
      for (const id of ids) underWay.delete(id)
    }
  }

  return {
    prefetch(ids) {
      for (const id of ids) {
        if (find(id) !== undefined || underWay.has(id)) continue
        // Whoever asks for it hears of the failure, or reads it again.
        read(id).catch(() => {})
        readAhead.add(nextIds)
      }
    },
    async load(ids) {
      const rows: CachedRow[] = []
      const awaited = new Map<Read, string[]>()
      for (const id of ids) {
        const row = find(id)
        if (row !== undefined) rows.push(row)
        else {
          const reading = underWay.get(id) ?? read(id)
          const wanted = awaited.get(reading)
          if (wanted === undefined) awaited.set(reading, [id])
          else wanted.push(id)
        }
      }
      await Promise.all(
        [...awaited].map(async ([reading, wanted]) => {
          const found = await reading
          for (const id of wanted) {
            const row = found.get(id)
            if (row !== undefined) rows.push(row)
          }
        }),
      )
      let readAt = performance.now()
      for (const row of rows) if (row.readAt < readAt) ({ readAt } = row)
      return { events: rows.map(toStoredEvent), readAt }
    },
  }
}

/** Payload and metadata stay text: every delivery gets a copy of its own. */
async function readRows(executor: Executor, ids: readonly string[]): Promise<readonly EventRow[]> {
  const { rows } = await executor.query<EventRow>(
    `select id, tenant_id, type, source, subject, schema_version, payload::text as payload, event_id, idempotency_key,
       correlation_id, causation_id, ordering_key, metadata::text as metadata,
       (extract(epoch from created_at) * 1000)::float8 as created_ms,
       (extract(epoch from expires_at) * 1000)::float8 as expires_ms,
       ((extract(epoch from expires_at) - extract(epoch from clock_timestamp())) * 1000)::float8 as expires_in_ms,
       erased_at is not null as erased
     from bus.events where id = any($1::uuid[])`,
    [`{${ids.join(',')}}`],
  )
  return rows
}

/** When, by `performance.now()`, the events that expire do. A clock that was set wrong has no part in it. */
const expiries = new WeakMap<StoredEvent, number>()

/** Whether the time of an event, as the reader gave it, has passed. */
export function hasExpired(event: StoredEvent): boolean {
  const expiry = expiries.get(event)
  return expiry !== undefined && expiry <= performance.now()
}

/** The events that were erased: their payloads are tombstones. */
const erasedEvents = new WeakSet<StoredEvent>()

/** Whether an event, as the reader gave it, was erased. */
export function isErased(event: StoredEvent): boolean {
  return erasedEvents.has(event)
}

function toStoredEvent({ row, readAt }: CachedRow): StoredEvent {
  const event = {
    id: row.id,
    type: row.type,
    source: row.source,
    subject: row.subject ?? undefined,
    tenantId: row.tenant_id,
    payload: parseJson(row.payload),
    schemaVersion: row.schema_version,
    eventId: row.event_id ?? undefined,
    idempotencyKey: row.idempotency_key ?? undefined,
    correlationId: row.correlation_id ?? undefined,
    causationId: row.causation_id ?? undefined,
    orderingKey: row.ordering_key ?? undefined,
    metadata: row.metadata === '{}' ? {} : (parseJson(row.metadata) as EventMetadata),
    createdAt: new Date(row.created_ms),
    // Plain SQL may say infinity.
    expiresAt:
      row.expires_ms === null || !Number.isFinite(row.expires_ms) ? undefined : new Date(row.expires_ms),
  }
  if (row.expires_in_ms !== null) expiries.set(event, readAt + row.expires_in_ms)
  if (row.erased) erasedEvents.add(event)
  return event
}

/**
 * The event in the shape its handler knows: older payloads are brought up to the catalogue's version. A type that the catalogue
 * does not know, which only a pattern matches, is given as it was stored.
 *
 * @throws {@link DeliveryError} as `upcastPayload`
 */
export function inNewestShape(catalogue: EventCatalogue, event: StoredEvent): StoredEvent {
  const definition = Object.hasOwn(catalogue, event.type) ? catalogue[event.type] : undefined
  const newest = definition?.version ?? event.schemaVersion
  if (newest === event.schemaVersion) return event
  return {
    ...event,
    schemaVersion: newest,
    payload: upcastPayload(event.type, definition, event.schemaVersion, event.payload),
  }
}
