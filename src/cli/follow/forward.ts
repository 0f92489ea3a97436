import { setTimeout as sleep } from 'node:timers/promises'
import { toCloudEvent } from '../../events/cloud-events/cloud-event.ts'
import type { HistoryEvent } from '../../operations/history-event.ts'

/** What came of one attempt to forward an event. */
export interface ForwardAttempt {
  readonly eventId: string
  readonly attempt: number
  readonly succeeded: boolean
  /** The status of the answer. Undefined: there was none. */
  readonly status: number | undefined
  readonly durationMs: number
  /** Why it failed. */
  readonly error: string | undefined
  /** When it is tried again, in milliseconds. Undefined: it is not. */
  readonly retryInMs: number | undefined
}

const attempts = 5
const firstDelayMs = 500
const answerMs = 10_000

/**
 * Posts an event as a CloudEvent in the structured mode, and tries again if the receiver does not answer, or answers with 408, 429 or 5xx.
 *
 * @returns whether it was received
 */
export async function forwardEvent(
  event: HistoryEvent,
  url: URL,
  signal: AbortSignal,
  tell: (attempt: ForwardAttempt) => void,
): Promise<boolean> {
  let body: string
  try {
    body = JSON.stringify(toCloudEvent(event))
  } catch (error) {
    // CloudEvents forbids some characters.
    const { message } = error as Error
    const nothing = { attempt: 0, succeeded: false, status: undefined, durationMs: 0, retryInMs: undefined }
    tell({ eventId: event.id, ...nothing, error: message })
    return false
  }
  for (let attempt = 1; attempt <= attempts; attempt += 1) {
    const beganAt = performance.now()
    const { status, error } = await post(url, body, signal)
    if (signal.aborted) return false
    const succeeded = status !== undefined && status >= 200 && status < 300
    const isPassing = status === undefined || status >= 500 || status === 408 || status === 429
    const retryInMs =
      succeeded || !isPassing || attempt === attempts ? undefined : firstDelayMs * 2 ** (attempt - 1)
    const durationMs = Math.round(performance.now() - beganAt)
    tell({ ...{ eventId: event.id, attempt, succeeded, status, durationMs, error, retryInMs } })
    if (retryInMs === undefined) return succeeded
    await sleep(retryInMs, undefined, { signal }).catch(() => {})
    if (signal.aborted) return false
  }
  return false
}

async function post(
  url: URL,
  body: string,
  signal: AbortSignal,
): Promise<{ readonly status: number | undefined; readonly error: string | undefined }> {
  try {
    const answer = await fetch(url, {
      ...{ method: 'POST', body, redirect: 'manual' },
      headers: { 'content-type': 'application/cloudevents+json; charset=utf-8' },
      signal: AbortSignal.any([signal, AbortSignal.timeout(answerMs)]),
    })
    await answer.body?.cancel()
    return { status: answer.status, error: answer.ok ? undefined : `it answered ${answer.status}` }
  } catch (error) {
    return { status: undefined, error: reasonOf(error) }
  }
}

/** `fetch failed` says nothing: its cause does. */
function reasonOf(error: unknown): string {
  const { name, message, cause } = error as Error
  if (name === 'TimeoutError') return `no answer within ${answerMs / 1000} s`
  const { code, message: causeMessage } = (cause ?? {}) as {
    readonly code?: string
    readonly message?: string
  }
  return (
    [causeMessage === '' ? undefined : causeMessage, code, message].find((each) => each !== undefined) ?? name
  )
}
