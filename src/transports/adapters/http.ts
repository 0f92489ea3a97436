import { readFileSync } from 'node:fs'
import { BusError } from '../../foundation/errors.ts'
import {
  assertObject,
  describe,
  integerOption,
  invalidOption,
  refuseUnknownKeys,
} from '../../foundation/options.ts'
import { createHttpCaller } from '../http/post.ts'
import { assertSafeUrl, type UrlRules } from '../http/safe-url.ts'
import { webhookSigner } from '../http/signature.ts'
import { resultOfAnswer } from '../http/webhook-result.ts'
import { closedError } from '../sending/connected-transport.ts'
import { createEncoder, type EncodedEvent, type EnvelopeOptions } from '../sending/envelope.ts'
import { encodeAndSendInKeyOrder } from '../sending/in-key-order.ts'
import type { PublishResult, Transport } from '../sending/transport.ts'
import { TransportUrl } from '../sending/transport-url.ts'

/** Options of {@link http}. */
export interface HttpOptions extends EnvelopeOptions, UrlRules {
  readonly url: string
  /** Headers of every request, such as `authorization`. Not those that the transport sets. */
  readonly headers?: Readonly<Record<string, string>> | undefined
  /**
   * Keys of Standard Webhooks: `whsec_…` or `whsk_…`, up to 10. Each adds its signature, so that a receiver may change from one to the next. Without
   * them nothing is signed.
   */
  readonly secrets?: readonly string[] | undefined
  /** How long an answer may take. @defaultValue `15` */
  readonly timeoutSeconds?: number | undefined
  /** Requests at the same time. @defaultValue `20` */
  readonly maxRequests?: number | undefined
  /** The largest message. @defaultValue `1_048_576` */
  readonly maxBytes?: number | undefined
}

const optionNames = [
  ...['url', 'headers', 'secrets', 'timeoutSeconds', 'maxRequests', 'maxBytes'],
  ...['envelope', 'claimCheck', 'allowPrivate', 'allowHttp', 'ports'],
]

/** Headers that the transport sets. */
const ownHeader = /^(?:content-(?:type|length)|host|transfer-encoding|connection|webhook-.*|ce-.*|id|type)$/i

/**
 * Sends each event as a POST, signed by the specification of Standard Webhooks. A request goes to a public host alone, whatever its name
 * resolves to, unless `allowPrivate` says otherwise; redirects are not followed. Any 2xx is a success.
 *
 * @throws a `ConfigurationError` `BUS_INVALID_OPTION`, `BUS_URL_NOT_ALLOWED`
 */
export function http(options: HttpOptions): Transport {
  assertObject('options like { url }', options)
  refuseUnknownKeys(options, optionNames, 'http')
  const { allowPrivate = false, secrets = [] } = options
  const url = assertSafeUrl(options.url, options)
  const headers = headersOption(options.headers)
  if (!Array.isArray(secrets) || secrets.length > 10)
    throw invalidOption('Expected `secrets` to be a list of at most 10 keys', 'secrets')
  const signers = secrets.map(webhookSigner)
  const timeoutSeconds = integerOption('timeoutSeconds', options.timeoutSeconds, {
    min: 1,
    max: 300,
    default: 15,
  })
  const maxRequests = integerOption('maxRequests', options.maxRequests, { min: 1, max: 1000, default: 20 })
  const maxBytes = integerOption('maxBytes', options.maxBytes, {
    min: 1,
    max: 268_435_456,
    default: 1_048_576,
  })
  const encode = createEncoder(options, { protocol: 'http', maxBytes })
  const caller = createHttpCaller({ allowPrivate, maxSockets: maxRequests })
  const closed = new AbortController()

  async function send(message: EncodedEvent, signal: AbortSignal): Promise<PublishResult> {
    const { event, body, contentType } = message
    const timestamp = Math.floor(Date.now() / 1000)
    const signatures = signers.map((sign) => sign(event.id, timestamp, body))
    const answer = await caller.post(url, {
      headers: {
        ...headers,
        ...message.headers,
        'content-type': contentType,
        'webhook-id': event.id,
        'webhook-timestamp': String(timestamp),
        ...(signatures.length === 0 ? {} : { 'webhook-signature': signatures.join(' ') }),
      },
      body,
      timeoutMs: timeoutSeconds * 1000,
      signal: AbortSignal.any([signal, closed.signal]),
    })
    return resultOfAnswer(answer)
  }

  return {
    name: 'http',
    order: 'key',
    maxEvents: 200,
    async publish(events, { signal }) {
      if (closed.signal.aborted) throw closedError('http')
      return encodeAndSendInKeyOrder(events, encode, async (message) => send(message, signal), maxRequests)
    },
    /** A receiver of webhooks need not answer anything but a POST: that it can be connected to must do. */
    async check({ signal }) {
      await caller.connect(url, signal)
    },
    async close() {
      closed.abort(closedError('http'))
      caller.close()
    },
  }
}

/**
 * `https://host/path?their=parameters#secretFile=/run/secrets/webhook&envelope=binary`: what follows the `#` is for the transport and is never sent.
 * `secretFile` has the keys, separated by spaces or line ends.
 */
export function httpFromUrl(given: TransportUrl): Transport {
  const own = new TransportUrl(`${given.scheme}://${given.url.host}/?${given.url.hash.slice(1)}`)
  const allowPrivate = own.flag('allowPrivate', false)
  const secretFile = own.text('secretFile')
  const secrets = secretFile === undefined ? [] : secretsIn(secretFile, given)
  const url = new URL(given.url)
  url.hash = ''
  const options = {
    envelope: own.choice('envelope', ['structured', 'binary', 'raw']),
    timeoutSeconds: own.integer('timeoutSeconds', 1, 300),
  }
  own.refuseUnknown()
  given.allowAll()
  try {
    return http({ url: url.href, allowPrivate, secrets, ...options })
  } catch (error) {
    throw given.refuse(error instanceof BusError ? error.message : 'it cannot be used')
  }
}

function secretsIn(path: string, given: TransportUrl): string[] {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch {
    throw given.refuse(`\`secretFile\` ${describe(path)} cannot be read`)
  }
  const secrets = text.split(/\s+/).filter((secret) => secret !== '')
  if (secrets.length === 0) throw given.refuse('`secretFile` has no keys')
  return secrets
}

function headersOption(
  given: Readonly<Record<string, string>> | undefined,
): Readonly<Record<string, string>> {
  if (given === undefined) return {}
  assertObject('`headers` to be an object', given)
  for (const [name, value] of Object.entries(given)) {
    if (!/^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$/.test(name) || ownHeader.test(name))
      throw invalidOption(
        `Expected \`headers\` to have names of headers that the transport does not set, got ${describe(name)}`,
        'headers',
      )
    if (typeof value !== 'string' || !/^[\t\x20-\x7e]{0,8192}$/.test(value))
      throw invalidOption(`Expected the header \`${name}\` to be a text of printable ASCII`, 'headers')
  }
  return { ...given }
}
