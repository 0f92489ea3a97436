import { type EventCatalogue } from '../../events/catalogue.ts'
import type { StoredEvent } from '../../events/envelope.ts'
import { eventColumns, toStoredEvent, type EventRow } from '../../outbox/schema/event-row.ts'
import type { Executor } from '../../database/database.ts'
import { upcastPayload } from '../../events/upcast.ts'

/** Reads events of the log for the workers of a process. */
export interface EventReader {
  /** What several workers ask for at once is read in one statement, and what was read lately is not read again. */
  load: (ids: readonly string[]) => Promise<LoadedEvents>
  /** Begins to read events that are about to be asked for. */
  prefetch: (ids: readonly string[]) => void
}

/** Events that were read. */
export interface LoadedEvents {
  /**
   * An event as it was stored, made anew with each call, so that many that wait are not in memory twice. Undefined for one
   * that is not in the log.
   */
  readonly get: (id: string) => StoredEvent | undefined
  readonly tenantOf: (id: string) => string | undefined
  readonly typeOf: (id: string) => string | undefined
  /** When the oldest of them was read, in the time of `performance.now()`. */
  readonly readAt: number
}

/** What a job has before its events are read. */
export const noEvents: LoadedEvents = {
  get: () => undefined,
  tenantOf: () => undefined,
  typeOf: () => undefined,
  readAt: Number.NEGATIVE_INFINITY,
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

interface ReadRow extends EventRow {
  /** From the database's clock, when the row was read, to its expiry. */
  readonly expires_in_ms: string | null
  readonly erased: boolean
}

interface CachedRow {
  readonly row: ReadRow
  readonly readAt: number
}

/** One statement, and the rows it gives, by id. */
interface Read {
  readonly ids: Set<string>
  readonly rows: Promise<ReadonlyMap<string, CachedRow>>
}

/** @param workerCount - workers that read: for a single one nothing is kept */
export function createEventReader(executor: Executor, workerCount: number): EventReader {
  const cache = new Map<string, CachedRow>()
  /**
   * The reads that have not answered. Each has its own set of ids: of a map that lives as long as the process, V8 keeps every
   * table it had until the next full collection, with what was in it.
   */
  let underWay: readonly Read[] = []
  /** The reads whose rows are to be kept until they are asked for. */
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
      // Before it is asked for, so that an expiry is never taken to be later than it is.
      const readAt = performance.now()
      const rows = await readRows(executor, [...started.ids])
      if (workerCount > 1 || readAhead.has(started)) keep(rows, readAt)
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
        // Whoever asks for it hears of the failure, or reads it again.
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
      // A statement that waited while a partition was made does not know of it: another one does.
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

/** Payload and metadata stay text: every delivery gets a copy of its own. */
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

function toMarkedEvent({ row, readAt }: CachedRow): StoredEvent {
  const event = toStoredEvent(row)
  if (row.expires_in_ms !== null) expiries.set(event, readAt + Number(row.expires_in_ms))
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
