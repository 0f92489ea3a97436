import type { StoredEvent } from '../events/envelope.ts'

/**
 * An event of the log. The payload has the shape in which it was stored, which `schemaVersion` names, and is redacted
 * as the catalogue requires.
 */
export interface HistoryEvent<T extends string = string> extends StoredEvent<T> {
  /** The event is, or was, scheduled: it is not delivered before this time. */
  readonly availableAt: Date | undefined
  /** When it was cancelled before it was due. */
  readonly cancelledAt: Date | undefined
  /** When `bus.erase` replaced its payload by null and emptied its metadata. */
  readonly erasedAt: Date | undefined
}
