import { type EventCatalogue } from '../../events/catalogue.ts'
import type { StoredEvent } from '../../events/envelope.ts'
import { eventColumns, toStoredEvent, type EventRow } from '../../outbox/schema/event-row.ts'
import type { Executor } from '../../database/database.ts'
import { upcastPayload } from '../../events/upcast.ts'

/** Reads events of the log for the workers of a process. */
export interface EventReader {
  /** Events that several workers request at once are read in one statement, and recently read events are cached. */
  load: (ids: readonly string[]) => Promise<LoadedEvents>
  /** Starts to read events that will be requested soon. */
  prefetch: (ids: readonly string[]) => void
}

/** Events that have been read. */
export interface LoadedEvents {
  /**
   * An event as it was stored, created anew by each call, so that many waiting events are not in memory twice.
   * Undefined if it is not in the log.
   */
  readonly get: (id: string) => StoredEvent | undefined
  readonly tenantOf: (id: string) => string | undefined
  readonly typeOf: (id: string) => string | undefined
  /** When the oldest of them was read, in terms of `performance.now()`. */
  readonly readAt: number
}

/** The events of a job before they are read. */
export const noEvents: LoadedEvents = {
  get: () => undefined,
  tenantOf: () => undefined,
  typeOf: () => undefined,
  readAt: Number.NEGATIVE_INFINITY,
}

/** Maximum size of the cached payload texts, in characters: about what the subscriptions of a process are going to deliver. */
const maxCachedLength = 8_000_000

/**
 * No handler starts with a payload that was read longer ago: it is read again. `bus.erase` waits for this long; after
 * that no handler in any process starts with an erased payload.
 */
export const maxPayloadAgeMs = 5000

/** How long an event stays in the cache after it was requested. */
const maxCachedMs = maxPayloadAgeMs / 2

/** Maximum number of events in one statement. */
const maxEventsPerRead = 1000

interface ReadRow extends EventRow {
  /** From the database's time of the read to the expiry. */
  readonly expires_in_ms: string | null
  readonly erased: boolean
}

interface CachedRow {
  readonly row: ReadRow
  readonly readAt: number
}

/** One statement and the rows it returns, by id. */
interface Read {
  readonly ids: Set<string>
  readonly rows: Promise<ReadonlyMap<string, CachedRow>>
}

/** @param workerCount - the number of workers that read; with a single one nothing is cached */
export function createEventReader(executor: Executor, workerCount: () => number): EventReader {
  const cache = new Map<string, CachedRow>()
  /**
   * The reads that have not been answered. Each has its own set of ids: V8 keeps every table of a long-lived map, with
   * its contents, until the next full collection.
   */
  let underWay: readonly Read[] = []
  /** The reads whose rows are kept until they are requested. */
  const readAhead = new WeakSet<Read>()
  let cachedLength = 0
  let nextRead: Read | undefined

  function find(id: string): CachedRow | undefined {
    const cached = cache.get(id)
    return cached !== undefined && performance.now() - cached.readAt < maxCachedMs ? cached : undefined
  }

  function keep(rows: readonly ReadRow[], readAt: number): void {
    for (const row of rows) {
      drop(row.id)
      cache.set(row.id, { row, readAt })
      cachedLength += row.payload.length
    }
    // Oldest first: a Map keeps the order of insertion.
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

  /** Combines all requests until the next turn of the event loop into one statement. */
  function read(id: string): Read {
    if (nextRead === undefined || nextRead.ids.size >= maxEventsPerRead) {
      const ids = new Set<string>()
      const started: Read = {
        ids,
        rows: new Promise<void>((resolve) => setImmediate(resolve)).then(async () => readNow(started)),
      }
      nextRead = started
      underWay = [...underWay, started]
    }
    nextRead.ids.add(id)
    return nextRead
  }

  async function readNow(started: Read): Promise<ReadonlyMap<string, CachedRow>> {
    if (nextRead === started) nextRead = undefined
    try {
      // Before the request, so that an expiry is never assumed to be later than it is.
      const readAt = performance.now()
      const rows = await readRows(executor, [...started.ids])
      if (workerCount() > 1 || readAhead.has(started)) keep(rows, readAt)
      return new Map(rows.map((row) => [row.id, { row, readAt }]))
    } finally {
      underWay = underWay.filter((other) => other !== started)
    }
  }

  const findUnderWay = (id: string): Read | undefined => underWay.find(({ ids }) => ids.has(id))

  return {
    prefetch(ids) {
      for (const id of ids) {
        if (find(id) !== undefined || findUnderWay(id) !== undefined) continue
        const reading = read(id)
        // The requester handles the failure, or reads again.
        reading.rows.catch(() => {})
        readAhead.add(reading)
      }
    },
    async load(ids) {
      const rows = new Map<string, CachedRow>()
      const awaited = new Map<Read, string[]>()
      for (const id of ids) {
        const row = find(id)
        if (row !== undefined) rows.set(id, row)
        else {
          const reading = findUnderWay(id) ?? read(id)
          const wanted = awaited.get(reading)
          if (wanted === undefined) awaited.set(reading, [id])
          else wanted.push(id)
        }
      }
      await Promise.all(
        [...awaited].map(async ([reading, wanted]) => {
          const found = await reading.rows
          for (const id of wanted) {
            const row = found.get(id)
            if (row !== undefined) rows.set(id, row)
          }
        }),
      )
      // A statement that waited while a partition was created does not see it; another statement does.
      const missing = ids.filter((id) => !rows.has(id))
      if (missing.length > 0) {
        const askedAt = performance.now()
        for (const row of await readRows(executor, missing)) rows.set(row.id, { row, readAt: askedAt })
      }
      let readAt = performance.now()
      for (const row of rows.values()) if (row.readAt < readAt) ({ readAt } = row)
      return {
        readAt,
        get(id) {
          const row = rows.get(id)
          return row === undefined ? undefined : toMarkedEvent(row)
        },
        tenantOf: (id) => rows.get(id)?.row.tenant_id,
        typeOf: (id) => rows.get(id)?.row.type,
      }
    },
  }
}

/** Payload and metadata remain text, because every delivery gets its own copy. */
async function readRows(executor: Executor, ids: readonly string[]): Promise<readonly ReadRow[]> {
  const { rows } = await executor.query<ReadRow>(
    `select ${eventColumns('e')},
       (extract(epoch from e.expires_at) - extract(epoch from clock_timestamp())) * 1000 as expires_in_ms,
       e.erased_at is not null as erased
     from bus.events e where e.id = any($1::uuid[])`,
    [`{${ids.join(',')}}`],
  )
  return rows
}

/** When events expire, in terms of `performance.now()`, which a wrong system clock does not affect. */
const expiries = new WeakMap<StoredEvent, number>()

/** Whether an event from the reader has expired. */
export function hasExpired(event: StoredEvent): boolean {
  const expiry = expiries.get(event)
  return expiry !== undefined && expiry <= performance.now()
}

/** The erased events: their payloads are tombstones. */
const erasedEvents = new WeakSet<StoredEvent>()

/** Whether an event from the reader was erased. */
export function isErased(event: StoredEvent): boolean {
  return erasedEvents.has(event)
}

function toMarkedEvent({ row, readAt }: CachedRow): StoredEvent {
  const event = toStoredEvent(row)
  if (row.expires_in_ms !== null) expiries.set(event, readAt + Number(row.expires_in_ms))
  if (row.erased) erasedEvents.add(event)
  return event
}

/**
 * The event in the shape that its handler expects: older payloads are upcast to the catalogue's version. An event of a
 * type that the catalogue does not contain, matched by a pattern, is returned as it was stored.
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
