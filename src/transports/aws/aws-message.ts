import { createHash } from 'node:crypto'
import type { StoredEvent } from '../../events/envelope.ts'
import type { EncodedEvent, EncoderLimits } from '../sending/envelope.ts'

/** An attribute of a message of SNS and SQS. */
interface MessageAttribute {
  readonly DataType: 'String'
  readonly StringValue: string
}

/** The attributes: they can be filtered by. At most ten are allowed, and raw delivery of SNS drops messages with more. */
function attributesOf(event: StoredEvent, contentType: string): Record<string, string> {
  const { traceparent } = event.metadata
  return {
    'content-type': contentType,
    type: event.type,
    tenant: event.tenantId,
    source: event.source,
    'ce-id': event.id,
    ...(traceparent !== undefined && /^[0-9a-f-]{1,128}$/.test(traceparent) ? { traceparent } : {}),
  }
}

/** A message of SNS or SQS: its size is that of the body, and of the names, types and values of its attributes. */
export function messageLimits(maxBytes: number): EncoderLimits {
  return {
    protocol: undefined,
    maxBytes,
    headersOf: attributesOf,
    overheadBytes: (event) => Object.keys(attributesOf(event, '')).length * 'String'.length,
    escape: escapeNoncharacters,
  }
}

export function messageAttributes({ headers }: EncodedEvent): Record<string, MessageAttribute> {
  return Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [name, { DataType: 'String', StringValue: value }]),
  )
}

/** SQS accepts the characters of XML 1.0. JSON has escaped the others already, except these two. */
function escapeNoncharacters(json: string): string {
  return json.replaceAll('\uFFFE', String.raw`\ufffe`).replaceAll('\uFFFF', String.raw`\uffff`)
}

/** What FIFO queues and topics take. */
export interface FifoFields {
  readonly MessageGroupId: string
  readonly MessageDeduplicationId: string
}

/** Events of a key share a group. An event without a key has a group of its own: it waits for none. */
export function fifoFields(event: StoredEvent): FifoFields {
  return { MessageGroupId: orderKey(event) ?? event.id, MessageDeduplicationId: event.id }
}

/** Tenant and ordering key as a group id; undefined without an ordering key. Keys may have characters that a group id may not. */
export function orderKey({ tenantId, orderingKey }: StoredEvent): string | undefined {
  return orderingKey === undefined ? undefined : digest(JSON.stringify([tenantId, orderingKey]))
}

/** Standard queues deal out messages fairly by this group, and standard topics pass it on to them. */
export function tenantGroup({ tenantId }: StoredEvent): string {
  return /^[!-~]{1,128}$/.test(tenantId) ? tenantId : digest(tenantId)
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('base64url')
}
