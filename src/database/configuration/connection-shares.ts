import { invalidOption } from '../../foundation/options.ts'

/** How many connections of a bus may be open for what. One more listens, where the bus runs. */
export interface ConnectionShares {
  /** Relay, workers, maintenance, `tryPublish` and the reads. */
  readonly bus: number
  /** Transactions of handlers in the mode exactly-once. */
  readonly handlers: number
}

/** Without `max`: enough for relay, workers and maintenance of one process, and as many for its handlers. */
const usual = { bus: 10, handlers: 10 }

/**
 * What becomes of `max`, which counts them all. Handlers get half of what is left beside the connection that listens: those that keep
 * theirs for long are not to keep relay, heartbeats and settlements waiting.
 *
 * @param hasHandlers - whether there are handlers in the mode exactly-once
 */
export function shareConnections(max: number | undefined, hasHandlers: boolean): ConnectionShares {
  if (max === undefined) return { bus: usual.bus, handlers: hasHandlers ? usual.handlers : 0 }
  // A bus that only publishes and reads does with one.
  const shared = Math.max(1, max - 1)
  const handlers = hasHandlers ? Math.max(1, Math.floor(shared / 2)) : 0
  return { bus: Math.max(1, shared - handlers), handlers }
}

/**
 * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` where a bus could not run with so few
 */
export function assertEnoughConnections(max: number | undefined, hasHandlers: boolean): void {
  const least = hasHandlers ? 3 : 2
  if (max === undefined || max >= least) return
  throw invalidOption(
    `Expected \`database\` to be a pool configuration whose \`max\` is at least ${least} for a bus that starts${hasHandlers ? ' with exactly-once subscriptions' : ''}, got ${max}: one connection listens, one is for relay and workers${hasHandlers ? ', one for handlers' : ''}`,
    'database',
  )
}
