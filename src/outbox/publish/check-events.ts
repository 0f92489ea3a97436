import type { EventCatalogue, EventDefinition } from '../../events/catalogue.ts'
import type { EventFields, EventMetadata } from '../../events/envelope.ts'
import { eventFieldNames } from '../../events/event-defaults.ts'
import { InvalidEventError, type BusErrorCode } from '../../foundation/errors.ts'
import { encodeJson } from '../../events/json/encode-json.ts'
import { limits } from '../../foundation/limits.ts'
import { describe, describeInvalidText, kindOf, suggestName, nearest } from '../../foundation/options.ts'
import { isDate } from '../../foundation/cross-realm.ts'
import { redactThrown } from '../../foundation/error-redaction.ts'
import { printable, uuidShape } from '../../foundation/text.ts'
import { validatePayload } from '../../events/validate-payload.ts'

/** Settings that apply to every publish of a bus. */
export interface PublishSettings {
  readonly catalogue: EventCatalogue
  readonly source: string
  readonly maxPayloadBytes: number
}

/** An event of any type that has not been validated. */
export interface UncheckedEvent extends EventFields {
  readonly type: string
  readonly payload: unknown
}

/** The columns of an event: parameters of `bus.store_events`. */
export type EventColumn =
  | 'payloads'
  | 'tenant_ids'
  | 'types'
  | 'sources'
  | 'subjects'
  | 'schema_versions'
  | 'event_ids'
  | 'idempotency_keys'
  | 'correlation_ids'
  | 'causation_ids'
  | 'ordering_keys'
  | 'metadata'
  | 'available_ats'
  | 'expires_ats'

/** The columns of one event, each as text. */
export type EncodedEvent = Readonly<Record<EventColumn, string | undefined>>

/** A validated event. */
export interface PassedEvent {
  readonly event: ReadEvent
  /** The stored form: JSON text. */
  readonly payload: string
  readonly schemaVersion: number
  readonly columns: EncodedEvent
}

/** @throws an {@link InvalidEventError} for the first invalid event, with its position */
export async function checkEvents(
  settings: PublishSettings,
  newEvents: readonly UncheckedEvent[],
): Promise<readonly PassedEvent[]> {
  const events = readBatch(newEvents)
  const checked: PassedEvent[] = []
  let size = 0
  for (const [index, event] of events.entries()) {
    const passed = await checkEvent(settings, event).catch((error: unknown) => {
      const refusal = error instanceof InvalidEventError ? error : unreadable(error)
      throw events.length === 1 ? refusal : atIndex(index, refusal)
    })
    checked.push(passed)
    // All other fields of an event are limited to a few kilobytes.
    size += Buffer.byteLength(passed.payload) + (passed.columns.metadata?.length ?? 0)
    if (size > limits.callBytes) {
      throw new InvalidEventError(
        'BUS_PAYLOAD_TOO_LARGE',
        `Expected one call to carry at most ${limits.callBytes} bytes: publish in several calls`,
      )
    }
  }
  return checked
}

/** Copied, because validation takes time and the caller may modify the array meanwhile. */
function readBatch(newEvents: unknown): readonly unknown[] {
  let got: string
  try {
    const events: readonly unknown[] | undefined = Array.isArray(newEvents) ? newEvents : undefined
    if (events !== undefined && events.length > 0 && events.length <= limits.callEventCount)
      return events.slice()
    got = events === undefined ? kindOf(newEvents) : String(events.length)
  } catch (error) {
    throw unreadable(error)
  }
  throw new InvalidEventError(
    'BUS_INVALID_BATCH',
    `Expected an array of 1 to ${limits.callEventCount} events, got ${got}`,
  )
}

function atIndex(index: number, error: InvalidEventError): InvalidEventError {
  return new InvalidEventError(error.code, `Event ${index}: ${error.message}`, error.issues, {
    cause: error.cause,
  })
}

/** A getter or proxy may throw anything; the caller gets one kind of error. */
function unreadable(thrown: unknown): InvalidEventError {
  return new InvalidEventError('BUS_INVALID_EVENT', 'Reading the event failed', [], {
    cause: redactThrown(thrown),
  })
}

/** Every field is present. */
type ReadEvent = { readonly [K in keyof Required<UncheckedEvent>]: UncheckedEvent[K] }

function unknownField(key: string): InvalidEventError {
  const near = suggestName(key, eventFieldNames)
  const hint = near === undefined ? `Known are: ${eventFieldNames.join(', ')}` : `Did you mean \`${near}\`?`
  return new InvalidEventError(
    'BUS_INVALID_EVENT',
    `Unknown field ${describe(key)} of an event. ${hint}`,
    [],
    {
      option: printable(key, 60),
    },
  )
}

/** Each field is read once, so that the validated value is the stored one. */
function readEvent(given: unknown): ReadEvent {
  if (given === null || typeof given !== 'object' || Array.isArray(given))
    throw invalid(`Expected an event like { type, tenantId, payload }, got ${kindOf(given)}`)
  for (const key of Object.keys(given)) {
    if (!(eventFieldNames as readonly string[]).includes(key)) throw unknownField(key)
  }
  // Not a loop: this runs for each event, and a literal with a fixed shape is faster.
  const fields = given as UncheckedEvent
  return {
    type: fields.type,
    payload: fields.payload,
    tenantId: fields.tenantId,
    eventId: fields.eventId,
    idempotencyKey: fields.idempotencyKey,
    correlationId: fields.correlationId,
    causationId: fields.causationId,
    orderingKey: fields.orderingKey,
    subject: fields.subject,
    availableAt: fields.availableAt,
    availableIn: fields.availableIn,
    expiresAt: fields.expiresAt,
    metadata: fields.metadata,
  }
}

async function checkEvent(settings: PublishSettings, given: unknown): Promise<PassedEvent> {
  const event = readEvent(given)
  const definition = definitionOf(settings, event.type)
  assertTenant(event.tenantId)
  assertFields(event)
  const value = await validatePayload(event.type, definition, event.payload)
  const schemaVersion = definition.version ?? 1
  const payload = encodeJson(value, 'payload', settings.maxPayloadBytes)
  const columns = {
    payloads: payload,
    tenant_ids: event.tenantId,
    types: event.type,
    sources: settings.source,
    subjects: event.subject,
    schema_versions: schemaVersion === 1 ? undefined : String(schemaVersion),
    event_ids: event.eventId,
    idempotency_keys: event.idempotencyKey,
    correlation_ids: event.correlationId,
    causation_ids: event.causationId,
    ordering_keys: event.orderingKey,
    metadata: encodeMetadata(event.metadata),
    available_ats: event.availableAt?.toISOString() ?? secondsFromNow(event.availableIn),
    expires_ats: event.expiresAt?.toISOString(),
  }
  return { event, payload, schemaVersion, columns }
}

function definitionOf(settings: PublishSettings, type: unknown): EventDefinition {
  if (typeof type !== 'string' || !Object.hasOwn(settings.catalogue, type)) {
    throw new InvalidEventError(
      'BUS_UNKNOWN_EVENT_TYPE',
      `Expected \`type\` to be an event of the catalogue, got ${describe(type)}${didYouMean(type, settings.catalogue)}`,
      [],
      { option: 'type' },
    )
  }
  const definition = settings.catalogue[type] as EventDefinition
  if (definition.sources !== undefined && !definition.sources.includes(settings.source)) {
    throw new InvalidEventError(
      'BUS_SOURCE_NOT_ALLOWED',
      `The source \`${settings.source}\` may not publish \`${type}\`. Allowed: ${definition.sources.join(', ')}`,
    )
  }
  return definition
}

function didYouMean(type: unknown, catalogue: EventCatalogue): string {
  const near = typeof type === 'string' ? nearest(type, Object.keys(catalogue)) : undefined
  return near === undefined ? '' : `. Did you mean "${near}"?`
}

function assertTenant(tenantId: unknown): void {
  if (tenantId === undefined || tenantId === null || tenantId === '') {
    throw new InvalidEventError(
      'BUS_TENANT_REQUIRED',
      'Expected `tenantId` to name the tenant of the event',
      [],
      {
        option: 'tenantId',
      },
    )
  }
  assertText('tenantId', tenantId, limits.keyLength)
}

function assertFields(event: UncheckedEvent): void {
  for (const name of ['eventId', 'idempotencyKey', 'correlationId', 'orderingKey'] as const) {
    if (event[name] !== undefined) assertText(name, event[name], limits.keyLength)
  }
  if (event.subject !== undefined) assertText('subject', event.subject, limits.subjectLength)
  if (
    event.causationId !== undefined &&
    !(typeof event.causationId === 'string' && uuidShape.test(event.causationId))
  ) {
    throw invalid(
      `Expected \`causationId\` to be the id of an event (a uuid), got ${describe(event.causationId)}`,
    )
  }
  const { availableAt, availableIn, expiresAt } = event
  if (availableAt !== undefined && availableIn !== undefined)
    throw invalid('Expected either `availableAt` or `availableIn`, not both')
  assertTime('availableAt', availableAt)
  assertTime('expiresAt', expiresAt)
  if (availableAt !== undefined && expiresAt !== undefined && expiresAt <= availableAt)
    throw invalid('Expected `expiresAt` to be after `availableAt`: the event would never be delivered')
}

/** A due time that the server computes, because its clock decides about all times. */
function secondsFromNow(delay: unknown): string | undefined {
  if (delay === undefined) return undefined
  const { seconds } = (delay ?? {}) as { readonly seconds?: unknown }
  if (
    typeof seconds !== 'number' ||
    !(seconds >= 0 && seconds <= limits.availableInSeconds) ||
    Object.keys(delay as object).length !== 1
  ) {
    throw invalid(
      `Expected \`availableIn\` to be { seconds } with a number from 0 to ${limits.availableInSeconds}, got ${kindOf(delay)}`,
    )
  }
  return `+${seconds.toFixed(6)}`
}

function assertTime(name: string, value: unknown): void {
  if (value === undefined) return
  const year = isDate(value) ? value.getUTCFullYear() : Number.NaN
  if (!(year >= 1970 && year <= 9999)) throw invalid(`Expected \`${name}\` to be a Date from 1970 to 9999`)
}

function assertText(name: string, value: unknown, max: number): void {
  const message = describeInvalidText(name, value, max)
  if (message !== undefined) throw invalid(message)
}

/** Metadata as JSON text. @throws an {@link InvalidEventError} */
export function encodeMetadata(metadata: EventMetadata | undefined): string | undefined {
  if (metadata === undefined) return undefined
  if (
    metadata === null ||
    typeof metadata !== 'object' ||
    Array.isArray(metadata) ||
    Object.values(metadata).some((v) => typeof v !== 'string')
  ) {
    throw invalid('Expected `metadata` to be an object of string values')
  }
  const text = encodeJson(metadata, 'metadata', Number.POSITIVE_INFINITY)
  const size = Buffer.byteLength(text)
  const entryCount = Object.keys(metadata).length
  if (entryCount > limits.metadataEntryCount)
    throw invalid(
      `Expected \`metadata\` to have at most ${limits.metadataEntryCount} entries, got ${entryCount}`,
    )
  if (size > limits.metadataBytes)
    throw invalid(`Expected \`metadata\` to take at most ${limits.metadataBytes} bytes, got ${size}`)
  return text
}

function invalid(message: string, code: BusErrorCode = 'BUS_INVALID_EVENT'): InvalidEventError {
  return new InvalidEventError(code, message)
}
