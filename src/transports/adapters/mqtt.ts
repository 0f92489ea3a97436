import type { IClientPublishOptions, MqttClient } from 'mqtt'
import {
  assertObject,
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
import { createLimit } from '../sending/limit.ts'
import { delivered, type PublishResult, type Transport } from '../sending/transport.ts'
import type { TransportUrl } from '../sending/transport-url.ts'

/** Options of {@link mqtt}. */
export interface MqttOptions extends EnvelopeOptions {
  /** A client of the package `mqtt`, with `protocolVersion: 5` for the envelopes `binary` and `raw`. It stays yours. */
  readonly client: MqttClient
  /** @defaultValue the type of the event, with `/` for each dot */
  readonly topic?: Destination | undefined
  /** 1: at least once. 2: exactly once up to the broker. @defaultValue `1` */
  readonly qos?: 1 | 2 | undefined
  /** The largest message. @defaultValue `262_144` */
  readonly maxBytes?: number | undefined
  /** How long an acknowledgement may take. @defaultValue `10` */
  readonly timeoutSeconds?: number | undefined
}

const optionNames = ['client', 'topic', 'qos', 'maxBytes', 'timeoutSeconds', 'envelope', 'claimCheck']

/** Of all calls together: a broker ends the connection of a client that has more than its `receive maximum`. HiveMQ has 10, Mosquitto 20. */
const maxInFlight = 10

/** Reason codes of MQTT 5. */
const tooLarge = 0x95
const quotaExceeded = 0x97
const formatInvalid = 0x99

/**
 * Sends events to a broker of MQTT, with QoS 1 or 2. MQTT has no key for duplicates: subscribers know them by the id of the event. Events with the
 * same key are acknowledged one by one.
 *
 * @throws a `ConfigurationError` `BUS_INVALID_OPTION`
 */
export function mqtt(options: MqttOptions): Transport {
  assertObject('options like { client }', options)
  refuseUnknownKeys(options, optionNames, 'mqtt')
  const { client, qos = 1, envelope } = options
  if (typeof (client as Partial<MqttClient> | undefined)?.publishAsync !== 'function')
    throw invalidOption(
      `Expected \`client\` to be a client of the package mqtt, got ${describe(client)}`,
      'client',
    )
  if (qos !== 1 && qos !== 2)
    throw invalidOption(`Expected \`qos\` to be 1 or 2, got ${describe(qos)}`, 'qos')
  const hasProperties = (client.options as Partial<MqttClient['options']> | undefined)?.protocolVersion === 5
  if (!hasProperties && envelope !== undefined && envelope !== 'structured')
    throw invalidOption(
      "Expected a client with `protocolVersion: 5`, or the envelope 'structured': older versions have no headers",
      'envelope',
    )
  const topicOf = destinationOption(
    'topic',
    options.topic ?? (({ type }) => type.replaceAll('.', '/')),
    topicProblem,
  )
  const maxBytes = integerOption('maxBytes', options.maxBytes, { min: 1, max: 268_435_455, default: 262_144 })
  const timeoutMs =
    1000 * integerOption('timeoutSeconds', options.timeoutSeconds, { min: 1, max: 300, default: 10 })
  const encode = createEncoder(options, { protocol: 'mqtt', maxBytes, overheadBytes: 100 })
  const limit = createLimit(maxInFlight)
  let isClosed = false

  async function send(message: EncodedEvent, signal: AbortSignal): Promise<PublishResult> {
    const { event, body, contentType, headers } = message
    const topic = topicOf(event)
    const properties: IClientPublishOptions['properties'] = {
      contentType,
      ...(Object.keys(headers).length === 0 ? {} : { userProperties: { ...headers } }),
    }
    // Offline the client would keep the message, and send it again after this process has retried it.
    if (!client.connected) return { status: 'retry', error: new Error('the client is not connected') }
    try {
      const call = client.publishAsync(topic, body, hasProperties ? { qos, properties } : { qos })
      await boundedCall(call, { signal, timeoutMs })
      return delivered
    } catch (error) {
      return resultOf(error)
    }
  }

  return {
    name: 'mqtt',
    order: 'key',
    maxEvents: 100,
    async publish(events, { signal }) {
      if (isClosed) throw closedError('mqtt')
      const sendOne = async (message: EncodedEvent): Promise<PublishResult> =>
        limit(async () => send(message, signal))
      return encodeAndSendInKeyOrder(events, encode, sendOne, maxInFlight)
    },
    async check() {
      if (!client.connected) throw new Error('the client is not connected')
    },
    async close() {
      isClosed = true
    },
  }
}

function resultOf(error: unknown): PublishResult {
  const { code } = Object(error) as { code?: unknown }
  if (code === tooLarge || code === formatInvalid) return { status: 'rejected', error }
  if (code === quotaExceeded) return { status: 'throttled', seconds: 5, error }
  return { status: 'retry', error }
}

/** `mqtt://user:password@host:1883/topic?qos=1`, or `mqtts:`. */
export function mqttFromUrl(given: TransportUrl): Transport {
  given.host(1883)
  const topic = given.path === '' ? undefined : given.path
  const problem = topic === undefined ? undefined : topicProblem(topic)
  if (problem !== undefined) throw given.refuse(`the topic is expected ${problem}`)
  const envelope = given.choice('envelope', ['structured', 'binary', 'raw'])
  const qos = given.choice('qos', ['1', '2']) === '2' ? 2 : 1
  const url = new URL(given.url)
  url.search = ''
  url.pathname = ''
  return createConnectedTransport({
    ...{ name: 'mqtt', order: 'key', maxEvents: 100 },
    load: async () => loadPackage('mqtt', async () => import('mqtt')),
    async connect({ connectAsync }) {
      const client = await connectAsync(url.href, { protocolVersion: 5, connectTimeout: 10_000 }, false)
      client.on('error', () => {})
      const transport = mqtt({ client, topic, envelope, qos })
      return { transport, end: async () => client.endAsync(true) }
    },
  })
}

function topicProblem(topic: string): string | undefined {
  const isTopic = topic !== '' && Buffer.byteLength(topic) <= 65_535 && !/[+#\p{Cc}]/u.test(topic)
  return isTopic ? undefined : 'to be a topic without `+` and `#`'
}
