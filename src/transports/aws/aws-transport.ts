import type { StoredEvent } from '../../events/envelope.ts'
import { integerOption } from '../../foundation/options.ts'
import { closedError } from '../sending/connected-transport.ts'
import { encodeAndSend } from '../sending/encode-all.ts'
import { encodeAndSendInOrder } from '../sending/encode-in-order.ts'
import type { EncodedEvent } from '../sending/envelope.ts'
import { inRequests } from '../sending/in-requests.ts'
import { delivered, everyResult, type PublishResult, type Transport } from '../sending/transport.ts'
import { entryError, resultOfError } from './aws-errors.ts'
import { orderKey } from './aws-message.ts'

/** Entries that a request of SNS, SQS and EventBridge may have. */
const maxEntries = 10

/** So that a call has ten requests under way: with four calls at a time fewer than the 50 connections that the SDK opens. */
export const maxEvents = 100

/** What differs between the services. */
export interface AwsTransportParts {
  readonly name: string
  readonly order: Transport['order']
  readonly encode: (event: StoredEvent) => Promise<EncodedEvent>
  /** Of all messages of a request together. */
  readonly maxRequestBytes: number
  /** Sends one request, and resolves to a result for each message. */
  readonly request: (messages: readonly EncodedEvent[], signal: AbortSignal) => Promise<PublishResult[]>
  readonly open: () => Promise<void>
  readonly check: (signal: AbortSignal) => Promise<unknown>
}

export function createAwsTransport(parts: AwsTransportParts): Transport {
  const { name, order, encode, maxRequestBytes, request } = parts
  const running = new Set<Promise<unknown>>()
  let isClosed = false

  /** Never rejects. */
  async function send(messages: readonly EncodedEvent[], signal: AbortSignal): Promise<PublishResult[]> {
    try {
      return await request(messages, signal)
    } catch (error) {
      const result = resultOfError(error)
      if (result.status !== 'rejected' || messages.length === 1) return everyResult(messages.length, result)
      // The request was refused because of a message of it: the others are not to blame.
      return (await Promise.all(messages.map(async (message) => send([message], signal)))).flat()
    }
  }

  async function sendAll(messages: readonly EncodedEvent[], signal: AbortSignal): Promise<PublishResult[]> {
    const requests = inRequests(messages, { count: maxEntries, bytes: maxRequestBytes })
    return (await Promise.all(requests.map(async (each) => send(each, signal)))).flat()
  }

  async function publish(events: readonly StoredEvent[], signal: AbortSignal): Promise<PublishResult[]> {
    const sendMessages = async (messages: readonly EncodedEvent[]): Promise<PublishResult[]> =>
      sendAll(messages, signal)
    return order === 'key'
      ? encodeAndSendInOrder(events, encode, orderKey, sendMessages)
      : encodeAndSend(events, encode, sendMessages)
  }

  return {
    name,
    order,
    maxEvents,
    open: parts.open,
    async publish(events, { signal }) {
      if (isClosed) throw closedError(name)
      const call = publish(events, signal)
      running.add(call)
      try {
        return await call
      } finally {
        running.delete(call)
      }
    },
    async check({ signal }) {
      if (isClosed) throw closedError(name)
      await parts.check(signal)
    },
    async close() {
      isClosed = true
      await Promise.allSettled(running)
    },
  }
}

/** What SNS and SQS answer to a batch. Entries have their index as id. */
interface BatchAnswer {
  readonly Successful?: readonly { readonly Id?: string }[]
  readonly Failed?: readonly { readonly Id?: string; readonly Code?: string; readonly Message?: string }[]
}

/** The results of the entries of a batch: some may have failed though the request succeeded. */
export function resultsOfBatch(count: number, answer: unknown): PublishResult[] {
  const { Successful = [], Failed = [] } = (answer ?? {}) as BatchAnswer
  const results = everyResult(count, {
    status: 'retry',
    error: entryError(undefined, 'no result for the entry'),
  })
  for (const { Id } of Successful) if (Id !== undefined) results[Number(Id)] = delivered
  for (const { Id, Code, Message } of Failed)
    if (Id !== undefined) results[Number(Id)] = resultOfError(entryError(Code, Message))
  return results
}

/** The option `timeoutMs` of the transports to AWS. @throws a `ConfigurationError` `BUS_INVALID_OPTION` */
export function timeoutOption(timeoutMs: number | undefined): number {
  return integerOption('timeoutMs', timeoutMs, { min: 100, max: 600_000, default: 10_000 })
}
