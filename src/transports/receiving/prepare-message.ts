import { toBusError } from '../../database/database-errors.ts'
import { reasonOf } from '../../foundation/error-reason.ts'
import { BusError, InvalidEventError, type BusErrorCode } from '../../foundation/errors.ts'
import { kindOf } from '../../foundation/options.ts'
import {
  checkEvents,
  type PassedEvent,
  type PublishSettings,
  type UncheckedEvent,
} from '../../outbox/publish/check-events.ts'
import { cloudEventOf } from './default-map.ts'
import { idempotencyKeyOf } from './message-id.ts'
import type { ReceivedMessage } from './source.ts'

/** The option `map` of a receiver, whatever it returns. */
export type MapMessage = (message: ReceivedMessage) => unknown

/** Why a message is not an event and never will be, unless the code changes. */
export interface Poison {
  readonly code: BusErrorCode
  readonly reason: string
}

/** What becomes of a message. */
export type PreparedMessage =
  /** Valid events; none if the message is skipped. */
  | {
      readonly message: ReceivedMessage
      readonly events: readonly PassedEvent[]
      readonly poison?: undefined
    }
  | { readonly message: ReceivedMessage; readonly poison: Poison }

/** What a receiver makes events with. */
export interface PrepareParts {
  readonly receiver: string
  readonly map: MapMessage | undefined
  readonly tenantId: string | undefined
  readonly settings: PublishSettings
}

/**
 * Makes the events of a message, and validates them.
 *
 * @param idText - of {@link messageIdText}
 * @throws what `map` has thrown, if it may work later: a retryable error of the bus, or a lost connection of a database
 */
export async function prepareMessage(
  parts: PrepareParts,
  message: ReceivedMessage,
  idText: string | undefined,
): Promise<PreparedMessage> {
  try {
    const events = await eventsOf(parts, message)
    if (events.length === 0) return { message, events: [] }
    const withKeys = events.map((event, index) => withKey(parts.receiver, event, idText, index))
    return { message, events: await checkEvents(parts.settings, withKeys) }
  } catch (error) {
    if (mayWorkLater(error)) throw error
    return { message, poison: poisonOf(error) }
  }
}

/** What is said of a message because of an error. */
export function poisonOf(error: unknown): Poison {
  return {
    code: error instanceof BusError ? error.code : 'BUS_MAP_FAILED',
    reason: reasonOf(error instanceof SyntaxError ? withoutText(error) : error),
  }
}

/** `JSON.parse` quotes the text that it cannot read, which is a part of the message. */
function withoutText(error: SyntaxError): Error {
  return error.message.includes('JSON') ? new Error('The text is not valid JSON') : error
}

async function eventsOf(
  { map, tenantId }: PrepareParts,
  message: ReceivedMessage,
): Promise<readonly UncheckedEvent[]> {
  if (map === undefined) return [cloudEventOf(message, tenantId)]
  const mapped: unknown = await map(message)
  if (mapped === undefined || mapped === null) return []
  const list: readonly unknown[] = Array.isArray(mapped) ? [...(mapped as readonly unknown[])] : [mapped]
  return list.map((event) => {
    if (event === null || typeof event !== 'object')
      throw new InvalidEventError(
        'BUS_INVALID_EVENT',
        `Expected \`map\` to return an event, several, or undefined, got ${kindOf(event)}`,
      )
    const { tenantId: own, ...fields } = event as UncheckedEvent
    return { ...fields, tenantId: own ?? tenantId }
  })
}

function withKey(
  receiver: string,
  event: UncheckedEvent,
  idText: string | undefined,
  index: number,
): UncheckedEvent {
  if (event.idempotencyKey !== undefined) return event
  if (idText !== undefined) return { ...event, idempotencyKey: idempotencyKeyOf(receiver, idText, index) }
  if (event.eventId !== undefined) return event
  throw new InvalidEventError(
    'BUS_MESSAGE_WITHOUT_ID',
    'Expected an id of the message, by which it is known when it comes again: its system gave it none. Have `map` return an `eventId` or an `idempotencyKey` that follows from the message',
  )
}

/** A lookup in `map` may fail for a reason that passes. An error without a code is one of the code, or of the message. */
function mayWorkLater(error: unknown): boolean {
  if (error instanceof BusError) return error.retryable
  const { code } = (error ?? {}) as { readonly code?: unknown }
  return typeof code === 'string' && toBusError(error).retryable
}
