import { assertObject, integerOption, refuseUnknownKeys } from '../../foundation/options.ts'
import { boundedCall } from '../sending/bounded-call.ts'
import { closedError, createConnectedTransport, loadPackage } from '../sending/connected-transport.ts'
import { destinationOption, type Destination } from '../sending/destination.ts'
import { encodeAndSend } from '../sending/encode-all.ts'
import { envelopeOption, type EnvelopeOptions } from '../sending/envelope.ts'
import { inRequests } from '../sending/in-requests.ts'
import { delivered, type PublishResult, type Transport } from '../sending/transport.ts'
import type { TransportUrl } from '../sending/transport-url.ts'
import {
  codeOf,
  senderOf,
  type KafkaJsProducer,
  type PlatformaticProducer,
  type RecordFailure,
  type RecordSender,
} from '../kafka/kafka-clients.ts'
import {
  batchOverheadBytes,
  createRecordEncoder,
  debeziumTopicOf,
  isTopic,
  type KafkaEnvelope,
  type KafkaRecord,
  type TopicOf,
} from '../kafka/kafka-records.ts'

export type { KafkaEnvelope } from '../kafka/kafka-records.ts'
export type { KafkaJsProducer, PlatformaticProducer } from '../kafka/kafka-clients.ts'

/** Options of {@link kafka}. */
export interface KafkaOptions extends EnvelopeOptions<KafkaEnvelope> {
  /** Yours: it is never closed. Of `@platformatic/kafka` without serializers, or of `kafkajs` 2. */
  readonly producer: PlatformaticProducer | KafkaJsProducer
  /**
   * One topic, or the topic of each event. Order holds within a topic.
   * @defaultValue `outbox.event.<type up to its first dot>` with the envelope `'debezium'`; required with others
   */
  readonly topic?: Destination | undefined
  /**
   * `max.message.bytes` of the topic: the largest batch that its brokers accept. An event that is larger, before compression, is rejected.
   * Lower it with a topic that accepts less; raise it with one that accepts more.
   * @defaultValue `1_048_588`, as brokers have it
   */
  readonly maxMessageBytes?: number | undefined
}

const name = 'kafka'
const order = 'key'
const maxEvents = 1000

/** A call takes no longer, whatever the retries of the client are. */
const timeoutMs = 120_000

/** What brokers say of an event that they will never accept; each event of a batch fails then. */
const permanentForOne: ReadonlySet<number | undefined> = new Set([
  10, // MESSAGE_TOO_LARGE
  18, // RECORD_LIST_TOO_LARGE
  32, // INVALID_TIMESTAMP
  87, // INVALID_RECORD
])

/** What brokers say of a topic that cannot exist, or takes no such records. */
const permanentForAll: ReadonlySet<number | undefined> = new Set([
  17, // INVALID_TOPIC_EXCEPTION
  43, // UNSUPPORTED_FOR_MESSAGE_FORMAT
])

/**
 * Sends events to Kafka. The partition is that of the Java client for the same key, so that consumers, streams and tables of others
 * find the events of a key where they expect them.
 *
 * @throws a `ConfigurationError` `BUS_INVALID_OPTION`
 */
export function kafka(options: KafkaOptions): Transport {
  assertObject('options like { producer, topic }', options)
  refuseUnknownKeys(options, ['producer', 'topic', 'envelope', 'claimCheck', 'maxMessageBytes'], 'kafka')
  const envelope = envelopeOption(options.envelope, ['structured', 'binary', 'raw', 'debezium'])
  const topicOf = topicOption(options.topic, envelope)
  const maxMessageBytes = maxMessageBytesOption(options.maxMessageBytes)
  const encode = createRecordEncoder(envelope, options.claimCheck, topicOf, maxMessageBytes)
  const sender = senderOf(options.producer)
  const limits = { count: maxEvents, bytes: maxMessageBytes - batchOverheadBytes }
  let isClosed = false

  async function sendAll(records: readonly KafkaRecord[], signal: AbortSignal): Promise<PublishResult[]> {
    const results = new Map<KafkaRecord, PublishResult>()
    const byTopic = [...Map.groupBy(records, ({ topic }) => topic)]
    await Promise.all(
      byTopic.map(async ([topic, ofTopic]) => {
        const run = createTopicRun(sender, topic, results, signal)
        // A request is a batch for each partition. The next one follows when it is acknowledged.
        for (const request of inRequests(ofTopic, limits)) await run(request)
      }),
    )
    return records.map((record) => results.get(record) ?? { status: 'retry', error: new Error('not sent') })
  }

  return {
    name,
    order,
    maxEvents,
    async publish(events, { signal }) {
      if (isClosed) throw closedError(name)
      signal.throwIfAborted()
      const sent = encodeAndSend(events, encode, async (records) => sendAll(records, signal))
      return boundedCall(sent, { signal, timeoutMs })
    },
    async check({ signal }) {
      signal.throwIfAborted()
      const checked = sender.check(typeof options.topic === 'string' ? options.topic : undefined)
      await boundedCall(checked, { signal, timeoutMs })
    },
    async close() {
      isClosed = true
    },
  }
}

/**
 * Sends requests of a topic, one after the other, and notes the results. A batch that brokers do not accept is cut, until it is known
 * which events they do not accept. After an event has failed, no later one of its key is sent.
 */
function createTopicRun(
  sender: RecordSender,
  topic: string,
  results: Map<KafkaRecord, PublishResult>,
  signal: AbortSignal,
): (request: readonly KafkaRecord[]) => Promise<void> {
  const failedKeys = new Set<string>()

  function note(record: KafkaRecord, result: PublishResult): void {
    results.set(record, result)
    if (result.status !== 'delivered' && record.key !== undefined) failedKeys.add(record.key.toString('hex'))
  }

  async function run(request: readonly KafkaRecord[]): Promise<void> {
    signal.throwIfAborted()
    const sent: KafkaRecord[] = []
    for (const record of request) {
      if (record.key !== undefined && failedKeys.has(record.key.toString('hex')))
        note(record, { status: 'retry', error: new Error('an earlier event of its key was not delivered') })
      else sent.push(record)
    }
    if (sent.length === 0) return
    const failures = await sender
      .send(topic, sent)
      .catch((error: unknown) => sent.map((): RecordFailure => ({ error, code: codeOf(error) })))
    const smaller: KafkaRecord[] = []
    for (const [index, record] of sent.entries()) {
      const failure = failures[index]
      if (failure === undefined) note(record, delivered)
      else if (sent.length > 1 && permanentForOne.has(failure.code)) smaller.push(record)
      else note(record, resultOf(failure))
    }
    const half = Math.ceil(smaller.length / 2)
    for (const part of [smaller.slice(0, half), smaller.slice(half)]) if (part.length > 0) await run(part)
  }
  return run
}

function resultOf({ error, code }: RecordFailure): PublishResult {
  const isPermanent = permanentForOne.has(code) || permanentForAll.has(code)
  return { status: isPermanent ? 'rejected' : 'retry', error }
}

function topicOption(given: Destination | undefined, envelope: KafkaEnvelope): TopicOf {
  if (given === undefined && envelope === 'debezium') return debeziumTopicOf
  return destinationOption('topic', given as Destination, (topic) =>
    isTopic(topic) ? undefined : 'to be 1 to 249 letters, digits, `.`, `_` and `-`',
  )
}

function maxMessageBytesOption(given: number | undefined): number {
  return integerOption('maxMessageBytes', given, { min: 1024, max: 268_435_456, default: 1_048_588 })
}

/** `kafka://user:pass@b1:9092,b2:9092/topic?sasl=scram-sha-512&tls=true&envelope=binary`. */
export function kafkaFromUrl(url: TransportUrl): Transport {
  const envelope = url.choice('envelope', ['structured', 'binary', 'raw', 'debezium'])
  const maxMessageBytes = url.integer('maxMessageBytes', 1024, 268_435_456)
  const { path } = url
  const topic = path === '' ? undefined : path
  if (topic === undefined && envelope !== 'debezium') throw url.refuse('the path, a topic, is missing')
  if (topic !== undefined && !isTopic(topic))
    throw url.refuse('a topic has 1 to 249 letters, digits, `.`, `_` and `-`')
  const client = kafkaClientOptions(url)
  return createConnectedTransport({
    name,
    order,
    maxEvents,
    load: async () => loadPackage('@platformatic/kafka', async () => import('@platformatic/kafka')),
    async connect({ Producer }) {
      const producer = new Producer({ ...client, retries: 2, retryDelay: 200 })
      return {
        transport: kafka({ producer, topic, envelope, maxMessageBytes }),
        end: async () => producer.close(),
      }
    },
  })
}

/** What a URL says of a client: brokers, TLS, and who it is. */
export interface KafkaClientOptions {
  readonly clientId: string
  readonly bootstrapBrokers: string[]
  readonly tls?: object
  readonly sasl?: {
    readonly mechanism: 'PLAIN' | 'SCRAM-SHA-256' | 'SCRAM-SHA-512'
    readonly username: string
    readonly password: string
  }
}

/** @throws a `ConfigurationError` `BUS_INVALID_TRANSPORT_URL` */
function kafkaClientOptions(url: TransportUrl): KafkaClientOptions {
  const { username, password } = url
  const chosen = url.choice('sasl', ['plain', 'scram-sha-256', 'scram-sha-512'])
  if (chosen !== undefined && (username === '' || password === ''))
    throw url.refuse('`sasl` needs a user and a password, as `kafka://user:password@host`')
  if (username === '' && password !== '') throw url.refuse('the user is missing')
  const tls = url.flag('tls', false)
  return {
    clientId: url.text('clientId') ?? 'bossbus',
    bootstrapBrokers: url.hosts(9092),
    ...(tls && { tls: {} }),
    ...(username !== '' && { sasl: { mechanism: mechanisms[chosen ?? 'plain'], username, password } }),
  }
}

const mechanisms = {
  plain: 'PLAIN',
  'scram-sha-256': 'SCRAM-SHA-256',
  'scram-sha-512': 'SCRAM-SHA-512',
} as const
