import type { StoredEvent } from '../../events/envelope.ts'
import { encodeAndSend, type SendMessages } from './encode-all.ts'
import type { PublishResult } from './transport.ts'

/**
 * Like `encodeAndSend`, for systems that keep the events of a key in order: the second event of a key is sent when the first has been
 * acknowledged. After one that was not, no later one of its key is sent. So a call takes as many turns as a key has events: one, from the
 * bus, which sends an event of a key when it has the receipt of the last.
 *
 * @param keyOf - undefined for an event without a key
 */
export async function encodeAndSendInOrder<M>(
  events: readonly StoredEvent[],
  encode: (event: StoredEvent) => Promise<M>,
  keyOf: (event: StoredEvent) => string | undefined,
  send: SendMessages<M>,
): Promise<PublishResult[]> {
  const results = Array.from<PublishResult | undefined>({ length: events.length })
  const lanes = Map.groupBy(events.keys(), (index) => {
    const event = events[index]
    // A number is the key of no event.
    return (event === undefined ? undefined : keyOf(event)) ?? index
  })
  let open = [...lanes.values()]
  for (let turn = 0; open.length > 0; turn += 1) {
    const indexes = open.flatMap((lane) => lane[turn] ?? [])
    const sent = await encodeAndSend(
      indexes.flatMap((index) => events[index] ?? []),
      encode,
      send,
    )
    for (const [n, index] of indexes.entries()) results[index] = sent[n]
    open = open.filter((lane) => lane.length > turn + 1 && results[lane[turn] ?? -1]?.status === 'delivered')
  }
  return results.map((result) => result ?? { status: 'retry', error: new Error(heldBack) })
}

const heldBack = 'an earlier event of its key was not delivered'
