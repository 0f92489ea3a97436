import { InvalidEventError } from '../../foundation/errors.ts'
import { describe } from '../../foundation/options.ts'
import { redactThrown } from '../../foundation/error-redaction.ts'
import { parseRfc3339 } from '../../foundation/rfc3339.ts'
import { isUriReference } from './uri-reference.ts'
import { printable } from '../../foundation/text.ts'

/** A CloudEvent whose attributes have been checked. */
export interface ReadCloudEvent {
  readonly id: string
  readonly source: string
  readonly type: string
  readonly time: Date | undefined
  readonly expirytime: Date | undefined
  readonly data: unknown
  /** Every attribute as text. */
  readonly texts: ReadonlyMap<string, string>
}

const jsonType = /^[\w.!#$&^+-]+\/(?:[\w.!#$&^-]+\+)?json\s*(?:;|$)/i

/**
 * Reads an untrusted value as a CloudEvent. Each attribute is read once.
 *
 * @throws an {@link InvalidEventError} `BUS_INVALID_CLOUD_EVENT`, naming attributes and never their data
 */
export function readAttributes(given: unknown): ReadCloudEvent {
  const attributes = entriesOf(given)
  const texts = new Map<string, string>()
  for (const [name, value] of attributes) {
    if (name === 'data' || name === 'data_base64' || value === null || value === undefined) continue
    texts.set(name, toText(name, value))
  }
  if (texts.get('specversion') !== '1.0')
    refuse(`\`specversion\` to be "1.0", got ${describe(attributes.get('specversion'))}`)
  const [id, source, type] = ['id', 'source', 'type'].map((name) => {
    const value = attributes.get(name)
    if (typeof value !== 'string' || value === '') refuse(`\`${name}\` to be a non-empty string`)
    return value
  }) as [string, string, string]
  if (!isUriReference(source)) refuse('`source` to be a URI-reference')
  const contentType = texts.get('datacontenttype')
  if (contentType !== undefined && !jsonType.test(contentType))
    refuse(`\`datacontenttype\` to be a JSON type, got ${describe(contentType)}`)
  if (attributes.get('data_base64') !== undefined && attributes.get('data_base64') !== null)
    refuse('`data` to be JSON, but it is binary (`data_base64`)')
  return {
    id,
    source,
    type,
    time: timeOf('time', texts),
    expirytime: timeOf('expirytime', texts),
    data: attributes.get('data'),
    texts,
  }
}

function entriesOf(given: unknown): ReadonlyMap<string, unknown> {
  if (given === null || typeof given !== 'object' || Array.isArray(given))
    refuse(`an object in the JSON format of CloudEvents, got ${describe(given)}`)
  try {
    // The official SDK's class holds its data behind a getter; `toJSON` returns the JSON format.
    const { toJSON } = given as { toJSON?: unknown }
    const plain: unknown = typeof toJSON === 'function' ? toJSON.call(given) : given
    return new Map(Object.entries(plain as object))
  } catch (error) {
    throw new InvalidEventError('BUS_INVALID_CLOUD_EVENT', 'Reading the CloudEvent failed', [], {
      cause: redactThrown(error),
    })
  }
}

function toText(name: string, value: unknown): string {
  if (!/^[a-z0-9]+$/.test(name))
    refuse(`names of lower-case letters and digits, got "${printable(name, 60)}"`)
  if (typeof value === 'string') return value
  if (typeof value === 'boolean' || (typeof value === 'number' && Number.isInteger(value)))
    return String(value)
  return refuse(`\`${printable(name, 60)}\` to be a text, an integer or a boolean, got ${describe(value)}`)
}

function timeOf(name: string, texts: ReadonlyMap<string, string>): Date | undefined {
  const text = texts.get(name)
  if (text === undefined) return undefined
  const time = parseRfc3339(text)
  if (time === undefined) refuse(`\`${name}\` to be an RFC 3339 time, like "2026-11-25T08:00:00Z"`)
  return time
}

/** @throws an {@link InvalidEventError} `BUS_INVALID_CLOUD_EVENT` */
export function refuse(expected: string): never {
  throw new InvalidEventError('BUS_INVALID_CLOUD_EVENT', `Expected ${expected}`)
}
