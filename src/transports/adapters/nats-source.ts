import type { Consumer, ConsumerMessages, JsMsg } from '@nats-io/jetstream'
import {
  assertObject,
  describe,
  integerOption,
  invalidOption,
  refuseUnknownKeys,
} from '../../foundation/options.ts'
import { createReadingSource, type Reading } from '../receiving/reading-source.ts'
import { messageHeaders, type ReceivedMessage, type Source } from '../receiving/source.ts'

/** Options of {@link natsSource}. */
export interface NatsSourceOptions {
  /**
   * A durable pull consumer with explicit acknowledgements: `await jetstream(connection).consumers.get('orders', 'billing')`. The connection
   * stays yours. Processes with the same consumer share its messages.
   */
  readonly consumer: Pick<Consumer, 'consume' | 'info'>
  /** The most messages that are stored in one transaction. @defaultValue `200` */
  readonly batchSize?: number | undefined
}

/** Messages that are held at most. The server delivers no more than `max_ack_pending`, which is 1,000 by default. */
const maxHeld = 1000

/**
 * Reads a consumer of NATS JetStream for `bus.receive`. Messages are acknowledged after the database has committed the events; while that
 * takes long, the server is told that it is worked on. The id of a message is its stream, its sequence and the time of its storage: it
 * becomes one event, however often it is delivered.
 *
 * @throws a `ConfigurationError` `BUS_INVALID_OPTION`
 */
export function natsSource(options: NatsSourceOptions): Source {
  assertObject('options like { consumer }', options)
  refuseUnknownKeys(options, ['consumer', 'batchSize'], 'natsSource')
  const { consumer } = options
  const { consume, info } = Object(consumer) as Partial<Consumer>
  if (typeof consume !== 'function' || typeof info !== 'function')
    throw invalidOption(
      `Expected \`consumer\` to be a consumer of JetStream, got ${describe(consumer)}`,
      'consumer',
    )
  const batchSize = integerOption('batchSize', options.batchSize, { min: 1, max: 10_000, default: 200 })

  /** How long a message may be worked on without a word. */
  async function ackWaitMs(): Promise<number> {
    const { config } = await consumer.info()
    if (config.ack_policy !== 'explicit')
      throw new Error(`the consumer has the acknowledgement policy ${config.ack_policy}, not explicit`)
    return (config.ack_wait ?? 30e9) / 1e6
  }

  async function read({ store, signal }: Reading): Promise<void> {
    const workingMs = Math.max(100, (await ackWaitMs()) / 3)
    const messages = await consumer.consume({ max_messages: batchSize, abort_on_missing_resource: true })
    const held = holdMessages(messages, Math.max(batchSize, maxHeld), workingMs)
    const stop = (): void => held.stop()
    signal.addEventListener('abort', stop, { once: true })
    try {
      if (signal.aborted) return
      for (;;) {
        const batch = await held.first(batchSize)
        if (batch.length === 0) return
        await store(batch.map(toMessage))
        for (const message of batch) message.ack()
        held.remove(batch.length)
      }
    } finally {
      signal.removeEventListener('abort', stop)
      await held.end()
    }
  }

  return createReadingSource({ name: 'nats', read, check: ackWaitMs })
}

interface HeldMessages {
  /** Waits for messages, and gives the first; none when it is over. @throws what has ended the consumer */
  readonly first: (count: number) => Promise<readonly JsMsg[]>
  readonly remove: (count: number) => void
  readonly stop: () => void
  /** Gives the others back. */
  readonly end: () => Promise<void>
}

/** Holds what was delivered until it is stored, and tells the server that it is worked on: it is not delivered again meanwhile. */
function holdMessages(messages: ConsumerMessages, limit: number, workingMs: number): HeldMessages {
  const held: JsMsg[] = []
  let failure: { readonly error: unknown } | undefined
  let isOver = false
  let changed = Promise.withResolvers<void>()

  const timer = setInterval(() => {
    for (const message of held) message.working()
  }, workingMs)

  function change(): void {
    changed.resolve()
    changed = Promise.withResolvers()
  }

  function over(): void {
    isOver = true
    change()
  }

  async function take(): Promise<void> {
    try {
      for await (const message of messages) {
        if (isOver) message.nak()
        else held.push(message)
        change()
        while (held.length >= limit && !isOver) await changed.promise
      }
    } catch (error) {
      failure = { error }
    } finally {
      over()
    }
  }

  const taking = take()
  return {
    async first(count) {
      while (held.length === 0 && !isOver) await changed.promise
      if (failure !== undefined) throw failure.error
      return isOver ? [] : held.slice(0, count)
    },
    remove(count) {
      held.splice(0, count)
      change()
    },
    stop() {
      messages.stop()
      over()
    },
    async end() {
      clearInterval(timer)
      over()
      for (const message of held.splice(0)) message.nak()
      await messages.close()
      await taking
    },
  }
}

function toMessage({ data, headers, subject, info, timestampNanos }: JsMsg): ReceivedMessage {
  const names = headers?.keys() ?? []
  const { 'content-type': contentType, ...others } = messageHeaders(
    names.map((name) => [name, headers?.values(name)] as const),
  )
  return {
    // A stream that is made anew counts from 1 again: the time tells them apart.
    id: `${info.stream}:${info.streamSequence}:${timestampNanos}`,
    body: data,
    headers: others,
    contentType,
    key: undefined,
    from: subject,
    protocol: 'nats',
  }
}
