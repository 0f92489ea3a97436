import type { StoredEvent } from '../../events/envelope.ts'
import { BusError } from '../../foundation/errors.ts'
import type { PublishResult } from './transport.ts'

/** Sends messages, in their order, and resolves to a result for each. */
export type SendMessages<M> = (messages: readonly M[]) => Promise<readonly PublishResult[]>

/**
 * Encodes events, sends those that can be encoded, and puts the results of all in the order of the events. An event that can never be
 * encoded is rejected; one whose payload could not be stored elsewhere is retried.
 */
export async function encodeAndSend<M>(
  events: readonly StoredEvent[],
  encode: (event: StoredEvent) => Promise<M>,
  send: SendMessages<M>,
): Promise<PublishResult[]> {
  const encoded = await Promise.allSettled(events.map(async (event) => encode(event)))
  const messages = encoded.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []))
  const sent = messages.length === 0 ? [] : await send(messages)
  let next = 0
  return encoded.map((each): PublishResult => {
    if (each.status === 'rejected') return failedToEncode(each.reason)
    const result = sent[next] ?? { status: 'retry', error: new Error('no result for the message') }
    next += 1
    return result
  })
}

/** The result of an event that could not be encoded. */
export function failedToEncode(error: unknown): PublishResult {
  return { status: error instanceof BusError ? 'rejected' : 'retry', error }
}
