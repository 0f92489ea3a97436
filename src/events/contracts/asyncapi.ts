import { createHash } from 'node:crypto'
import { definitionName, placed } from './catalogue-document.ts'
import type { TypeDescription } from './catalogue-description.ts'

export interface AsyncApiOptions {
  readonly source: string
  /** The version of the API that the document describes, for example the version of the service. */
  readonly apiVersion: string
  /** `'cloudevents'`: the payload is a CloudEvent in structured mode. `'plain'`: the payload is the event's own payload. */
  readonly envelope: 'cloudevents' | 'plain'
}

/** An AsyncAPI 3.0 document. */
export type AsyncApiDocument = Readonly<Record<string, unknown>> & { readonly asyncapi: '3.0.0' }

/**
 * Converts the catalogue to an AsyncAPI 3.0 document: a channel for each type, with a message for each known version.
 * The service sends the types that it may publish, and receives all. Schemas must be described in draft-07, the dialect
 * of AsyncAPI. Servers are left out, because the location of a database is not part of a contract.
 */
export function toAsyncApi(
  types: readonly TypeDescription[],
  { source, apiVersion, envelope }: AsyncApiOptions,
): AsyncApiDocument {
  const newest = new Map<string, TypeDescription>()
  for (const description of types) {
    const other = newest.get(description.type)
    if (other === undefined || other.version < description.version) newest.set(description.type, description)
  }
  const versionsOf = (type: string): readonly TypeDescription[] =>
    types.filter((other) => other.type === type)
  return {
    asyncapi: '3.0.0',
    info: { title: `Events of ${source}`, version: apiVersion },
    defaultContentType: envelope === 'cloudevents' ? 'application/cloudevents+json' : 'application/json',
    channels: Object.fromEntries(
      [...newest.keys()].map((type) => [
        toKey(type),
        {
          address: type,
          messages: Object.fromEntries(
            versionsOf(type).map((description) => [
              messageKey(description),
              { $ref: `#/components/messages/${messageKey(description)}` },
            ]),
          ),
        },
      ]),
    ),
    operations: Object.fromEntries(
      [...newest.values()].flatMap((description) =>
        operationsOf(description, versionsOf(description.type), source),
      ),
    ),
    components: {
      messages: Object.fromEntries(
        types.map((description) => [messageKey(description), toMessage(description, source, envelope)]),
      ),
      schemas: Object.fromEntries(
        types.map((description) => [
          messageKey(description),
          // An object, because AsyncAPI does not accept `true` here as JSON Schema does.
          placed(
            typeof description.schema === 'object' ? description.schema : {},
            `#/components/schemas/${messageKey(description)}`,
          ),
        ]),
      ),
      correlationIds: {
        correlationId: {
          description: 'Ties events of one business process together.',
          location:
            envelope === 'cloudevents' ? '$message.payload#/correlationid' : '$message.header#/correlationId',
        },
      },
    },
  }
}

/** The key of a type in the document: AsyncAPI allows letters, digits, `.`, `_` and `-`. */
function toKey(type: string): string {
  if (/^[A-Za-z0-9._-]+$/.test(type)) return type
  const hash = createHash('sha256').update(type).digest('hex').slice(0, 8)
  return `${type.replaceAll(/[^A-Za-z0-9._-]/gu, '_')}-${hash}`
}

function messageKey({ type, version }: TypeDescription): string {
  return definitionName({ type: toKey(type), version })
}

function operationsOf(
  newest: TypeDescription,
  versions: readonly TypeDescription[],
  source: string,
): readonly (readonly [string, unknown])[] {
  const key = toKey(newest.type)
  const channel = { $ref: `#/channels/${key}` }
  const message = (description: TypeDescription): unknown => ({
    $ref: `#/channels/${key}/messages/${messageKey(description)}`,
  })
  const maySend = newest.sources === undefined || newest.sources.includes(source)
  return [
    ...(maySend
      ? [[`publish-${key}`, { action: 'send', channel, messages: [message(newest)] }] as const]
      : []),
    [`receive-${key}`, { action: 'receive', channel, messages: versions.map(message) }],
  ]
}

function toMessage(
  description: TypeDescription,
  source: string,
  envelope: AsyncApiOptions['envelope'],
): unknown {
  const { type, version, redact, sources } = description
  const schema = { $ref: `#/components/schemas/${messageKey(description)}` }
  return {
    name: type,
    title: `${type}, version ${version}`,
    correlationId: { $ref: '#/components/correlationIds/correlationId' },
    ...(envelope === 'cloudevents'
      ? { contentType: 'application/cloudevents+json', payload: cloudEvent(description, schema) }
      : { contentType: 'application/json', headers: plainHeaders(description, source), payload: schema }),
    ...(sources && { 'x-bossbus-sources': sources }),
    ...(redact && { 'x-bossbus-redact': redact }),
  }
}

const text = { type: 'string' }

/** CloudEvents 1.0 in structured mode, with the attributes that the bus maps. */
function cloudEvent({ type, sources }: TypeDescription, data: unknown): unknown {
  return {
    type: 'object',
    required: ['specversion', 'id', 'source', 'type'],
    properties: {
      specversion: { const: '1.0' },
      id: { type: 'string', format: 'uuid' },
      source: sources === undefined ? text : { enum: sources },
      type: { const: type },
      subject: text,
      time: { type: 'string', format: 'date-time' },
      datacontenttype: { const: 'application/json' },
      correlationid: text,
      causationid: { type: 'string', format: 'uuid' },
      partitionkey: text,
      traceparent: text,
      data,
    },
  }
}

function plainHeaders({ type, version, sources }: TypeDescription, source: string): unknown {
  return {
    type: 'object',
    required: ['id', 'type', 'source', 'tenantId', 'schemaVersion'],
    properties: {
      id: { type: 'string', format: 'uuid' },
      type: { const: type },
      source: sources === undefined ? { type: 'string', examples: [source] } : { enum: sources },
      tenantId: text,
      schemaVersion: { const: version },
      subject: text,
      eventId: text,
      idempotencyKey: text,
      correlationId: text,
      causationId: { type: 'string', format: 'uuid' },
      orderingKey: text,
      createdAt: { type: 'string', format: 'date-time' },
    },
  }
}
