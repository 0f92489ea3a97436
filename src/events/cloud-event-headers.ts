import type { CloudEvent } from './cloud-event.ts'
import { refuse } from './cloud-event-attributes.ts'
import { printable } from './printable.ts'

/** What carries the headers. */
export type CloudEventProtocol = 'http' | 'kafka'

/** Longer than any server takes headers. */
const maxHeaderLength = 131_072

const prefixes: Readonly<Record<CloudEventProtocol, string>> = { http: 'ce-', kafka: 'ce_' }

/**
 * The headers of a CloudEvent in binary mode; the body is its data alone, as JSON. For HTTP `ce-…`, percent-encoded as its
 * binding says (all but printable ASCII, and blank, `"` and `%`); for Kafka `ce_…`, UTF-8 as it is. Both with `content-type`.
 *
 * @example
 * ```ts
 * const cloudEvent = toCloudEvent(event)
 * await fetch(url, { method: 'POST', headers: toCloudEventHeaders(cloudEvent, 'http'), body: JSON.stringify(cloudEvent.data) })
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
    if (!text.isWellFormed()) refuse(`\`${printable(name, 60)}\` to be without halves of surrogate pairs`)
    headers[`${prefixes[protocol]}${name}`] = protocol === 'http' ? encodeHeader(text) : text
  }
  return headers
}

/**
 * The CloudEvent that headers in binary mode and a parsed JSON body stand for: for `fromCloudEvent`, which checks it.
 * Names of headers in any case; texts and, as Node's HTTP gives what came several times, lists of one.
 *
 * @throws {@link InvalidEventError} `BUS_INVALID_CLOUD_EVENT` for a header that is not encoded as it has to be
 */
export function fromCloudEventHeaders(
  headers: Readonly<Record<string, unknown>>,
  data: unknown,
  protocol: CloudEventProtocol,
): Readonly<Record<string, unknown>> {
  const prefix = prefixes[protocol]
  const attributes: [string, unknown][] = []
  for (const [header, value] of Object.entries(headers)) {
    const name = header.toLowerCase()
    const text: unknown = Array.isArray(value) && value.length === 1 ? value[0] : value
    const isContentType = name === 'content-type'
    if (!isContentType && !name.startsWith(prefix)) continue
    if (typeof text !== 'string' || text.length > maxHeaderLength)
      refuse(`the header \`${printable(name, 60)}\` once, as a text of at most ${maxHeaderLength} characters`)
    const attribute = isContentType ? 'datacontenttype' : name.slice(prefix.length)
    // Neither is an attribute: as a header it would replace the body.
    if (attribute === 'data' || attribute === 'data_base64') refuse('the data in the body, not in a header')
    attributes.push([attribute, protocol === 'http' && !isContentType ? decodeHeader(name, text) : text])
  }
  return Object.fromEntries([...attributes, ['data', data]])
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
