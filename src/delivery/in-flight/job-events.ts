import type { StoredEvent } from '../../events/envelope.ts'
import {
  hasExpired,
  isErased,
  maxPayloadAgeMs,
  noEvents,
  type LoadedEvents,
} from '../attempts/event-reader.ts'
import {
  erasedBefore,
  eventNotFound,
  expiredBefore,
  toOutcome,
  type EventOutcome,
} from '../attempts/outcome.ts'

/** An event that is about to be handled, or the outcome that it has without its handler. */
type OpenedEvent =
  | { readonly event: StoredEvent }
  | { readonly outcome: EventOutcome }
  /** It is not in the log, and is read again later. */
  | 'postponed'

/**
 * When events that the log does not show are read again, in seconds after each time. They were there when they were published;
 * a log that is being changed, or restored, may show them again. After the last time they are taken to be gone: about four minutes in
 * all.
 */
const missDelaysSeconds = [1, 5, 15, 30, 60, 120] as const

/** The events of a job, as they were read last. */
export class JobEvents {
  readonly #attempt: number
  readonly #missCount: number
  readonly #load: (ids: readonly string[]) => Promise<LoadedEvents>
  #loaded: LoadedEvents = noEvents
  #refreshing: Promise<void> | undefined
  #missDelaySeconds: number | undefined

  /** @param missCount - how often events of the job were not found in the log */
  constructor(attempt: number, missCount: number, load: (ids: readonly string[]) => Promise<LoadedEvents>) {
    this.#attempt = attempt
    this.#missCount = missCount
    this.#load = load
  }

  get loaded(): LoadedEvents {
    return this.#loaded
  }

  /** Set where one of them was not found: how long the job waits until it is read again. */
  get missDelaySeconds(): number | undefined {
    return this.#missDelaySeconds
  }

  /** As at the start, and one more where one was not found. */
  get missCount(): number {
    return this.#missCount + (this.#missDelaySeconds === undefined ? 0 : 1)
  }

  tenantOf(eventId: string): string | undefined {
    return this.#loaded.tenantOf(eventId)
  }

  /**
   * Makes sure that the payloads were read no longer ago than {@link maxPayloadAgeMs}: they may have been erased. Returns undefined
   * where they were, and otherwise a promise that resolves when they have been read again.
   */
  refresh(eventIds: Iterable<string>): Promise<void> | undefined {
    if (performance.now() - this.#loaded.readAt < maxPayloadAgeMs) return undefined
    this.#refreshing ??= this.#load([...eventIds])
      .then((loaded) => {
        this.#loaded = loaded
      })
      .finally(() => {
        this.#refreshing = undefined
      })
    return this.#refreshing
  }

  /** The event, or its outcome where no handler is to run: it is gone, was erased, has expired, or cannot be read. */
  open(eventId: string): OpenedEvent {
    let event: StoredEvent | undefined
    try {
      event = this.#loaded.get(eventId)
    } catch (thrown) {
      return {
        outcome: toOutcome(
          { id: eventId, tenantId: this.tenantOf(eventId), type: this.#loaded.typeOf(eventId) },
          this.#attempt,
          { outcome: 'failed', thrown },
        ),
      }
    }
    if (event === undefined)
      return this.#postpone() ? 'postponed' : { outcome: eventNotFound(eventId, this.#attempt) }
    if (isErased(event)) return { outcome: erasedBefore(eventId, this.#attempt) }
    if (hasExpired(event)) return { outcome: expiredBefore(eventId, this.#attempt) }
    return { event }
  }

  /** Returns false when a missing event was looked for often enough. */
  #postpone(): boolean {
    const delaySeconds = missDelaysSeconds[this.#missCount]
    if (delaySeconds === undefined) return false
    this.#missDelaySeconds = delaySeconds
    return true
  }
}
