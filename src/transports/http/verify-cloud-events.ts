import { HttpError } from '../../foundation/errors.ts'
import { assertObject, describe, invalidOption, refuseUnknownKeys } from '../../foundation/options.ts'
import type { IncomingRequest, VerifiedMessage, VerifyRequest } from './verify-request.ts'

/** Options of {@link cloudEvents}. */
export interface CloudEventsOptions {
  /**
   * Says who may send: {@link bearerToken}, {@link standardWebhooks}, or a function of your own. `'anyone'` where something in front of the
   * app has checked it.
   */
  readonly verify: VerifyRequest | 'anyone'
}

/** CloudEvents of a batch. */
const maxBatch = 10_000

const structured = /^application\/cloudevents\+json\s*(?:;|$)/i
const batch = /^application\/cloudevents-batch\+json\s*(?:;|$)/i

/**
 * Takes CloudEvents over HTTP: binary, structured, or a batch, of which each is a message of its own. The id of a message is the `source` and
 * the `id` of the CloudEvent, which together are unique.
 *
 * @throws a `ConfigurationError` `BUS_INVALID_OPTION`
 */
export function cloudEvents(options: CloudEventsOptions): VerifyRequest {
  assertObject('options like { verify }', options)
  refuseUnknownKeys(options, ['verify'], 'cloudEvents')
  const { verify } = options
  if (verify !== 'anyone' && typeof verify !== 'function')
    throw invalidOption(
      `Expected \`verify\` to be a function such as bearerToken({ secrets }), or 'anyone', got ${describe(verify)}`,
      'verify',
    )
  return async (request) => {
    if (verify !== 'anyone' && (await verify(request)) === undefined) return undefined
    return messagesOf(request)
  }
}

function messagesOf({ headers, body }: IncomingRequest): readonly VerifiedMessage[] {
  const contentType = headers['content-type'] ?? ''
  if (batch.test(contentType)) return partsOf(body)
  if (structured.test(contentType)) return [{ id: idOf(parsed(body)) }]
  if (headers['ce-specversion'] === undefined)
    throw new HttpError(
      415,
      'BUS_HTTP_UNSUPPORTED_MEDIA_TYPE',
      'Expected a CloudEvent: headers ce-…, or application/cloudevents+json, or application/cloudevents-batch+json',
    )
  return [{ id: idOf({ source: headers['ce-source'], id: headers['ce-id'] }), protocol: 'http' }]
}

function partsOf(body: Uint8Array): readonly VerifiedMessage[] {
  const events = parsed(body)
  if (!Array.isArray(events) || events.length > maxBatch)
    throw badRequest(`Expected a batch to be a list of at most ${maxBatch} CloudEvents`)
  return events.map((event: unknown) => ({
    id: idOf(event),
    body: Buffer.from(JSON.stringify(event)),
    contentType: 'application/cloudevents+json; charset=UTF-8',
  }))
}

/** Unique by the specification. Undefined if one of them is missing: then it is no CloudEvent. */
function idOf(event: unknown): string | undefined {
  const { source, id } = (event ?? {}) as { readonly source?: unknown; readonly id?: unknown }
  // A URI-reference contains no space.
  return typeof source === 'string' && typeof id === 'string' ? `${source} ${id}` : undefined
}

function parsed(body: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body))
  } catch {
    throw badRequest('Expected a body of JSON in UTF-8')
  }
}

const badRequest = (message: string): HttpError => new HttpError(400, 'BUS_HTTP_BAD_REQUEST', message)
