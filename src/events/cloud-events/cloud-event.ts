import { createHash } from 'node:crypto'
import type { EventCatalogue } from '../catalogue.ts'
import { readAttributes, refuse } from './attributes.ts'
import type { EventFields, EventMetadata, NewEvent, StoredEvent } from '../envelope.ts'
import { InvalidEventError } from '../../foundation/errors.ts'
import { parseJson } from '../json/parse-json.ts'
import { limits } from '../../foundation/limits.ts'
import { isDate } from '../../foundation/cross-realm.ts'
import { assertTextOption, describe, refuseUnknownKeys, invalidOption } from '../../foundation/options.ts'
import { toRfc3339 } from '../../foundation/rfc3339.ts'
import { isUriReference, toUriReference } from './uri-reference.ts'

/** A CloudEvents 1.0 event in the JSON format. `JSON.stringify` of it is the structured mode of every protocol. */
export interface CloudEvent<P = unknown> {
  readonly specversion: '1.0'
  readonly id: string
  /** A URI-reference. */
  readonly source: string
  readonly type: string
  readonly subject?: string
  /** RFC 3339. */
  readonly time?: string
  readonly datacontenttype?: string
  /** A URI. */
  readonly dataschema?: string
  readonly data?: P
  /** Extensions: strings, integers and booleans, by lower-case name. */
  readonly [extension: string]: unknown
}

/** Options of {@link toCloudEvent}. */
export interface ToCloudEventOptions {
  /** The URI of the payload's schema, written to the attribute `dataschema`. */
  readonly dataSchema?: string | undefined
}

/** Options of {@link fromCloudEvent}. */
export interface FromCloudEventOptions {
  /**
   * The tenant of the event, whatever the sender wrote into the extension `tenantid`. Without this option the sender
   * decides: use that only if every sender may publish for every tenant.
   */
  readonly tenantId?: string | undefined
}

/** The result of {@link fromCloudEvent}. */
export interface ReceivedCloudEvent<C extends EventCatalogue = EventCatalogue> {
  /** The event to pass to publish, which checks its type against the catalogue and its payload against the schema. */
  readonly event: NewEvent<C>
  /** What the sender stated that publish has no field for. */
  readonly sent: {
    readonly id: string
    readonly source: string
    readonly time: Date | undefined
    readonly dataSchema: string | undefined
    /** From a bossbus sender: the version of the payload's shape. */
    readonly schemaVersion: number | undefined
    /** From a bossbus sender: its business id. Also in the metadata, as `eventid`. */
    readonly eventId: string | undefined
    /** From a bossbus sender: its idempotency key. Also in the metadata, as `idempotencykey`. */
    readonly idempotencyKey: string | undefined
  }
}

/** Attributes of CloudEvents itself. An extension, and so an entry of metadata, cannot use these names. */
const coreNames = [
  'specversion',
  'id',
  'source',
  'type',
  'subject',
  'time',
  'datacontenttype',
  'dataschema',
  'data',
]

/** Extensions that map to fields of an event. */
const fieldNames = [
  'tenantid',
  'eventid',
  'idempotencykey',
  'correlationid',
  'causationid',
  'partitionkey',
  'expirytime',
  'schemaversion',
  'busmetadata',
]

/** Attributes of CloudEvents 0.3: the official SDK refuses extensions with these names. */
const retiredNames = ['datacontentencoding', 'schemaurl']

const taken = new Set([...coreNames, ...fieldNames, ...retiredNames])

/** The extension names that the specification allows. */
const extensionName = /^[a-z0-9]{1,20}$/

/** Characters that CloudEvents forbids in every text: controls, noncharacters, lone surrogates. */
const illegal = /[\p{Cc}\p{Cs}\p{Noncharacter_Code_Point}]/u

/**
 * Converts a stored event to CloudEvents 1.0 in JSON. Pure.
 *
 * `id` is the event's id, `source` its source as a URI-reference (percent-encoded if it is not one), `time` the time
 * when it was stored. Extensions: `tenantid`, `correlationid`, `causationid`, `partitionkey` (the ordering key),
 * `eventid`, `idempotencykey`, `schemaversion`, `expirytime`, and the metadata. A metadata entry whose name is a valid
 * extension name, such as `traceparent`, becomes an extension; the others are collected as JSON in `busmetadata`.
 *
 * @example
 * ```ts
 * handler: async (event) => {
 *   const body = JSON.stringify(toCloudEvent(event))
 *   await fetch(url, { method: 'POST', headers: { 'content-type': 'application/cloudevents+json' }, body })
 * }
 * ```
 * @throws an {@link InvalidEventError} `BUS_INVALID_CLOUD_EVENT` for a text with control characters or Unicode
 *   noncharacters, and for a time that RFC 3339 cannot express, such as infinity; {@link ConfigurationError}
 *   `BUS_INVALID_OPTION`
 */
export function toCloudEvent<E extends StoredEvent>(
  event: E,
  options: ToCloudEventOptions = {},
): CloudEvent<E['payload']> {
  refuseUnknownKeys(options, ['dataSchema'], 'toCloudEvent')
  const { dataSchema } = options
  if (dataSchema !== undefined && !(typeof dataSchema === 'string' && isUriReference(dataSchema)))
    throw invalidOption(`Expected \`dataSchema\` to be a URI, got ${describe(dataSchema)}`, 'dataSchema')
  const attributes = {
    type: event.type,
    subject: event.subject,
    dataschema: dataSchema,
    tenantid: event.tenantId,
    eventid: event.eventId,
    idempotencykey: event.idempotencyKey,
    correlationid: event.correlationId,
    causationid: event.causationId,
    partitionkey: event.orderingKey,
    expirytime: event.expiresAt && timeText('expirytime', event.expiresAt),
    ...extensionsOf(event.metadata),
  }
  const given = Object.entries(attributes).filter(
    (entry): entry is [string, string] => entry[1] !== undefined,
  )
  for (const [name, value] of [['source', event.source] as const, ...given]) {
    if (illegal.test(value)) refuse(`\`${name}\` to contain no control characters or noncharacters`)
  }
  return Object.freeze({
    specversion: '1.0',
    id: event.id,
    source: toUriReference(event.source),
    type: event.type,
    time: timeText('time', event.createdAt),
    datacontenttype: 'application/json',
    schemaversion: event.schemaVersion,
    ...Object.fromEntries(given),
    data: event.payload,
  })
}

/** PostgreSQL accepts times that RFC 3339 cannot express: infinity, or a year after 9999. */
function timeText(name: string, time: unknown): string {
  const text = isDate(time) ? toRfc3339(time) : undefined
  return text ?? refuse(`\`${name}\` to be a time from the year 0 to 9999, which RFC 3339 can express`)
}

function extensionsOf(metadata: EventMetadata): Record<string, string> {
  const extensions: [string, string][] = []
  const others: [string, string][] = []
  for (const [name, value] of Object.entries(metadata)) {
    const fits = extensionName.test(name) && !taken.has(name) && value !== '' && !illegal.test(value)
    if (fits) extensions.push([name, value])
    else others.push([name, value])
  }
  if (others.length > 0) {
    const json = JSON.stringify(Object.fromEntries(others))
    extensions.push(['busmetadata', json.replaceAll(new RegExp(illegal, 'gu'), toEscape)])
  }
  return Object.fromEntries(extensions)
}

/** JSON has already escaped the characters below U+0020. */
function toEscape(character: string): string {
  return Array.from(
    { length: character.length },
    (_, i) => String.raw`\u${character.charCodeAt(i).toString(16).padStart(4, '0')}`,
  ).join('')
}

/**
 * Converts a CloudEvent from any sender to an event that publish takes. Accepts a parsed object in the JSON format, or
 * the official SDK's `CloudEvent`. Pure: nothing is published.
 *
 * An event that is received twice is published once: `source` and `id`, which together are unique, become the
 * `eventId`. A bus always publishes under its own source, so the sender's source is kept in the metadata as `cesource`,
 * with its id as `ceid`, and with every extension that maps to no field.
 *
 * @example
 * ```ts
 * app.post('/events', async (request) => {
 *   const { event } = fromCloudEvent<typeof events>(request.body, { tenantId })
 *   return db.transaction(async (tx) => request.bus.publish(tx, event))
 * })
 * ```
 * @throws an {@link InvalidEventError} `BUS_INVALID_CLOUD_EVENT` if the value is not a CloudEvent 1.0 with JSON data,
 *   or `BUS_TENANT_REQUIRED`; {@link ConfigurationError} `BUS_INVALID_OPTION`
 */
export function fromCloudEvent<C extends EventCatalogue = EventCatalogue>(
  given: unknown,
  options: FromCloudEventOptions = {},
): ReceivedCloudEvent<C> {
  refuseUnknownKeys(options, ['tenantId'], 'fromCloudEvent')
  if (options.tenantId !== undefined)
    assertTextOption('tenantId', options.tenantId, { max: limits.keyLength })
  const { id, source, type, time, expirytime, data, texts } = readAttributes(given)
  const tenantId = options.tenantId ?? texts.get('tenantid')
  if (tenantId === undefined)
    throw new InvalidEventError(
      'BUS_TENANT_REQUIRED',
      'Expected the option `tenantId`, or the extension `tenantid`',
    )
  const fields: EventFields = {
    tenantId,
    eventId: toEventId(source, id),
    correlationId: texts.get('correlationid'),
    causationId: uuidOf(texts.get('causationid')),
    orderingKey: texts.get('partitionkey'),
    subject: texts.get('subject'),
    expiresAt: expirytime,
    metadata: metadataOf(texts, source, id),
  }
  const defined = Object.entries({ type, payload: data ?? null, ...fields }).filter(
    ([, value]) => value !== undefined,
  )
  const version = texts.get('schemaversion')
  return Object.freeze({
    // The types of the catalogue start here; publish checks them.
    event: Object.freeze(Object.fromEntries(defined)) as unknown as NewEvent<C>,
    sent: Object.freeze({
      id,
      source,
      time,
      dataSchema: texts.get('dataschema'),
      schemaVersion: version !== undefined && /^[1-9]\d{0,4}$/.test(version) ? Number(version) : undefined,
      eventId: texts.get('eventid'),
      idempotencyKey: texts.get('idempotencykey'),
    }),
  })
}

/** Fields of the event that its metadata need not repeat. */
const carried = new Set([
  ...coreNames,
  'tenantid',
  'correlationid',
  'partitionkey',
  'expirytime',
  'schemaversion',
  'busmetadata',
])

function metadataOf(texts: ReadonlyMap<string, string>, source: string, id: string): EventMetadata {
  const extensions = [...texts].filter(
    ([name, value]) => !carried.has(name) && !(name === 'causationid' && uuidOf(value) !== undefined),
  )
  return Object.fromEntries([
    ...Object.entries(busMetadataOf(texts.get('busmetadata'))),
    ...extensions,
    ['cesource', source],
    ['ceid', id],
  ])
}

/** Written by {@link toCloudEvent}. From any other sender it is an ordinary text. */
function busMetadataOf(json: string | undefined): EventMetadata {
  if (json === undefined) return {}
  try {
    const parsed = parseJson(json)
    const isMetadata =
      parsed !== null &&
      typeof parsed === 'object' &&
      !Array.isArray(parsed) &&
      Object.values(parsed).every((value) => typeof value === 'string')
    return isMetadata ? (parsed as EventMetadata) : { busmetadata: json }
  } catch {
    return { busmetadata: json }
  }
}

/** A URI-reference contains no space, so two different pairs never produce the same text. */
function toEventId(source: string, id: string): string {
  const text = `${source} ${id}`
  if (text.length <= limits.keyLength) return text
  return `sha256:${createHash('sha256').update(text).digest('hex')}`
}

function uuidOf(text: string | undefined): string | undefined {
  return text !== undefined && /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/i.test(text) ? text : undefined
}
