import type { StoredEvent } from '../../events/envelope.ts'
import { InvalidDestinationError } from './destination.ts'
import { failedToEncode } from './encode-all.ts'
import type { PublishResult } from './transport.ts'

/**
 * Sends messages one by one, those of different keys at the same time, at most `limit`. A key stops at the first event that fails: those
 * behind it are retried, so they never come before it.
 */
export async function sendInKeyOrder<M extends { readonly event: StoredEvent }>(
  messages: readonly M[],
  send: (message: M) => Promise<PublishResult>,
  limit: number,
): Promise<PublishResult[]> {
  const results = new Map<M, PublishResult>()
  const lines = [...linesOf(messages)].values()

  async function sendLine(line: readonly M[]): Promise<void> {
    for (const [index, message] of line.entries()) {
      const result = await send(message).catch(failedToSend)
      results.set(message, result)
      if (result.status === 'delivered') continue
      for (const behind of line.slice(index + 1)) results.set(behind, waitsBehind)
      return
    }
  }

  async function sendLines(): Promise<void> {
    for (const line of lines) await sendLine(line)
  }

  await Promise.all(Array.from({ length: Math.min(limit, messages.length) }, sendLines))
  return messages.map((message) => results.get(message) ?? waitsBehind)
}

/** As {@link sendInKeyOrder}, for events: a key stops also at one that cannot be encoded. */
export async function encodeAndSendInKeyOrder<M>(
  events: readonly StoredEvent[],
  encode: (event: StoredEvent) => Promise<M>,
  send: (message: M) => Promise<PublishResult>,
  limit: number,
): Promise<PublishResult[]> {
  async function encodeAndSendOne(event: StoredEvent): Promise<PublishResult> {
    const encoded = await encode(event).then(
      (message) => ({ message }),
      (error: unknown) => failedToEncode(error),
    )
    return 'status' in encoded ? encoded : send(encoded.message)
  }
  const messages = events.map((event) => ({ event }))
  return sendInKeyOrder(messages, async ({ event }) => encodeAndSendOne(event), limit)
}

function failedToSend(error: unknown): PublishResult {
  return { status: error instanceof InvalidDestinationError ? 'rejected' : 'retry', error }
}

const waitsBehind: PublishResult = Object.freeze({
  status: 'retry',
  error: new Error('an earlier event of its key was not delivered'),
})

/** The messages of each key; each without a key is a line of its own. */
function linesOf<M extends { readonly event: StoredEvent }>(messages: readonly M[]): Iterable<readonly M[]> {
  const lines = new Map<string, M[]>()
  for (const message of messages) {
    const { id, tenantId, orderingKey } = message.event
    const key = orderingKey === undefined ? id : JSON.stringify([tenantId, orderingKey])
    const line = lines.get(key)
    if (line === undefined) lines.set(key, [message])
    else line.push(message)
  }
  return lines.values()
}
