import { describe, invalidOption } from '../../foundation/options.ts'
import type { StoredEvent } from '../../events/envelope.ts'

/** What became of one event of a call of {@link Transport.publish}. */
export type PublishResult =
  /** The broker has it: acknowledged, by as many replicas as it was asked for. */
  | { readonly status: 'delivered' }
  /** It may work later: the broker is down, a quorum is missing, the topic does not exist until somebody creates it. */
  | { readonly status: 'retry'; readonly error: unknown }
  /** The broker asks for a pause: `seconds` until the next attempt of this event. */
  | { readonly status: 'throttled'; readonly seconds: number; readonly error: unknown }
  /** It can never work: the event is too large, its form is refused. It becomes a dead letter at once. */
  | { readonly status: 'rejected'; readonly error: unknown }

/** Options of {@link Transport.publish} and {@link Transport.check}. */
export interface TransportCall {
  /** Aborted when nobody waits for the result any more. What was not sent yet need not be sent. */
  readonly signal: AbortSignal
}

/**
 * Sends events to another system. Pass one to `bus.forward`, which brings retries, the circuit breaker, dead letters, order and
 * replay. `transportContract` of `bossbus/testing` tests an implementation.
 */
export interface Transport {
  /** What it is, in logs and errors, and in the names of subscriptions that send to several: such as `kafka`. */
  readonly name: string
  /**
   * `'key'` if the events of a tenant with the same `orderingKey` arrive in the order in which they were acknowledged; `'none'` if the
   * system has no order. `bus.forward` then refuses `ordered: true`.
   */
  readonly order: 'key' | 'none'
  /** The most events that a call of `publish` takes. It cuts them by itself into requests that the system accepts. */
  readonly maxEvents: number
  /**
   * Called by `bus.start`, before anything is sent: finds what is wrong for good, such as a package that is not installed. It need not
   * connect: a system that is down now is a failed attempt later.
   * @throws a `ConfigurationError`; the bus then does not start
   */
  readonly open?: (() => Promise<void>) | undefined
  /**
   * Sends events, and resolves to a result for each, in their order. Called several times at once. A rejection counts as a failed attempt
   * of each event. Sending an event again is always safe: its id is the key for duplicates wherever the system has one.
   */
  readonly publish: (events: readonly StoredEvent[], call: TransportCall) => Promise<readonly PublishResult[]>
  /** Resolves if the system can be reached and would accept events. Sends none. */
  readonly check: (call: TransportCall) => Promise<void>
  /** Sends what is still buffered, and gives back what it opened itself: never a client that was passed to it. Repeatable. */
  readonly close: () => Promise<void>
  /** The transports that this one stands for: `bus.forward` makes a subscription for each. */
  readonly targets?: readonly Transport[] | undefined
}

/** The result of an event that the broker has. */
export const delivered: PublishResult = Object.freeze({ status: 'delivered' })

/** The same result for so many events. */
export function everyResult(count: number, result: PublishResult): PublishResult[] {
  return Array.from({ length: count }, () => result)
}

/** Also of the transports that it stands for. @throws a `ConfigurationError` `BUS_INVALID_OPTION` */
export function assertTransport(given: unknown): asserts given is Transport {
  const transport = given as Partial<Transport> | null | undefined
  const isTransport =
    typeof transport === 'object' &&
    transport !== null &&
    typeof transport.name === 'string' &&
    (['publish', 'check', 'close'] as const).every((method) => typeof transport[method] === 'function')
  if (!isTransport) throw invalidOption(`Expected \`to\` to be a transport, got ${describe(given)}`, 'to')
  if (!/^[A-Za-z0-9._-]{1,40}$/.test(transport.name ?? ''))
    throw invalidOption(
      'Expected the name of a transport to be 1 to 40 letters, digits, `.`, `_` and `-`',
      'to',
    )
  const { order, maxEvents, targets } = transport
  if (targets !== undefined && !Array.isArray(targets))
    throw invalidOption(`Expected \`targets\` of a transport to be a list, got ${describe(targets)}`, 'to')
  targets?.forEach(assertTransport)
  if (order !== 'key' && order !== 'none')
    throw invalidOption(
      `Expected \`order\` of a transport to be 'key' or 'none', got ${describe(order)}`,
      'to',
    )
  if (!(typeof maxEvents === 'number' && Number.isInteger(maxEvents) && maxEvents >= 1))
    throw invalidOption(
      `Expected \`maxEvents\` of a transport to be a positive integer, got ${describe(maxEvents)}`,
      'to',
    )
}
