import type { PublishResult } from '../sending/transport.ts'

/**
 * The event itself is refused, now and always. Codes are without their namespace and the suffix `Exception`. All others may pass: a service
 * that is down, credentials that have expired, a queue, a permission or a key that is missing until a person mends it.
 */
const permanent = new Set([
  'BatchRequestTooLong',
  'InvalidArgument',
  'InvalidAttributeName',
  'InvalidAttributeValue',
  'InvalidMessageContents',
  'InvalidParameter',
  'InvalidParameterCombination',
  'InvalidParameterValue',
  'MalformedDetail',
  'MissingParameter',
  'NotAuthorizedForDetailType',
  'NotAuthorizedForSource',
  'UnsupportedOperation',
  'Validation',
  'ValidationError',
])

/** What became of an event by the code that AWS gave it, or by the error that the SDK threw. */
export function resultOfError(error: unknown): PublishResult {
  const code = codeOf(error)
  if (permanent.has(code)) return { status: 'rejected', error }
  const seconds = retryAfterSeconds(error)
  // AWS seldom says how long to wait. Without that, the delays of `retry` are right: they grow.
  return seconds === undefined ? { status: 'retry', error } : { status: 'throttled', seconds, error }
}

/** An error for an entry of a batch that failed. */
export function entryError(code: string | undefined, message: string | undefined): Error {
  const error = new Error(message ?? 'the entry failed, without a reason')
  error.name = code ?? 'Error'
  return error
}

/** `com.amazonaws.sqs#InvalidMessageContents` and `ValidationException` without what is around the code. */
function codeOf(error: unknown): string {
  const name: unknown = (error as { readonly name?: unknown } | null | undefined)?.name
  return typeof name === 'string' ? name.replace(/^.*[.#]/, '').replace(/Exception$/, '') : ''
}

/** From the headers of the answer, which the SDK keeps beside the error. */
function retryAfterSeconds(error: unknown): number | undefined {
  const { $response } = (error ?? {}) as {
    readonly $response?: { readonly headers?: Readonly<Record<string, unknown>> }
  }
  const headers = $response?.headers
  const milliseconds = numberOf(headers?.['x-amz-retry-after'])
  return milliseconds === undefined ? numberOf(headers?.['retry-after']) : milliseconds / 1000
}

function numberOf(text: unknown): number | undefined {
  return typeof text === 'string' && /^\d{1,9}$/.test(text) ? Number(text) : undefined
}
