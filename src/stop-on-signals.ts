import { constants } from 'node:os'
import type { StopOptions } from './bus.ts'
import { limits } from './foundation/limits.ts'
import {
  assertObject,
  describe,
  integerOption,
  refuseUnknownKeys,
  invalidOption,
} from './foundation/options.ts'

/** Options of {@link stopOnSignals}. */
export interface StopOnSignalsOptions {
  /**
   * How long running handlers, and `onSignal`, may take to finish, in milliseconds. The bus has stopped at most six
   * seconds later: stay that much below the platform's time between SIGTERM and SIGKILL.
   * @defaultValue `30000`
   */
  readonly graceMs?: number | undefined
  /** @defaultValue `['SIGTERM', 'SIGINT']` */
  readonly signals?: readonly NodeJS.Signals[] | undefined
  /**
   * Called at the first signal, while handlers finish, for example to close an HTTP server. The bus keeps its
   * connections until it resolves or `graceMs` has passed, so running requests may publish. Nothing else waits for it.
   */
  readonly onSignal?: ((signal: NodeJS.Signals) => unknown) | undefined
  /** Called after the bus has stopped, for example to end the pools that handlers used. */
  readonly onStopped?: (() => unknown) | undefined
}

interface Stoppable {
  readonly stop: (options?: StopOptions) => Promise<void>
}

/** A signal within this time of the first one counts as the same: npm and shells deliver Ctrl-C twice. */
const repeatMs = 1000

/**
 * Stops the bus at the first SIGTERM or SIGINT: no new handler starts, running handlers finish, other jobs are
 * requeued. Another signal, at least a second later, ends the process immediately with exit code 128 + its number;
 * events in progress are then recovered when their heartbeat is missed. After the bus has stopped, the listeners are
 * removed, and the process ends when nothing else keeps it alive. An error of `onSignal` or `onStopped` is rethrown
 * then, as an unhandled rejection. The option `closeOnSignals` of `bossbus/fastify` does the same.
 *
 * @example
 * ```ts
 * const server = createServer(handleRequest).listen(3000)
 * stopOnSignals(bus, {
 *   onSignal: () => new Promise((resolve) => server.close(resolve)),
 *   onStopped: () => pool.end(),
 * })
 * ```
 * @returns a function that removes the listeners, so that signals have their previous effect
 * @throws {@link ConfigurationError} `BUS_INVALID_OPTION`
 */
export function stopOnSignals(bus: Stoppable, options: StopOnSignalsOptions = {}): () => void {
  const { graceMs, signals, onSignal, onStopped } = resolveOptions(bus, options)
  let firstAt: number | undefined

  function remove(): void {
    for (const signal of signals) process.off(signal, handle)
  }

  function handle(signal: NodeJS.Signals): void {
    if (firstAt === undefined) {
      firstAt = performance.now()
      void stop(signal)
    } else if (performance.now() - firstAt >= repeatMs) {
      process.exit(128 + constants.signals[signal])
    }
  }

  async function stop(signal: NodeJS.Signals): Promise<void> {
    const stopping = bus.stop({ graceMs, keepOpen: onSignal !== undefined })
    const closed = (async () => onSignal?.(signal))().finally(() => void bus.stop())
    // An error is reported at the end.
    closed.catch(() => {})
    try {
      await stopping
      await onStopped?.()
    } finally {
      remove()
    }
    await closed
  }

  for (const signal of signals) process.on(signal, handle)
  return remove
}

type ResolvedOptions = Required<Pick<StopOnSignalsOptions, 'onSignal' | 'onStopped'>> & {
  readonly graceMs: number
  readonly signals: readonly NodeJS.Signals[]
}

function resolveOptions(bus: Stoppable, options: StopOnSignalsOptions): ResolvedOptions {
  if (typeof (bus as Partial<Stoppable> | null | undefined)?.stop !== 'function')
    throw invalidOption(
      `Expected \`stopOnSignals\` to get a bus made by createBus, got ${describe(bus)}`,
      'bus',
    )
  assertObject('options like { graceMs }', options)
  refuseUnknownKeys(options, ['graceMs', 'signals', 'onSignal', 'onStopped'], 'bus')
  const { graceMs, signals = ['SIGTERM', 'SIGINT'], onSignal, onStopped } = options
  if (!Array.isArray(signals) || signals.length === 0 || !signals.every(isCatchable))
    throw invalidOption('Expected `signals` to be names of signals that a process can catch, such as SIGTERM')
  for (const [name, callback] of Object.entries({ onSignal, onStopped }))
    if (callback !== undefined && typeof callback !== 'function')
      throw invalidOption(`Expected \`${name}\` to be a function, got ${describe(callback)}`)
  return {
    graceMs: integerOption('graceMs', graceMs, limits.graceMs),
    signals: [...new Set(signals as readonly NodeJS.Signals[])],
    onSignal,
    onStopped,
  }
}

function isCatchable(signal: unknown): boolean {
  return (
    typeof signal === 'string' &&
    Object.hasOwn(constants.signals, signal) &&
    signal !== 'SIGKILL' &&
    signal !== 'SIGSTOP'
  )
}
