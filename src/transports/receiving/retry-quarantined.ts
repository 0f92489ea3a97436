import type { Database } from '../../database/database.ts'
import { toBusError } from '../../database/database-errors.ts'
import { prepareMessage, poisonOf, type PrepareParts, type PreparedMessage } from './prepare-message.ts'
import { messageOf, type StoredMessageRow } from './quarantine-rows.ts'
import { inCalls, isRefusal, send, type StoreParts } from './store-messages.ts'

/** Messages of one look. */
const maxCount = 50

/**
 * Tries messages of a receiver that a person wants to be tried again, oldest first, and resolves to how many it looked at: if it is none,
 * there are no more.
 *
 * Several processes may do it at once: the row of a message is locked and looked at again before anything is stored.
 */
export async function retryQuarantined(parts: StoreParts & PrepareParts): Promise<number> {
  const { database, receiver } = parts
  const { rows } = await database.query<{ id: string }>(
    `select id from bus.quarantined_messages where state = 'retrying' and receiver = $1 order by id limit ${maxCount}`,
    [receiver],
  )
  for (const { id } of rows) await retryOne(parts, id)
  return rows.length
}

async function retryOne(parts: StoreParts & PrepareParts, id: string): Promise<void> {
  const { database } = parts
  const { rows } = await database.query<StoredMessageRow>(
    `select id, message_id, has_id, received_from, protocol, content_type, message_key, headers, encode(body, 'hex') as body, is_cut
     from bus.quarantined_messages where id = $1 and state = 'retrying'`,
    [id],
  )
  const [row] = rows
  if (row === undefined) return
  const prepared = await prepareRow(parts, row)
  try {
    await finish(parts, id, prepared)
  } catch (error) {
    if (!isRefusal(error)) throw error
    await finish(parts, id, { message: prepared.message, poison: poisonOf(toBusError(error)) })
  }
  await database.faultPoint?.('receive.retry-committed')
}

async function prepareRow(parts: StoreParts & PrepareParts, row: StoredMessageRow): Promise<PreparedMessage> {
  const message = messageOf(row)
  if (row.is_cut)
    return {
      message,
      poison: {
        code: 'BUS_MESSAGE_TOO_LARGE',
        reason: 'The message is too large: a part of it is not stored, so it cannot be tried again',
      },
    }
  return prepareMessage(parts, message, row.has_id ? row.message_id : undefined)
}

/**
 * In one transaction: the events of a message, and the state of its row.
 *
 * Locks: the row, then those of `bus.store_events`. Repeating: does nothing, because the row is no longer `retrying`.
 */
async function finish(
  { database, telemetry }: StoreParts & { readonly database: Database },
  id: string,
  prepared: PreparedMessage,
): Promise<void> {
  await database.transaction(async (client) => {
    const { rows } = await client.query(
      `select from bus.quarantined_messages where id = $1 and state = 'retrying' for update`,
      [id],
    )
    if (rows.length === 0) return
    if (prepared.poison === undefined) {
      const eventIds: string[] = []
      for (const call of inCalls(prepared.events)) eventIds.push(...(await send({ telemetry }, client, call)))
      await client.query(
        `update bus.quarantined_messages set state = 'stored', event_ids = $2 where id = $1`,
        [id, eventIds],
      )
    } else {
      await client.query(
        `update bus.quarantined_messages set state = 'new', code = $2, reason = $3 where id = $1`,
        [id, prepared.poison.code, prepared.poison.reason],
      )
    }
    await database.faultPoint?.('receive.retry-written')
  })
}
