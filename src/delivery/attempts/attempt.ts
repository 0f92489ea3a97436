import type { EventCatalogue } from '../../events/catalogue.ts'
import type { StoredEvent } from '../../events/envelope.ts'
import { errorTypeOf } from '../../foundation/error-type.ts'
import { DeliveryError } from '../../foundation/errors.ts'
import { withFields, type BusLogger } from '../../foundation/logger.ts'
import { isThenable } from '../../foundation/cross-realm.ts'
import { inNewestShape } from './event-reader.ts'
import type { HandlerTransaction } from '../../database/drizzle-handle.ts'
import { createContextPublisher, type ContextPublisher, type HandlerPublishing } from './context-publisher.ts'
import type { ExactlyOnceContext, HandlerContext } from '../subscriptions/handler-context.ts'
import type { Subscription } from '../subscriptions/subscription.ts'
import type { AttemptTrace, ProcessSpan } from '../../telemetry/process-spans.ts'
import type { Spans } from '../../telemetry/spans.ts'

/** How an attempt ended. */
export type AttemptResult =
  | { readonly outcome: 'delivered'; readonly durationMs: number; readonly trace?: AttemptTrace | undefined }
  /** After a timeout the handler keeps running until `overrun.ended`. */
  | {
      readonly outcome: 'failed'
      readonly thrown: unknown
      /** Omitted if no handler ran. */
      readonly durationMs?: number
      readonly overrun?: Overrun
      readonly trace?: AttemptTrace | undefined
    }

/** A handler that is still running after its attempt ended by a timeout or a lost claim. */
export interface Overrun {
  /** Resolves when the handler has ended. */
  readonly ended: Promise<void>
}

/** Why the signal of an attempt was aborted by its worker. */
export type AbortReason = 'shutdown' | 'claim lost' | 'claim expired'

/** A running attempt. */
export interface RunningAttempt {
  /** Available immediately if the handler returned something other than a promise. */
  readonly result: AttemptResult | Promise<AttemptResult>
  /** Aborts the handler's signal. The handler decides how to react. */
  readonly abort: (reason: AbortReason) => void
}

/** What a handler is called with besides its event. */
interface AttemptCall {
  readonly attempt: number
  /** The operation, if the event is replayed. */
  readonly replayId: string | undefined
  readonly tx: HandlerTransaction | undefined
}

/**
 * Runs a handler once. The result never rejects: any thrown value, even undefined, is a failed attempt. An attempt that
 * exceeds the subscription's timeout has failed, whatever its handler does later. With a transaction, the handler finds
 * it in its context, and publishes in it by default.
 */
function runAttempt(
  subscription: Subscription,
  event: StoredEvent,
  call: AttemptCall,
  logger: BusLogger,
  publishing: HandlerPublishing,
): RunningAttempt {
  const startedAt = performance.now()
  const context = new AttemptContext(subscription.name, event, call, logger, publishing)
  const delivered = (): AttemptResult => ({ outcome: 'delivered', durationMs: performance.now() - startedAt })
  const failed = (thrown: unknown): AttemptResult & { readonly outcome: 'failed' } => ({
    outcome: 'failed',
    thrown,
    durationMs: performance.now() - startedAt,
  })
  let returned: unknown
  try {
    returned = subscription.handler(event, context)
    // Inside the try, because `then` may be a getter that throws.
    if (!isThenable(returned)) return { result: delivered(), abort: () => {} }
  } catch (thrown) {
    return { result: failed(thrown), abort: () => {} }
  }
  const pending = Promise.resolve(returned)
  let timer: NodeJS.Timeout | undefined
  const abort = (reason: AbortReason): void => {
    context.abort(new DeliveryError('BUS_HANDLER_TIMEOUT', `The attempt was cut short: ${reason}`))
  }
  const result = new Promise<AttemptResult>((resolve) => {
    timer = setTimeout(() => {
      const error = new DeliveryError(
        'BUS_HANDLER_TIMEOUT',
        `The handler of \`${subscription.name}\` did not finish within ${subscription.timeoutSeconds} s`,
      )
      const over = (): void => {}
      context.abort(error)
      resolve({ ...failed(error), overrun: { ended: pending.then(over, over) } })
    }, subscription.timeoutSeconds * 1000)
    // A running bus keeps its process alive itself; after a stop its handlers must not.
    timer.unref()
    pending.then(
      () => {
        clearTimeout(timer)
        resolve(delivered())
      },
      (thrown: unknown) => {
        clearTimeout(timer)
        resolve(failed(thrown))
      },
    )
  })
  return { result, abort }
}

/** Starts attempts of one subscription, each with the event in the shape that its handler expects. */
export function attemptStarter(
  subscription: Subscription,
  catalogue: EventCatalogue,
  logger: BusLogger,
  publishing: HandlerPublishing,
  spans: Pick<Spans, 'isOn' | 'process'>,
): (
  event: StoredEvent,
  attempt: number,
  replayId: string | undefined,
  tx?: HandlerTransaction,
) => RunningAttempt {
  function start(event: StoredEvent, call: AttemptCall): RunningAttempt {
    try {
      const shaped = inNewestShape(catalogue, event)
      return runAttempt(subscription, shaped, call, logger, publishing)
    } catch (thrown) {
      // An upcast threw.
      return { result: { outcome: 'failed', thrown }, abort: () => {} }
    }
  }

  return (event, attempt, replayId, tx) => {
    const call = { attempt, replayId, tx }
    const span = spans.isOn
      ? spans.process({ event, subscription: subscription.name, attempt, replayId })
      : undefined
    return span === undefined ? start(event, call) : withSpan(span, () => start(event, call))
  }
}

/** Runs an attempt in its span. A handler that runs on after its attempt does so in the span, which has ended by then. */
function withSpan({ span, attemptTrace: trace }: ProcessSpan, start: () => RunningAttempt): RunningAttempt {
  const { result, abort } = span.run(start)
  const ended = (each: AttemptResult): AttemptResult => {
    if (each.outcome === 'delivered') span.end()
    else span.fail(each.thrown, errorTypeOf(each.thrown))
    return { ...each, trace }
  }
  return { result: result instanceof Promise ? result.then(ended) : ended(result), abort }
}

/** Fields are created lazily: most handlers of a fast subscription use none of them. */
class AttemptContext implements HandlerContext, Partial<Pick<ExactlyOnceContext, 'tx'>> {
  readonly attempt: number
  readonly replayId: string | undefined
  declare readonly tx?: HandlerTransaction
  #controller: AbortController | undefined
  #aborted: Error | undefined
  #log: BusLogger | undefined
  #publisher: ContextPublisher | undefined
  readonly #subscriptionName: string
  readonly #event: StoredEvent
  readonly #logger: BusLogger
  readonly #publishing: HandlerPublishing

  constructor(
    subscriptionName: string,
    event: StoredEvent,
    { attempt, replayId, tx }: AttemptCall,
    logger: BusLogger,
    publishing: HandlerPublishing,
  ) {
    this.attempt = attempt
    this.replayId = replayId
    if (tx !== undefined) this.tx = tx
    this.#subscriptionName = subscriptionName
    this.#event = event
    this.#logger = logger
    this.#publishing = publishing
  }

  get isReplay(): boolean {
    return this.replayId !== undefined
  }

  get publish(): HandlerContext['publish'] {
    return this.#publishes().publish
  }

  get publishMany(): HandlerContext['publishMany'] {
    return this.#publishes().publishMany
  }

  get tryPublish(): HandlerContext['tryPublish'] {
    return this.#publishes().tryPublish
  }

  get cancel(): HandlerContext['cancel'] {
    return this.#publishes().cancel
  }

  get with(): HandlerContext['with'] {
    return this.#publishes().with
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController()
      if (this.#aborted !== undefined) this.#controller.abort(this.#aborted)
    }
    return this.#controller.signal
  }

  get log(): BusLogger {
    this.#log ??= withFields(this.#logger, {
      subscription: this.#subscriptionName,
      id: this.#event.id,
      type: this.#event.type,
      tenantId: this.#event.tenantId,
      attempt: this.attempt,
      ...(this.replayId === undefined ? {} : { replayId: this.replayId }),
    })
    return this.#log
  }

  #publishes(): ContextPublisher {
    this.#publisher ??= createContextPublisher(this.#publishing, this.#event, this.tx)
    return this.#publisher
  }

  abort(reason: Error): void {
    this.#aborted ??= reason
    this.#controller?.abort(reason)
  }
}

/** A handler that reacts to its signal has ended by then; otherwise it is reported. */
const patienceMs = 1000

/** The handlers of a subscription in this process that are still running after their attempt. */
export interface Overruns {
  readonly count: number
  /**
   * Counts a handler until it has ended. If it ignores its signal, that is logged once.
   *
   * @param onIgnored - called if it ignores its signal
   */
  watch: (event: StoredEvent, attempt: number, overrun: Overrun, onIgnored?: () => void) => void
}

/** @param onChange - called with the tenant when a handler overruns (1), and when it has ended (-1) */
export function createOverruns(
  subscription: Subscription,
  logger: BusLogger,
  onChange: (tenantId: string, change: 1 | -1) => void,
): Overruns {
  let count = 0
  return {
    get count() {
      return count
    },
    watch(event, attempt, { ended }, onIgnored) {
      count += 1
      onChange(event.tenantId, 1)
      const beganAt = performance.now()
      let ignored = false
      const fields = {
        subscription: subscription.name,
        id: event.id,
        type: event.type,
        tenantId: event.tenantId,
        ...(event.orderingKey === undefined ? {} : { orderingKey: event.orderingKey }),
        attempt,
      }
      const timer = setTimeout(() => {
        ignored = true
        logger.warn(
          { ...fields, timeoutSeconds: subscription.timeoutSeconds },
          'a handler ignores its signal and is still running after its attempt: it occupies its slot, and its key if it has one',
        )
        onIgnored?.()
      }, patienceMs)
      // Does not keep the process alive.
      timer.unref()
      void ended.then(() => {
        count -= 1
        onChange(event.tenantId, -1)
        clearTimeout(timer)
        if (!ignored) return
        const overrunMs = Math.round(performance.now() - beganAt)
        logger.info({ ...fields, overrunMs }, 'a handler that ignored its signal has ended')
      })
    },
  }
}
