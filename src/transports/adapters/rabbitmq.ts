import type { ConfirmChannel, Message, Options } from 'amqplib'
import {
  assertObject,
  booleanOption,
  describe,
  integerOption,
  invalidOption,
  refuseUnknownKeys,
} from '../../foundation/options.ts'
import { boundedCall } from '../sending/bounded-call.ts'
import { closedError, createConnectedTransport, loadPackage } from '../sending/connected-transport.ts'
import { destinationOption, type Destination } from '../sending/destination.ts'
import { createEncoder, type EncodedEvent, type EnvelopeOptions } from '../sending/envelope.ts'
import { encodeAndSendInKeyOrder } from '../sending/in-key-order.ts'
import { delivered, type PublishResult, type Transport } from '../sending/transport.ts'
import type { TransportUrl } from '../sending/transport-url.ts'

/** What the transport needs of a connection of amqplib, recovering or not. */
export interface RabbitmqConnection {
  readonly createConfirmChannel: () => Promise<ConfirmChannel>
}

/** Options of {@link rabbitmq}. */
export interface RabbitmqOptions extends EnvelopeOptions {
  /** A connection of amqplib. It stays yours; the transport opens a confirm channel in it, and another one when that is closed. */
  readonly connection: RabbitmqConnection
  /** An exchange that exists; `''` is the default exchange, whose routing keys are names of queues. */
  readonly exchange: string
  /** @defaultValue the type of the event */
  readonly routingKey?: Destination | undefined
  /** Whether messages survive a restart of the broker, in durable queues. @defaultValue `true` */
  readonly persistent?: boolean | undefined
  /** Whether an event that no queue takes is a failed attempt. Without it the broker drops it, and the event counts as delivered. @defaultValue `true` */
  readonly mandatory?: boolean | undefined
  /** The largest message. @defaultValue `16_777_216` */
  readonly maxBytes?: number | undefined
  /** How long a confirmation may take. @defaultValue `30` */
  readonly timeoutSeconds?: number | undefined
}

const optionNames = [
  ...['connection', 'exchange', 'routingKey', 'persistent', 'mandatory', 'maxBytes', 'timeoutSeconds'],
  ...['envelope', 'claimCheck'],
]

/** The client cannot encode more. */
const maxHeaderBytes = 60_000
const maxInFlight = 500

/**
 * Sends events to an exchange of RabbitMQ, with publisher confirms: an event is delivered when the broker has it on disk, or in a quorum queue on
 * a majority. Its id is the `messageId`; the broker does not remove duplicates. Events with the same key are confirmed one by one.
 *
 * @throws a `ConfigurationError` `BUS_INVALID_OPTION`
 */
export function rabbitmq(options: RabbitmqOptions): Transport {
  assertObject('options like { connection, exchange }', options)
  refuseUnknownKeys(options, optionNames, 'rabbitmq')
  const { connection, exchange } = options
  if (typeof (connection as Partial<RabbitmqConnection> | undefined)?.createConfirmChannel !== 'function')
    throw invalidOption(
      `Expected \`connection\` to be a connection of amqplib, got ${describe(connection)}`,
      'connection',
    )
  if (typeof exchange !== 'string' || exchange.length > 127)
    throw invalidOption(
      `Expected \`exchange\` to be a text of at most 127 characters, got ${describe(exchange)}`,
      'exchange',
    )
  const routingKeyOf = destinationOption(
    'routingKey',
    options.routingKey ?? (({ type }) => type),
    routingKeyProblem,
  )
  const persistent = booleanOption('persistent', options.persistent, true)
  const mandatory = booleanOption('mandatory', options.mandatory, true)
  const maxBytes = integerOption('maxBytes', options.maxBytes, {
    min: 1,
    max: 134_217_728,
    default: 16_777_216,
  })
  const timeoutMs =
    1000 * integerOption('timeoutSeconds', options.timeoutSeconds, { min: 1, max: 300, default: 30 })
  const encode = createEncoder(options, { protocol: 'amqp', maxBytes })
  /** Messages that no queue took, until their confirmation. */
  const returned = new Map<string, string>()
  const openChannels = new Set<ConfirmChannel>()
  let opening: Promise<ConfirmChannel> | undefined
  let isClosed = false

  async function openChannel(): Promise<ConfirmChannel> {
    if (isClosed) throw closedError('rabbitmq')
    const attempt = (opening ??= prepare())
    attempt.catch(() => forget(attempt))
    return attempt
  }

  function forget(attempt: Promise<ConfirmChannel>): void {
    if (opening === attempt) opening = undefined
  }

  async function prepare(): Promise<ConfirmChannel> {
    const channel = await connection.createConfirmChannel()
    const attempt = opening
    openChannels.add(channel)
    // A channel that is closed is of no use: the next call opens another one. Without a listener an error would end the process.
    channel.on('error', () => {})
    channel.on('close', () => {
      openChannels.delete(channel)
      returned.clear()
      if (attempt !== undefined) forget(attempt)
    })
    channel.on('return', ({ properties, fields }: Message) => {
      const { replyText } = fields as { replyText?: unknown }
      if (typeof properties.messageId === 'string') returned.set(properties.messageId, String(replyText))
    })
    // The connection came back after `close`.
    if (isClosed) await closeChannels()
    return channel
  }

  async function closeChannels(): Promise<void> {
    await Promise.allSettled([...openChannels].map(async (channel) => channel.close()))
  }

  async function send(
    message: EncodedEvent,
    channel: ConfirmChannel,
    signal: AbortSignal,
  ): Promise<PublishResult> {
    const { event, body, contentType, headers, bytes } = message
    const routingKey = routingKeyOf(event)
    const headerLimit = headerLimitOf(channel)
    if (bytes - body.length > headerLimit)
      return { status: 'rejected', error: new Error(`the headers have more than ${headerLimit} bytes`) }
    const properties: Options.Publish = {
      ...{ contentType, headers: { ...headers }, messageId: event.id, persistent, mandatory },
      timestamp: Math.floor(event.createdAt.getTime() / 1000),
      ...(isShort(event.type) ? { type: event.type } : {}),
      ...(isShort(event.correlationId) ? { correlationId: event.correlationId } : {}),
    }
    returned.delete(event.id)
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    channel.publish(exchange, routingKey, body, properties, (error: unknown) => {
      if (error === null || error === undefined) resolve()
      else reject(error instanceof Error ? error : new Error('the broker refused the message'))
    })
    try {
      await boundedCall(promise, { signal, timeoutMs })
    } catch (error) {
      return { status: 'retry', error }
    }
    const reason = returned.get(event.id)
    if (reason === undefined) return delivered
    returned.delete(event.id)
    return { status: 'retry', error: new Error(`no queue takes the message: ${reason}`) }
  }

  return {
    name: 'rabbitmq',
    order: 'key',
    maxEvents: 500,
    async publish(events, { signal }) {
      const channel = await boundedCall(openChannel(), { signal, timeoutMs })
      const sendOne = async (message: EncodedEvent): Promise<PublishResult> => send(message, channel, signal)
      return encodeAndSendInKeyOrder(events, encode, sendOne, maxInFlight)
    },
    async check({ signal }) {
      const channel = await boundedCall(openChannel(), { signal, timeoutMs })
      if (exchange !== '') await boundedCall(checkExchange(channel), { signal, timeoutMs })
    },
    async close() {
      isClosed = true
      // One that is being opened is closed when it is there: that may take as long as the broker is down.
      await closeChannels()
    },
  }

  /** If the exchange is missing the broker closes the channel with the reason. */
  async function checkExchange(channel: ConfirmChannel): Promise<void> {
    await channel.checkExchange(exchange)
  }
}

/** `amqp://user:password@host/vhost?exchange=events&routingKey=orders`, or `amqps:`. */
export function rabbitmqFromUrl(given: TransportUrl): Transport {
  given.host(5672)
  const exchange = given.required('exchange')
  const routingKey = given.text('routingKey')
  const envelope = given.choice('envelope', ['structured', 'binary', 'raw'])
  const mandatory = given.flag('mandatory', true)
  const url = new URL(given.url)
  url.search = ''
  return createConnectedTransport({
    ...{ name: 'rabbitmq', order: 'key', maxEvents: 500 },
    load: async () => loadPackage('amqplib', async () => import('amqplib')),
    async connect({ connect }) {
      const connection = await connect(url.href, {
        recovery: { maxRetries: Infinity, initialMaxRetries: 0, maxDelay: 5000 },
      })
      connection.on('error', () => {})
      const transport = rabbitmq({ connection, exchange, routingKey, envelope, mandatory })
      return { transport, end: async () => connection.close() }
    },
  })
}

/** Headers larger than a frame of the connection would end it. */
function headerLimitOf({ connection }: ConfirmChannel): number {
  const { frameMax } = Object(connection) as { frameMax?: unknown }
  return typeof frameMax === 'number' && frameMax > 2048
    ? Math.min(maxHeaderBytes, frameMax - 1024)
    : maxHeaderBytes
}

/** What a property of a message can hold. */
function isShort(text: string | undefined): text is string {
  return text !== undefined && Buffer.byteLength(text) <= 255
}

function routingKeyProblem(key: string): string | undefined {
  return Buffer.byteLength(key) <= 255 ? undefined : 'to have at most 255 bytes'
}
