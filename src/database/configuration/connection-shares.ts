import { invalidOption } from '../../foundation/options.ts'

/** How many connections of a bus may be open for each purpose. A running bus has one more, which listens. */
export interface ConnectionShares {
  /** The relay, workers, maintenance, `tryPublish` and reads. */
  readonly bus: number
  /** Transactions of exactly-once handlers. */
  readonly handlers: number
}

/** Without `max`: enough for the relay, workers and maintenance of one process, and the same number for its handlers. */
const usual = { bus: 10, handlers: 10 }

/**
 * Divides `max`, which counts all connections. Handlers get half of those that remain after the listening one, so that
 * handlers that hold connections for long do not block the relay, heartbeats and settlements.
 *
 * @param hasHandlers - whether there are exactly-once handlers
 */
export function shareConnections(max: number | undefined, hasHandlers: boolean): ConnectionShares {
  if (max === undefined) return { bus: usual.bus, handlers: hasHandlers ? usual.handlers : 0 }
  // A bus that only publishes and reads needs one.
  const shared = Math.max(1, max - 1)
  const handlers = hasHandlers ? Math.max(1, Math.floor(shared / 2)) : 0
  return { bus: Math.max(1, shared - handlers), handlers }
}

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` if a bus cannot run with so few connections */
export function assertEnoughConnections(max: number | undefined, hasHandlers: boolean): void {
  const least = hasHandlers ? 3 : 2
  if (max === undefined || max >= least) return
  throw invalidOption(
    `Expected \`database\` to be a pool configuration whose \`max\` is at least ${least} for a bus that starts${hasHandlers ? ' with exactly-once subscriptions' : ''}, got ${max}: one connection listens, one is for relay and workers${hasHandlers ? ', one for handlers' : ''}`,
    'database',
  )
}
