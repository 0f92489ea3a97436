import type { Channel, ConsumeMessage } from 'amqplib'
import {
  assertObject,
  describe,
  integerOption,
  invalidOption,
  refuseUnknownKeys,
} from '../../foundation/options.ts'
import { createReadingSource, type Reading } from '../receiving/reading-source.ts'
import { messageHeaders, type ReceivedMessage, type Source } from '../receiving/source.ts'

/** What the source needs of a connection of amqplib, recovering or not. */
export interface RabbitmqSourceConnection {
  readonly createChannel: () => Promise<Channel>
}

/** Options of {@link rabbitmqSource}. */
export interface RabbitmqSourceOptions {
  /** A connection of amqplib. It stays yours; the source opens a channel in it, and another one when that is closed. */
  readonly connection: RabbitmqSourceConnection
  /** A queue that exists. */
  readonly queue: string
  /** How many messages are on their way or being stored: the most of one transaction. @defaultValue `200` */
  readonly prefetch?: number | undefined
}

/**
 * Reads a queue of RabbitMQ for `bus.receive`. Messages are acknowledged after the database has committed the events, and given back to the
 * queue when the source stops before. The id of a message is its `messageId`. For messages without one, `map` returns an `eventId` or an
 * `idempotencyKey`; else they go into the quarantine.
 *
 * @throws a `ConfigurationError` `BUS_INVALID_OPTION`
 */
export function rabbitmqSource(options: RabbitmqSourceOptions): Source {
  assertObject('options like { connection, queue }', options)
  refuseUnknownKeys(options, ['connection', 'queue', 'prefetch'], 'rabbitmqSource')
  const { connection, queue } = options
  if (typeof (connection as Partial<RabbitmqSourceConnection> | undefined)?.createChannel !== 'function')
    throw invalidOption(
      `Expected \`connection\` to be a connection of amqplib, got ${describe(connection)}`,
      'connection',
    )
  if (typeof queue !== 'string' || queue === '' || Buffer.byteLength(queue) > 255)
    throw invalidOption(`Expected \`queue\` to have 1 to 255 bytes, got ${describe(queue)}`, 'queue')
  const prefetch = integerOption('prefetch', options.prefetch, { min: 1, max: 10_000, default: 200 })

  async function read({ store, signal }: Reading): Promise<void> {
    const channel = await opened(connection.createChannel(), signal)
    if (channel === undefined) return
    const waiting: ConsumeMessage[] = []
    let wake = Promise.withResolvers<void>()
    let failure: Error | undefined
    const end = (error?: Error): void => {
      failure ??= error
      wake.resolve()
    }
    const isOpen = (): boolean => failure === undefined && !signal.aborted
    channel.on('error', end)
    channel.on('close', () => end(new Error('the channel was closed')))
    const stop = (): void => wake.resolve()
    signal.addEventListener('abort', stop, { once: true })
    try {
      await channel.prefetch(prefetch)
      await channel.consume(queue, (message) => {
        if (message === null)
          return end(new Error('the broker has ended the consumer: is the queue deleted?'))
        waiting.push(message)
        wake.resolve()
      })
      while (isOpen()) {
        const batch = waiting.splice(0)
        if (batch.length > 0) await storeBatch(channel, batch, store)
        else await wake.promise
        wake = Promise.withResolvers<void>()
        if (waiting.length > 0 || !isOpen()) wake.resolve()
      }
      if (failure !== undefined) throw failure
    } finally {
      signal.removeEventListener('abort', stop)
      // What was not acknowledged goes back to the queue.
      await channel.close().catch(() => {})
    }
  }

  async function check(): Promise<void> {
    const channel = await connection.createChannel()
    channel.on('error', () => {})
    try {
      await channel.checkQueue(queue)
    } finally {
      await channel.close().catch(() => {})
    }
  }

  return createReadingSource({ name: 'rabbitmq', read, check })

  async function storeBatch(
    channel: Channel,
    batch: readonly ConsumeMessage[],
    store: Reading['store'],
  ): Promise<void> {
    await store(batch.map((message) => toMessage(message, queue)))
    // Those before it have been acknowledged already, or are of this batch.
    const last = batch.at(-1)
    if (last !== undefined) channel.ack(last, true)
  }
}

/** The channel, or undefined if the source stops before: while the broker is down, a connection that recovers has none. */
async function opened(opening: Promise<Channel>, signal: AbortSignal): Promise<Channel | undefined> {
  const { promise, resolve } = Promise.withResolvers<undefined>()
  const stop = (): void => resolve(undefined)
  signal.addEventListener('abort', stop, { once: true })
  try {
    const channel = signal.aborted ? undefined : await Promise.race([opening, promise])
    if (channel === undefined)
      void opening.then(
        async (late) => late.close(),
        () => {},
      )
    return channel
  } finally {
    signal.removeEventListener('abort', stop)
  }
}

function toMessage({ content, properties, fields }: ConsumeMessage, queue: string): ReceivedMessage {
  const { messageId, contentType, headers } = properties as {
    readonly messageId: unknown
    readonly contentType: unknown
    readonly headers: Readonly<Record<string, unknown>> | undefined
  }
  const { 'content-type': inHeaders, ...others } = messageHeaders(Object.entries(headers ?? {}))
  return {
    id: typeof messageId === 'string' && messageId !== '' ? messageId : undefined,
    body: content,
    headers: others,
    contentType: typeof contentType === 'string' ? contentType : inHeaders,
    key: fields.routingKey,
    from: queue,
    protocol: 'amqp',
  }
}
