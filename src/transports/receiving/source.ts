import { setTimeout as pause } from 'node:timers/promises'
import type { CloudEventProtocol } from '../../events/cloud-events/headers.ts'

/** A message of another system. */
export interface ReceivedMessage {
  /**
   * The id that the system gives the message: the same however often it is delivered, and of no other message of the receiver. A topic,
   * partition and offset; a stream's sequence; `webhook-id`. Undefined if the system has none.
   */
  readonly id: string | undefined
  /** As it came. */
  readonly body: Uint8Array
  /** Names in lower case; {@link messageHeaders} makes them. The content type is in `contentType` alone. */
  readonly headers: Readonly<Record<string, string>>
  readonly contentType: string | undefined
  /** What the system keeps messages together by: the key of a record, a routing key, a message group. */
  readonly key: string | undefined
  /** Where it came from: the topic, the queue, the stream, the path. */
  readonly from: string
  /** How the system carries the attributes of CloudEvents in headers; undefined if it carries none. */
  readonly protocol: CloudEventProtocol | undefined
}

/** Options of {@link ReceiveMessages}. */
export interface ReceiveCall {
  /** Aborted when nobody waits for the result any more, such as when a partition was taken away. What has not begun need not begin. */
  readonly signal: AbortSignal
}

/**
 * Stores messages. Resolves when the database has committed all of them, as events or into the quarantine: acknowledge them then, and
 * never before. Rejects when nothing is known to be stored, as when the database is down: leave them unacknowledged, so that the system
 * delivers them again, or use {@link repeatUntilStored}. Storing a message again is always safe.
 *
 * The events are in the log in the order of the messages. Calls at the same time have no order among them: whoever keeps an order begins
 * the next call when the last has resolved.
 */
export type ReceiveMessages = (messages: readonly ReceivedMessage[], call: ReceiveCall) => Promise<void>

/** What a source is told when it starts. */
export interface SourceContext {
  /** Aborted when the grace of `bus.stop` is over: what still runs is given up, unacknowledged. */
  readonly signal: AbortSignal
  /** Logs what went wrong, such as a lost connection, at most once in a while for the same reason. The source goes on by itself. */
  readonly reportFailure: (error: unknown) => void
}

/** Fetches messages from another system. Pass one to `bus.receive`. */
export interface Source {
  /** What it is, in logs and errors, such as `kafka`. */
  readonly name: string
  /**
   * Called by `bus.start`: finds what is wrong for good, such as a package that is not installed. It need not connect.
   * @throws a `ConfigurationError`; the bus then does not start
   */
  readonly open?: (() => Promise<void>) | undefined
  /**
   * Begins to fetch. Does not wait for a system that is down: it connects, and connects again, in the background, with a growing delay.
   * It holds no more messages than it passes on: the next are fetched when `receive` has settled.
   * @throws a `ConfigurationError`; the bus then does not start
   */
  readonly start: (receive: ReceiveMessages, context: SourceContext) => Promise<void>
  /**
   * Fetches no more. Resolves when the running calls of `receive` have settled, what they stored is acknowledged, and what the source
   * opened itself is given back: never a client that was passed to it. Repeatable, and safe before `start`.
   */
  readonly stop: () => Promise<void>
  /** Resolves if the system can be reached and would deliver messages. Fetches none. */
  readonly check: (call: ReceiveCall) => Promise<void>
}

/** Delays between calls, in milliseconds: doubled up to the longest. */
const firstPauseMs = 100
const longestPauseMs = 10_000

/**
 * Calls `receive` again, after 0.1 to 10 s, until the messages are stored: for systems that deliver a message once, or that would go on
 * with the next.
 *
 * @throws the reason of the signal of the call or of the context, whichever is aborted first
 */
export async function repeatUntilStored(
  receive: ReceiveMessages,
  messages: readonly ReceivedMessage[],
  call: ReceiveCall,
  context: SourceContext,
): Promise<void> {
  const signal = AbortSignal.any([call.signal, context.signal])
  for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(pauseMs * 2, longestPauseMs)) {
    signal.throwIfAborted()
    try {
      await receive(messages, { signal })
      return
    } catch (error) {
      signal.throwIfAborted()
      context.reportFailure(error)
    }
    await pause(pauseMs * (0.5 + Math.random() / 2), undefined, { signal }).catch(() => {})
  }
}

/**
 * The headers of a message, from what its client has: names in lower case, bytes as UTF-8, several values of a name joined by `, `. What is
 * neither text, number, boolean nor bytes is left out.
 */
export function messageHeaders(entries: Iterable<readonly [unknown, unknown]>): Record<string, string> {
  const headers = new Map<string, string>()
  for (const [given, value] of entries) {
    const name = textOf(given)?.toLowerCase()
    if (name === undefined) continue
    for (const each of Array.isArray(value) ? (value as readonly unknown[]) : [value]) {
      const text = textOf(each)
      if (text === undefined) continue
      const before = headers.get(name)
      headers.set(name, before === undefined ? text : `${before}, ${text}`)
    }
  }
  return Object.fromEntries(headers)
}

function textOf(value: unknown): string | undefined {
  if (typeof value === 'string') return value
  if (typeof value === 'number' || typeof value === 'boolean' || typeof value === 'bigint')
    return String(value)
  return value instanceof Uint8Array ? Buffer.from(value).toString('utf8') : undefined
}
