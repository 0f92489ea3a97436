import { types } from 'node:util'
import type { CloudEvent } from './cloud-event.ts'
import { refuse } from './attributes.ts'
import { InvalidEventError } from '../../foundation/errors.ts'
import { parseJson } from '../json/parse-json.ts'
import { kindOf } from '../../foundation/options.ts'
import { redactThrown } from '../../foundation/error-redaction.ts'
import { printable } from '../../foundation/text.ts'

/** The protocol that carries the headers. */
export type CloudEventProtocol = 'http' | 'kafka' | 'nats' | 'amqp' | 'mqtt'

/** Longer than the headers that any server accepts. */
const maxHeaderLength = 131_072

const prefixes: Readonly<Record<CloudEventProtocol, string>> = {
  http: 'ce-',
  kafka: 'ce_',
  nats: 'ce-',
  amqp: 'cloudEvents_',
  // User properties have the names of the attributes.
  mqtt: '',
}

/** Protocols whose headers are ASCII: all else is percent-encoded. */
const isPercentEncoded = (protocol: CloudEventProtocol): boolean => protocol === 'http' || protocol === 'nats'

/**
 * The headers of a CloudEvent in binary mode; the body is its data alone, as JSON. HTTP headers are named `ce-…` and
 * percent-encoded as the HTTP binding requires: everything except printable ASCII, and also the space, `"` and `%`.
 * NATS headers are the same. Kafka headers are named `ce_…`, AMQP application properties `cloudEvents_…`, MQTT user properties as the
 * attributes are; they hold plain UTF-8. All include `content-type`, which AMQP and MQTT carry as a property of the message.
 *
 * @example
 * ```ts
 * handler: async (event) => {
 *   const cloudEvent = toCloudEvent(event)
 *   const body = JSON.stringify(cloudEvent.data)
 *   await fetch(url, { method: 'POST', headers: toCloudEventHeaders(cloudEvent, 'http'), body })
 * }
 * ```
 */
export function toCloudEventHeaders(
  cloudEvent: CloudEvent,
  protocol: CloudEventProtocol,
): Record<string, string> {
  const headers: Record<string, string> = {
    'content-type': cloudEvent.datacontenttype ?? 'application/json',
  }
  for (const [name, value] of Object.entries(cloudEvent)) {
    if (name === 'data' || name === 'datacontenttype' || value === undefined || value === null) continue
    const text = typeof value === 'string' ? value : JSON.stringify(value)
    if (!text.isWellFormed()) refuse(`\`${printable(name, 60)}\` to contain no lone surrogates`)
    headers[`${prefixes[protocol]}${name}`] = isPercentEncoded(protocol) ? encodeHeader(text) : text
  }
  return headers
}

/**
 * Reads headers in binary mode and a body as a CloudEvent to pass to `fromCloudEvent`, which checks it.
 *
 * Headers are an object, a `Map`, the `Headers` of fetch, or a list of objects, as Kafka clients use. Names are
 * case-insensitive. Values are strings, `Buffer`s of UTF-8, numbers, booleans, or lists of one of these, as Node's HTTP
 * returns a repeated header. `undefined` and `null` mean that the header is absent.
 *
 * @param data - the parsed JSON body; or its text in UTF-8 as a `Buffer`, as Kafka clients return it
 * @throws an {@link InvalidEventError} `BUS_INVALID_CLOUD_EVENT` for a header or a body that is not encoded as required
 */
export function fromCloudEventHeaders(
  headers: CloudEventHeaders,
  data: unknown,
  protocol: CloudEventProtocol,
): Readonly<Record<string, unknown>> {
  const prefix = prefixes[protocol].toLowerCase()
  const attributes = new Map<string, unknown>()
  for (const [header, value] of entriesOf(headers)) {
    const name = header.toLowerCase()
    const isContentType = name === 'content-type'
    const attribute = isContentType ? 'datacontenttype' : attributeOf(name, prefix, protocol)
    if (attribute === undefined) continue
    const text = textOf(name, value)
    if (text === undefined) continue
    // Neither is an attribute: a header of this name would replace the body.
    if (attribute === 'data' || attribute === 'data_base64') refuse('the data in the body, not in a header')
    const decoded = isPercentEncoded(protocol) && !isContentType ? decodeHeader(name, text) : text
    // The official SDK sends the content type twice over Kafka.
    if (!isContentType && attribute === 'datacontenttype' && attributes.has(attribute)) continue
    if (!isContentType && (attributes.get(attribute) ?? decoded) !== decoded)
      refuse(`the header \`${printable(name, 60)}\` once, got two different values`)
    attributes.set(attribute, decoded)
  }
  return Object.fromEntries([...attributes, ['data', toData(data)]])
}

/** The attribute that a header holds; undefined if it is no header of CloudEvents. */
function attributeOf(name: string, prefix: string, protocol: CloudEventProtocol): string | undefined {
  if (name.startsWith(prefix)) {
    const attribute = name.slice(prefix.length)
    // Without a prefix, a name that no attribute can have belongs to somebody else.
    return prefix !== '' || /^[a-z0-9]+$/.test(attribute) ? attribute : undefined
  }
  return protocol === 'amqp' && name.startsWith('cloudevents:')
    ? name.slice('cloudevents:'.length)
    : undefined
}

/** Headers in the forms that HTTP and Kafka clients use. */
export type CloudEventHeaders =
  | Readonly<Record<string, unknown>>
  | Iterable<readonly [unknown, unknown]>
  | readonly Readonly<Record<string, unknown>>[]

function entriesOf(headers: unknown): readonly (readonly [string, unknown])[] {
  if (headers === null || typeof headers !== 'object') refuse(`headers, got ${kindOf(headers)}`)
  try {
    const entries: readonly unknown[] = isIterable(headers) ? [...headers] : Object.entries(headers)
    return entries.flatMap((entry): (readonly [string, unknown])[] => {
      if (Array.isArray(entry)) return [[textOf('name', entry[0]) ?? '', entry[1]]]
      return entry !== null && typeof entry === 'object' ? Object.entries(entry) : []
    })
  } catch (error) {
    if (error instanceof InvalidEventError) throw error
    throw new InvalidEventError('BUS_INVALID_CLOUD_EVENT', 'Reading the headers failed', [], {
      cause: redactThrown(error),
    })
  }
}

function isIterable(value: object): value is Iterable<unknown> {
  return typeof (value as { [Symbol.iterator]?: unknown })[Symbol.iterator] === 'function'
}

/** The text of a header; undefined if the header is absent. */
function textOf(name: string, value: unknown): string | undefined {
  const only: unknown = Array.isArray(value) && value.length === 1 ? value[0] : value
  if (only === undefined || only === null) return undefined
  const text =
    typeof only === 'number' || typeof only === 'boolean'
      ? String(only)
      : types.isUint8Array(only)
        ? utf8Of(`the header \`${printable(name, 60)}\``, only)
        : only
  if (typeof text !== 'string' || text.length > maxHeaderLength)
    refuse(`the header \`${printable(name, 60)}\` once, as a text of at most ${maxHeaderLength} characters`)
  return text
}

function utf8Of(what: string, bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch {
    return refuse(`${what} to be UTF-8`)
  }
}

/** A body that has not been parsed yet. An empty body has no data. */
function toData(data: unknown): unknown {
  if (!types.isUint8Array(data)) return data
  if (data.length === 0) return undefined
  const text = utf8Of('`data`', data)
  try {
    return parseJson(text)
  } catch {
    return refuse('`data` to be JSON')
  }
}

/** HTTP protocol binding 1.0.2, 3.1.3.2. */
function encodeHeader(text: string): string {
  return text.replaceAll(/[^\x21\x23\x24\x26-\x7e]/gu, (character) => encodeURIComponent(character))
}

function decodeHeader(name: string, text: string): string {
  const quoted = /^"((?:[^"\\]|\\.)*)"$/s.exec(text)?.[1]
  try {
    return decodeURIComponent(quoted === undefined ? text : quoted.replaceAll(/\\(.)/gs, '$1'))
  } catch {
    return refuse(`the header \`${printable(name, 60)}\` to be percent-encoded UTF-8`)
  }
}
