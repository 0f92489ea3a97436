import type { PublishResult } from '../sending/transport.ts'
import { delivered } from '../sending/transport.ts'
import type { HttpAnswer } from './post.ts'

/** The answer of a receiver, as an error. */
class HttpAnswerError extends Error {
  override readonly name = 'HttpAnswerError'
  readonly status: number

  constructor(status: number, text: string) {
    const detail = text.trim().replaceAll(/\s+/g, ' ').slice(0, 200)
    super(`the receiver answered ${status}${detail === '' ? '' : `: ${detail}`}`)
    this.status = status
  }
}

const pauseSeconds = 5

/**
 * What an answer means, by the specification of Standard Webhooks: any 2xx is a success; 410 says that the receiver is gone for good, and
 * 413 that it will never take this message; 429, 502, 503 and 504 ask for a pause. All others may pass: a receiver that answers 404 is
 * deployed a minute later.
 */
export function resultOfAnswer(answer: HttpAnswer): PublishResult {
  const { status, retryAfterSeconds, text } = answer
  if (status >= 200 && status < 300) return delivered
  const error = new HttpAnswerError(status, text)
  if (status === 410 || status === 413) return { status: 'rejected', error }
  if (retryAfterSeconds !== undefined) return { status: 'throttled', seconds: retryAfterSeconds, error }
  if ([429, 502, 503, 504].includes(status)) return { status: 'throttled', seconds: pauseSeconds, error }
  return { status: 'retry', error }
}
