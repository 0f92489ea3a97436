import { toCloudEventHeaders, type CloudEventProtocol } from '../../events/cloud-events/headers.ts'
import { toCloudEvent, type CloudEvent } from '../../events/cloud-events/cloud-event.ts'
import type { StoredEvent } from '../../events/envelope.ts'
import { DeliveryError } from '../../foundation/errors.ts'
import {
  assertObject,
  describe,
  integerOption,
  invalidOption,
  refuseUnknownKeys,
} from '../../foundation/options.ts'

/** How an event becomes a message. */
export type Envelope =
  /** The body is the whole CloudEvent as JSON: it survives every hop, and every receiver can read it. */
  | 'structured'
  /** The body is the payload as JSON; the attributes of the CloudEvent are headers, where the protocol has any. */
  | 'binary'
  /** The body is the payload as JSON. Headers are `id` and `type` alone, where the protocol has any. */
  | 'raw'

/**
 * Keeps large payloads elsewhere, such as in a bucket: the message has the attribute `dataref`, a URI, in place of its data. The receiver
 * fetches the payload from there.
 */
export interface ClaimCheck {
  /** Stores the payload of an event, JSON in UTF-8, and resolves to its URI. Called again for the same event when it is sent again. */
  readonly store: (event: StoredEvent, payload: Buffer) => Promise<string>
  /** The message size from which on it is used, in bytes. @defaultValue the largest message that the system accepts */
  readonly fromBytes?: number | undefined
}

/** Options that all transports have. */
export interface EnvelopeOptions<E extends string = Envelope> {
  readonly envelope?: E | undefined
  readonly claimCheck?: ClaimCheck | undefined
}

/** A message, ready to be sent. */
export interface EncodedEvent {
  readonly event: StoredEvent
  readonly body: Buffer
  readonly contentType: string
  /** Without the content type. */
  readonly headers: Readonly<Record<string, string>>
  /** Of the body and the headers, in UTF-8. */
  readonly bytes: number
}

/** What the system of a transport takes. */
export interface EncoderLimits {
  /** How it carries headers; undefined if it carries none. */
  readonly protocol: CloudEventProtocol | undefined
  /** The largest message, body and headers together. */
  readonly maxBytes: number
  /** What a message takes beside its body and headers. @defaultValue `0` */
  readonly overheadBytes?: number | ((event: StoredEvent) => number) | undefined
  /** Headers that say other things than those of the protocol, and stand in their place. */
  readonly headersOf?: ((event: StoredEvent, contentType: string) => Record<string, string>) | undefined
  /** Changes the JSON text of the body: for systems that do not accept all characters. */
  readonly escape?: ((json: string) => string) | undefined
}

/**
 * Makes the function that encodes events. It resolves to a message, or throws what makes sending impossible for good: an
 * `InvalidEventError` `BUS_INVALID_CLOUD_EVENT`, or a `DeliveryError` `BUS_MESSAGE_TOO_LARGE`. What `store` of a claim check throws passes.
 *
 * @throws a `ConfigurationError` `BUS_INVALID_OPTION`
 */
export function createEncoder(
  options: EnvelopeOptions,
  { protocol, maxBytes, overheadBytes = 0, headersOf: ownHeaders, escape = (json) => json }: EncoderLimits,
): (event: StoredEvent) => Promise<EncodedEvent> {
  const envelope = envelopeOption(options.envelope, ['structured', 'binary', 'raw'])
  const claimCheck = claimCheckOption(options.claimCheck, maxBytes)
  if (envelope === 'binary' && protocol === undefined)
    throw invalidOption(
      "Expected `envelope` to be 'structured' or 'raw': this system has no headers",
      'envelope',
    )
  if (envelope === 'raw' && claimCheck !== undefined)
    throw invalidOption(
      "Expected no `claimCheck` with the envelope 'raw', which has no place for `dataref`",
      'claimCheck',
    )

  function encode(event: StoredEvent, cloudEvent: CloudEvent): EncodedEvent {
    const isStructured = envelope === 'structured'
    const json = JSON.stringify(isStructured ? cloudEvent : (cloudEvent.data ?? null))
    const body = Buffer.from(escape(json))
    const contentType = isStructured ? 'application/cloudevents+json' : 'application/json'
    const headers = ownHeaders?.(event, contentType) ?? headersOf(event, cloudEvent)
    const overhead = typeof overheadBytes === 'number' ? overheadBytes : overheadBytes(event)
    // Without a protocol the content type is sent only by who makes a header of it.
    const contentTypeBytes = protocol === undefined ? 0 : contentType.length
    const bytes = body.length + overhead + headerBytes(headers) + contentTypeBytes
    return { event, body, contentType, headers, bytes }
  }

  function headersOf(event: StoredEvent, cloudEvent: CloudEvent): Record<string, string> {
    if (protocol === undefined || envelope === 'structured') return {}
    if (envelope === 'raw') return { id: event.id, type: event.type }
    const { 'content-type': _, ...headers } = toCloudEventHeaders(cloudEvent, protocol)
    return headers
  }

  return async (event) => {
    const cloudEvent = toCloudEvent(event)
    const whole = encode(event, cloudEvent)
    if (claimCheck === undefined || whole.bytes <= claimCheck.fromBytes) {
      if (whole.bytes <= maxBytes) return whole
      throw tooLarge(event, whole.bytes, maxBytes)
    }
    const { data, ...attributes } = cloudEvent
    const dataref = await claimCheck.store(event, Buffer.from(JSON.stringify(data ?? null)))
    if (typeof dataref !== 'string' || !URL.canParse(dataref))
      throw new TypeError(`Expected \`claimCheck.store\` to resolve to a URI, got ${describe(dataref)}`)
    const small = encode(event, { ...attributes, dataref })
    if (small.bytes <= maxBytes) return small
    throw tooLarge(event, small.bytes, maxBytes)
  }
}

/** A DeliveryError that says how large an event is, and how large it may be. */
export function tooLarge(event: StoredEvent, bytes: number, maxBytes: number): DeliveryError {
  return new DeliveryError(
    'BUS_MESSAGE_TOO_LARGE',
    `The message of the event ${event.id} has ${bytes} bytes, and at most ${maxBytes} are accepted: use a smaller payload, or the option \`claimCheck\``,
  )
}

/** @throws a `ConfigurationError` `BUS_INVALID_OPTION` */
export function envelopeOption<E extends string>(given: E | undefined, known: readonly [E, ...E[]]): E {
  const envelope = given === undefined ? known[0] : given
  if (known.includes(envelope)) return envelope
  throw invalidOption(
    `Expected \`envelope\` to be one of ${known.map((each) => `'${each}'`).join(', ')}, got ${describe(envelope)}`,
    'envelope',
  )
}

function claimCheckOption(
  given: ClaimCheck | undefined,
  maxBytes: number,
): (Pick<ClaimCheck, 'store'> & { readonly fromBytes: number }) | undefined {
  if (given === undefined) return undefined
  assertObject('`claimCheck` to be an object like { store }', given)
  refuseUnknownKeys(given, ['store', 'fromBytes'], 'claimCheck')
  if (typeof given.store !== 'function')
    throw invalidOption(
      `Expected \`claimCheck.store\` to be a function, got ${describe(given.store)}`,
      'claimCheck.store',
    )
  const fromBytes = integerOption('claimCheck.fromBytes', given.fromBytes, {
    min: 1,
    max: maxBytes,
    default: maxBytes,
  })
  return { store: async (event, payload) => given.store(event, payload), fromBytes }
}

function headerBytes(headers: Readonly<Record<string, string>>): number {
  let sum = 0
  for (const [name, value] of Object.entries(headers)) sum += name.length + Buffer.byteLength(value)
  return sum
}
