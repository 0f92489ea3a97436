import type { StoredEvent } from '../../events/envelope.ts'
import { DeliveryError, NonRetryableError, RetryAfterError } from '../../foundation/errors.ts'
import { limits } from '../../foundation/limits.ts'
import { messageOf } from '../../foundation/error-redaction.ts'
import type { PublishResult, Transport } from './transport.ts'

/** Calls of `publish` of one transport at the same time. Meanwhile events collect, so that the next calls are larger. */
const maxCalls = 4

interface Waiting {
  readonly event: StoredEvent
  readonly signal: AbortSignal
  readonly settle: PromiseWithResolvers<void>
}

/** Sends the events that handlers of a subscription have at the same time in calls of many. */
export interface SendQueue {
  /**
   * Resolves when the system has the event.
   *
   * @throws a {@link NonRetryableError}, a {@link RetryAfterError}, or a {@link DeliveryError} `BUS_TRANSPORT_FAILED`
   */
  readonly send: (event: StoredEvent, signal: AbortSignal) => Promise<void>
}

export function createSendQueue(transport: Transport): SendQueue {
  const waiting: Waiting[] = []
  let callCount = 0
  let isFlushing = false

  /** At the end of this turn of the event loop: all handlers that start in it share calls. */
  function flushSoon(): void {
    if (isFlushing || callCount >= maxCalls) return
    isFlushing = true
    setImmediate(() => {
      isFlushing = false
      flush()
    })
  }

  function flush(): void {
    while (waiting.length > 0 && callCount < maxCalls) {
      const batch = waiting.splice(0, transport.maxEvents).filter(({ signal, settle }) => {
        if (!signal.aborted) return true
        settle.reject(signal.reason)
        return false
      })
      if (batch.length === 0) continue
      callCount += 1
      void publish(transport, batch).finally(() => {
        callCount -= 1
        if (waiting.length > 0) flush()
      })
    }
  }

  return {
    async send(event, signal) {
      signal.throwIfAborted()
      const settle = Promise.withResolvers<void>()
      waiting.push({ event, signal, settle })
      flushSoon()
      return settle.promise
    },
  }
}

/** Never rejects. */
async function publish(transport: Transport, batch: readonly Waiting[]): Promise<void> {
  const nobodyWaits = new AbortController()
  let waitingCount = batch.length
  const ended = new AbortController()
  for (const { signal, settle } of batch) {
    const leave = (): void => {
      settle.reject(signal.reason)
      waitingCount -= 1
      if (waitingCount === 0) nobodyWaits.abort(signal.reason)
    }
    signal.addEventListener('abort', leave, { once: true, signal: ended.signal })
  }
  try {
    const results = await transport.publish(
      batch.map(({ event }) => event),
      { signal: nobodyWaits.signal },
    )
    for (const [index, { settle }] of batch.entries()) {
      const error = errorOf(transport, results[index])
      if (error === undefined) settle.resolve()
      else settle.reject(error)
    }
  } catch (error) {
    for (const { settle } of batch) settle.reject(failed(transport, error))
  } finally {
    ended.abort()
  }
}

/** What a handler throws for a result. */
function errorOf(transport: Transport, result: PublishResult | undefined): Error | undefined {
  switch (result?.status) {
    case 'delivered':
      return undefined
    case 'rejected':
      return new NonRetryableError(`${transport.name} rejected the event: ${messageOf(result.error)}`, {
        cause: result.error,
      })
    case 'throttled':
      return new RetryAfterError(
        Math.min(Math.max(Number.isFinite(result.seconds) ? result.seconds : 1, 0), limits.retryAfterSeconds),
        `${transport.name} asked for a pause: ${messageOf(result.error)}`,
        { cause: result.error },
      )
    case 'retry':
      return failed(transport, result.error)
    default:
      return failed(transport, new Error('it gave no result for the event'))
  }
}

function failed(transport: Transport, error: unknown): DeliveryError {
  return new DeliveryError(
    'BUS_TRANSPORT_FAILED',
    `Sending to ${transport.name} failed: ${messageOf(error)}`,
    { cause: error, retryable: true },
  )
}
