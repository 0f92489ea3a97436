import type { Executor } from '../../database/database.ts'
import { firstCharacters } from '../../foundation/text.ts'
import type { CloudEventProtocol } from '../../events/cloud-events/headers.ts'
import { contentId, messageIdText } from './message-id.ts'
import type { Poison } from './prepare-message.ts'
import type { ReceivedMessage } from './source.ts'

/** The bytes of a body that are stored. A longer message cannot become an event either. */
const maxBodyBytes = 16_777_216

/** The bytes of headers that are stored, as JSON. */
const maxHeaderBytes = 65_536

/** A message for the quarantine, and the text that it is known by there. */
export interface PoisonMessage {
  readonly message: ReceivedMessage
  readonly poison: Poison
}

/**
 * Puts messages into the quarantine. One that is there already is counted, and tells its newest reason while nobody has decided about it.
 * Resolves to the ids of the rows of messages that were not there.
 *
 * Locks: the rows of these messages, in the order of their ids. Repeating: counts the messages again.
 */
export async function quarantine(
  executor: Executor,
  receiver: string,
  poisoned: readonly PoisonMessage[],
): Promise<string[]> {
  const rows = poisoned
    .map((each) => ({ ...each, idText: messageIdText(receiver, each.message) ?? contentId(each.message) }))
    .toSorted((a, b) => (a.idText < b.idText ? -1 : 1))
  const ids: string[] = []
  for (const { message, poison, idText } of rows) {
    const { body, protocol, contentType, key } = message
    const headers = storedHeaders(message.headers)
    const isCut = body.byteLength > maxBodyBytes || headers.isCut
    const { rows: written } = await executor.query<{ id: string; is_new: boolean }>(
      `insert into bus.quarantined_messages as q
         (receiver, message_id, has_id, code, reason, received_from, protocol, content_type, message_key, headers, body, body_bytes, is_cut)
       values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
       on conflict (receiver, message_id) do update set
         received_count = least(q.received_count, 2147483646) + 1, last_received_at = now(),
         code = case q.state when 'new' then excluded.code else q.code end,
         reason = case q.state when 'new' then excluded.reason else q.reason end
       returning q.id, q.received_count = 1 as is_new`,
      [
        ...[receiver, idText, messageIdText(receiver, message) !== undefined],
        ...[poison.code, storable(poison.reason, 2100)],
        ...[storable(message.from, 1024), protocol ?? null],
        ...[optional(contentType, 255), optional(key, 1024)],
        ...[headers.json, bufferOf(body).subarray(0, maxBodyBytes), body.byteLength, isCut],
      ],
    )
    const [row] = written
    if (row?.is_new === true) ids.push(row.id)
  }
  return ids
}

function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}

const optional = (text: string | undefined, length: number): string | null =>
  text === undefined ? null : storable(text, length)

/** What PostgreSQL cannot store is replaced. */
function storable(text: string, length: number): string {
  return firstCharacters(text.toWellFormed().replaceAll('\u0000', '\uFFFD'), length)
}

function storedHeaders(headers: Readonly<Record<string, string>>): {
  readonly json: string
  readonly isCut: boolean
} {
  const kept: [string, string][] = []
  let bytes = 2
  let isCut = false
  for (const [name, value] of Object.entries(headers)) {
    const entry: [string, string] = [
      storable(name, Number.POSITIVE_INFINITY),
      storable(value, Number.POSITIVE_INFINITY),
    ]
    const size = Buffer.byteLength(JSON.stringify(entry))
    if (bytes + size > maxHeaderBytes) {
      isCut = true
      continue
    }
    bytes += size
    kept.push(entry)
  }
  return { json: JSON.stringify(Object.fromEntries(kept)), isCut }
}

/** A stored message, with what its receiver needs to try it again. */
export interface StoredMessageRow extends Record<string, unknown> {
  readonly id: string
  readonly message_id: string
  readonly has_id: boolean
  readonly received_from: string
  readonly protocol: CloudEventProtocol | null
  readonly content_type: string | null
  readonly message_key: string | null
  readonly headers: Readonly<Record<string, string>>
  /** In hexadecimal digits: connections of the bus have no parser for bytes, whose text depends on a setting. */
  readonly body: string
  readonly is_cut: boolean
}

/** The message as it came. An id that had to be hashed is the hash. */
export function messageOf(row: StoredMessageRow): ReceivedMessage {
  return {
    id: row.has_id ? row.message_id : undefined,
    body: Buffer.from(row.body, 'hex'),
    headers: row.headers,
    contentType: row.content_type ?? undefined,
    key: row.message_key ?? undefined,
    from: row.received_from,
    protocol: row.protocol ?? undefined,
  }
}
