import { fromCloudEvent } from '../../events/cloud-events/cloud-event.ts'
import { fromCloudEventHeaders } from '../../events/cloud-events/headers.ts'
import { InvalidEventError } from '../../foundation/errors.ts'
import type { UncheckedEvent } from '../../outbox/publish/check-events.ts'
import type { ReceivedMessage } from './source.ts'

/** The media type of a CloudEvent in the structured mode of every protocol. */
const structuredType = /^application\/cloudevents(?:\+json)?\s*(?:;|$)/i
const otherStructuredType = /^application\/cloudevents/i

/**
 * Reads a message as a CloudEvent: structured if its content type says so, else binary, from the headers of its protocol.
 *
 * @throws an {@link InvalidEventError} `BUS_INVALID_CLOUD_EVENT`, `BUS_TENANT_REQUIRED`
 */
export function cloudEventOf(message: ReceivedMessage, tenantId: string | undefined): UncheckedEvent {
  const { event } = fromCloudEvent(attributesOf(message), tenantId === undefined ? {} : { tenantId })
  return event
}

function attributesOf(message: ReceivedMessage): unknown {
  const { contentType, headers, protocol } = message
  const body = Buffer.from(message.body.buffer, message.body.byteOffset, message.body.byteLength)
  if (contentType !== undefined && structuredType.test(contentType)) {
    // Without a protocol there are no attributes in headers; the data is the whole event.
    const { data } = fromCloudEventHeaders({}, body, 'http')
    return data
  }
  if (contentType !== undefined && otherStructuredType.test(contentType))
    throw new InvalidEventError(
      'BUS_INVALID_CLOUD_EVENT',
      'Expected a CloudEvent in JSON: other formats need a `map` that reads them',
    )
  if (protocol === undefined)
    throw new InvalidEventError(
      'BUS_INVALID_CLOUD_EVENT',
      'Expected the content type application/cloudevents+json: this system carries no headers of CloudEvents. Other messages need a `map`',
    )
  const given = contentType === undefined ? headers : { ...headers, 'content-type': contentType }
  return fromCloudEventHeaders(given, body, protocol)
}
