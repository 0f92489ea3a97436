import { BusError, HttpError } from '../../foundation/errors.ts'
import {
  assertObject,
  describe,
  integerOption,
  invalidOption,
  refuseUnknownKeys,
} from '../../foundation/options.ts'
import { withTimeout } from '../../foundation/with-timeout.ts'
import { readBody } from '../http/request-body.ts'
import type { IncomingRequest, VerifiedMessage, VerifyRequest } from '../http/verify-request.ts'
import {
  messageHeaders,
  type ReceivedMessage,
  type ReceiveMessages,
  type Source,
} from '../receiving/source.ts'
import { createGatheringReceiver } from '../receiving/gather-messages.ts'

export { cloudEvents, type CloudEventsOptions } from '../http/verify-cloud-events.ts'
export {
  bearerToken,
  github,
  standardWebhooks,
  stripe,
  type SecretOptions,
  type SignedOptions,
} from '../http/verify-signatures.ts'
export type { IncomingRequest, VerifiedMessage, VerifyRequest } from '../http/verify-request.ts'

/** Options of {@link httpSource}. */
export interface HttpSourceOptions {
  /** Says whether a request is genuine: {@link standardWebhooks}, {@link cloudEvents}, {@link stripe}, {@link github}, or one of your own. */
  readonly verify: VerifyRequest
  /** The largest body, up to 16 MiB. @defaultValue `1_048_576` */
  readonly maxBodyBytes?: number | undefined
  /** How long the body may take to arrive, and then storing it, 1 to 300 each. @defaultValue `20` */
  readonly timeoutSeconds?: number | undefined
  /** Requests at the same time, 1 to 10,000: others are answered with 503. @defaultValue `500` */
  readonly maxRequests?: number | undefined
}

/** A source of requests, which the app passes on. */
export interface HttpSource extends Source {
  /**
   * Answers a request: 204 when its messages are committed to the database. 401 or another 4xx if it is not genuine or not acceptable, which
   * stores nothing; 503 with `retry-after` if it cannot be stored now, or the receiver does not run in this process. Never rejects.
   */
  readonly handle: (request: Request) => Promise<Response>
  /** The largest body, for a server that reads it. */
  readonly maxBodyBytes: number
}

/**
 * Receives webhooks, and CloudEvents over HTTP. Nothing listens by itself: pass requests to `handle`, in any framework with the `Request` and
 * `Response` of the web; `receiveRoute` of `bossbus/fastify` does it there.
 *
 * @example
 * ```ts
 * import { httpSource, stripe } from 'bossbus/transports/http-source'
 *
 * const hooks = httpSource({ verify: stripe({ secrets: process.env.STRIPE_WEBHOOK_SECRET! }) })
 * bus.receive({ name: 'stripe', from: hooks, map: ({ id = '' }) => ({ type: 'order.placed', tenantId: 'acme', payload: { orderId: id } }) })
 * const post = async (request: Request): Promise<Response> => hooks.handle(request)
 * ```
 * @throws a `ConfigurationError` `BUS_INVALID_OPTION`
 */
export function httpSource(options: HttpSourceOptions): HttpSource {
  assertObject('options like { verify }', options)
  refuseUnknownKeys(options, ['verify', 'maxBodyBytes', 'timeoutSeconds', 'maxRequests'], 'httpSource')
  const { verify } = options
  if (typeof verify !== 'function')
    throw invalidOption(
      `Expected \`verify\` to be a function such as standardWebhooks({ secrets }), got ${describe(verify)}`,
      'verify',
    )
  const maxBodyBytes = integerOption('maxBodyBytes', options.maxBodyBytes, {
    ...{ min: 1, max: 16_777_216, default: 1_048_576 },
  })
  const timeoutMs =
    integerOption('timeoutSeconds', options.timeoutSeconds, { min: 1, max: 300, default: 20 }) * 1000
  const maxRequests = integerOption('maxRequests', options.maxRequests, {
    ...{ min: 1, max: 10_000, default: 500 },
  })
  const running = new Set<Promise<unknown>>()
  let receive: ReceiveMessages | undefined
  let reportFailure: (error: unknown) => void = () => {}
  let ending: AbortSignal | undefined

  async function answer(request: Request): Promise<Response> {
    if (request.method !== 'POST') throw new HttpError(405, 'BUS_HTTP_METHOD_NOT_ALLOWED', 'Expected a POST')
    const [store, signal] = [receive, ending]
    if (store === undefined || signal === undefined || running.size > maxRequests) throw unavailable()
    const incoming: IncomingRequest = {
      path: new URL(request.url).pathname,
      headers: messageHeaders(request.headers.entries()),
      body: await readBody(request, maxBodyBytes, timeoutMs),
    }
    const verified = await verify(incoming)
    if (!Array.isArray(verified))
      throw new HttpError(401, 'BUS_HTTP_UNAUTHORIZED', 'The request is not signed as it should be')
    const messages = (verified as readonly VerifiedMessage[]).map((message) => toMessage(incoming, message))
    if (messages.length > 0) {
      const stored = store(messages, { signal }).catch(() => {
        throw unavailable()
      })
      // It may still be stored: then it is known when it is sent again.
      await withTimeout(stored, timeoutMs, (): never => {
        throw unavailable()
      })
    }
    return new Response(null, { status: 204 })
  }

  return {
    name: 'http',
    maxBodyBytes,
    async handle(request) {
      const answering = answer(request).catch((error: unknown) => {
        const { statusCode } = (error ?? {}) as { readonly statusCode?: unknown }
        const isRefused = typeof statusCode === 'number' && statusCode >= 400 && statusCode <= 499
        if (!isRefused && !(error instanceof HttpError)) reportFailure(error)
        return toResponse(error, isRefused)
      })
      running.add(answering)
      return answering.finally(() => running.delete(answering))
    },
    async start(given, context) {
      receive = createGatheringReceiver(given)
      ;({ reportFailure, signal: ending } = context)
    },
    async stop() {
      receive = undefined
      await Promise.all(running)
    },
    async check() {
      if (receive === undefined) throw unavailable()
    },
  }
}

function toMessage(request: IncomingRequest, verified: VerifiedMessage): ReceivedMessage {
  const { 'content-type': contentType, ...headers } = request.headers
  return {
    id: verified.id,
    body: verified.body ?? request.body,
    headers: withoutSecrets(headers),
    contentType: verified.contentType ?? contentType,
    key: undefined,
    from: request.path,
    protocol: verified.protocol,
  }
}

/** Headers that nobody may read in the quarantine. */
const secretHeader = /^(?:authorization|proxy-authorization|cookie)$/

function withoutSecrets(headers: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !secretHeader.test(name)))
}

const unavailable = (): HttpError =>
  new HttpError(503, 'BUS_HTTP_UNAVAILABLE', 'The message cannot be stored now: send it again')

/** What is not the sender's business is not said. */
function toResponse(error: unknown, isRefused: boolean): Response {
  const { statusCode, code, message } = error as {
    readonly statusCode: number
    readonly code?: unknown
    readonly message?: unknown
  }
  const status = isRefused || error instanceof HttpError ? statusCode : 500
  const isSaid = error instanceof BusError && status !== 500
  const body = isSaid
    ? { code, message }
    : { code: status < 500 ? 'BUS_HTTP_BAD_REQUEST' : 'BUS_HTTP_ERROR', message: 'The request failed' }
  return new Response(JSON.stringify(body), {
    status,
    headers: {
      'content-type': 'application/json; charset=utf-8',
      ...(status === 503 ? { 'retry-after': '5' } : {}),
      ...(status === 405 ? { allow: 'POST' } : {}),
    },
  })
}
