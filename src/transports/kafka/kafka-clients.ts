import { describe, invalidOption } from '../../foundation/options.ts'
import { partitionOf, type KafkaRecord } from './kafka-records.ts'

/** A `Producer` of `@platformatic/kafka`, without serializers. */
export interface PlatformaticProducer {
  send(options: {
    messages: {
      topic: string
      partition: number
      key?: Buffer
      value: Buffer
      headers: Map<Buffer, Buffer>
    }[]
    acks: number
  }): Promise<unknown>
  metadata(options: { topics: string[]; forceUpdate?: boolean }): Promise<KafkaMetadata>
}

/** What `metadata` of `@platformatic/kafka` gives. */
interface KafkaMetadata {
  readonly brokers: ReadonlyMap<number, unknown>
  readonly topics: ReadonlyMap<
    string,
    { readonly partitionsCount: number; readonly partitions: readonly { readonly leader: number }[] }
  >
}

/** A producer of `kafkajs`. */
export interface KafkaJsProducer {
  connect(): Promise<void>
  sendBatch(batch: {
    acks: number
    topicMessages: {
      topic: string
      messages: { key: Buffer | null; value: Buffer; headers: Record<string, string> }[]
    }[]
  }): Promise<unknown>
}

/** Why a record was not acknowledged. */
export interface RecordFailure {
  readonly error: unknown
  /** Of the Kafka protocol, if a broker has answered. */
  readonly code: number | undefined
}

/** Sends records by a client. */
export interface RecordSender {
  /** Sends records of one topic, and resolves to a failure for each, or undefined if all replicas in sync have it. */
  readonly send: (
    topic: string,
    records: readonly KafkaRecord[],
  ) => Promise<readonly (RecordFailure | undefined)[]>
  /** Resolves if brokers can be reached, and the topic, if it is known, can be written. */
  readonly check: (topic: string | undefined) => Promise<void>
}

/** NOT_LEADER_OR_FOLLOWER. */
const leaderMoved = 6

/** As many replicas as are in sync. The topic's `min.insync.replicas` says how many that must be. */
const allInSync = -1

/** @throws a `ConfigurationError` `BUS_INVALID_OPTION` */
export function senderOf(producer: unknown): RecordSender {
  const given = producer as Partial<PlatformaticProducer & KafkaJsProducer> | null | undefined
  if (typeof given === 'object' && given !== null) {
    if (typeof given.sendBatch === 'function' && typeof given.connect === 'function')
      return kafkaJsSender(given as KafkaJsProducer)
    if (typeof given.send === 'function' && typeof given.metadata === 'function')
      return platformaticSender(given as PlatformaticProducer)
  }
  throw invalidOption(
    `Expected \`producer\` to be a producer of @platformatic/kafka or of kafkajs, got ${describe(producer)}`,
    'producer',
  )
}

function platformaticSender(producer: PlatformaticProducer): RecordSender {
  let turn = Math.floor(Math.random() * 1000)
  /** The leaders may be others by now. */
  let isStale = false

  /** The partitions of a topic that have a leader which can be reached: the client would fail on others with an error of its own. */
  function partitionsOf(metadata: KafkaMetadata, topic: string): { count: number; led: number[] } {
    const found = metadata.topics.get(topic)
    if (found === undefined || found.partitionsCount === 0) throw new Error(`no partition of ${topic}`)
    const led = found.partitions.flatMap(({ leader }, index) => (metadata.brokers.has(leader) ? [index] : []))
    return { count: found.partitionsCount, led }
  }

  async function attempt(
    topic: string,
    records: readonly KafkaRecord[],
    forceUpdate: boolean,
  ): Promise<(RecordFailure | undefined)[]> {
    // The client keeps this for some seconds.
    const { count, led } = partitionsOf(await producer.metadata({ topics: [topic], forceUpdate }), topic)
    const isLed = new Set(led)
    const partitions = records.map(({ key }) => {
      if (key !== undefined) return partitionOf(key, count)
      turn += 1
      return led[turn % led.length]
    })
    const messages = records.flatMap(({ key, value, headers }, index) => {
      const partition = partitions[index]
      if (partition === undefined || !isLed.has(partition)) return []
      return [{ topic, partition, ...(key && { key }), value, headers: bufferHeaders(headers) }]
    })
    const codes = new Map<number, number>()
    let error: unknown
    if (messages.length > 0)
      try {
        await producer.send({ messages, acks: allInSync })
        for (const { partition } of messages) codes.set(partition, 0)
      } catch (thrown) {
        error = thrown
        collectAnswers(thrown, codes)
      }
    return partitions.map((partition) => {
      if (partition === undefined || !isLed.has(partition))
        return { error: new Error(`a partition of ${topic} has no leader`), code: leaderMoved }
      const code = codes.get(partition)
      return code === 0 ? undefined : { error, code }
    })
  }

  return {
    async send(topic, records) {
      const failures = await attempt(topic, records, isStale)
      // The client sends all partitions that a broker had to the new leader of one of them.
      const moved = records.filter((_, index) => failures[index]?.code === leaderMoved)
      if (moved.length > 0) {
        // What is known of the others stays known.
        const again = await attempt(topic, moved, true).catch(() => undefined)
        if (again !== undefined)
          for (const [index, record] of moved.entries()) failures[records.indexOf(record)] = again[index]
      }
      isStale = failures.some((failure) => failure !== undefined)
      return failures
    },
    async check(topic) {
      const metadata = await producer.metadata({
        topics: topic === undefined ? [] : [topic],
        forceUpdate: true,
      })
      if (topic === undefined) return
      const { count, led } = partitionsOf(metadata, topic)
      if (led.length < count) throw new Error(`${count - led.length} of ${count} partitions have no leader`)
    },
  }
}

const headerNames = new Map<string, Buffer>()

/** Names are few, values are many. */
function bufferHeaders(headers: KafkaRecord['headers']): Map<Buffer, Buffer> {
  return new Map(
    headers.map(([name, value]): [Buffer, Buffer] => {
      let bytes = headerNames.get(name)
      if (bytes === undefined) {
        bytes = Buffer.from(name)
        // Metadata may have any names.
        if (headerNames.size < 1000) headerNames.set(name, bytes)
      }
      return [bytes, Buffer.from(value)]
    }),
  )
}

interface ProduceResponse {
  readonly responses?: readonly {
    readonly partitionResponses?: readonly { readonly index: number; readonly errorCode: number }[]
  }[]
}

interface ClientError {
  /** What a call has produced although it failed. */
  readonly produced?: { readonly offsets?: readonly { readonly partition: number }[] }
  /** The answer of a broker, if one of its partitions has failed. */
  readonly response?: ProduceResponse
  readonly errors?: readonly unknown[]
  readonly cause?: unknown
  readonly apiCode?: unknown
  readonly code?: unknown
}

/**
 * What brokers have said of each partition, in an error of a call for one topic: 0 if one of the attempts was acknowledged. A call of the
 * client goes to several brokers, and each of them answers for each of its partitions.
 */
function collectAnswers(error: unknown, codes: Map<number, number>): void {
  for (const each of chainOf(error)) {
    for (const { partition } of each.produced?.offsets ?? []) codes.set(partition, 0)
    for (const { partitionResponses = [] } of each.response?.responses ?? [])
      for (const { index, errorCode } of partitionResponses)
        if (codes.get(index) !== 0) codes.set(index, errorCode)
  }
}

function kafkaJsSender(producer: KafkaJsProducer): RecordSender {
  let connecting: Promise<void> | undefined

  /** Connecting again does nothing to a producer that is connected. */
  async function connected(): Promise<void> {
    const attempt = (connecting ??= producer.connect())
    attempt.catch(() => {
      if (connecting === attempt) connecting = undefined
    })
    return attempt
  }

  return {
    async send(topic, records) {
      try {
        await connected()
        const messages = records.map(({ key, value, headers }) => ({
          key: key ?? null,
          value,
          headers: Object.fromEntries(headers),
        }))
        await producer.sendBatch({ acks: allInSync, topicMessages: [{ topic, messages }] })
        return records.map(() => undefined)
      } catch (error) {
        // The client does not say which of them were acknowledged.
        const failure: RecordFailure = { error, code: codeOf(error) }
        return records.map(() => failure)
      }
    },
    async check() {
      connecting = undefined
      await connected()
    },
  }
}

/** The code of the Kafka protocol in an error; undefined if a broker has not answered. */
export function codeOf(error: unknown): number | undefined {
  return chainOf(error)
    .map(({ apiCode, code }) => (typeof apiCode === 'number' ? apiCode : code))
    .findLast((code) => typeof code === 'number')
}

/** An error, its causes, and the errors in it. */
function chainOf(error: unknown, seen = new Set<unknown>()): ClientError[] {
  if (typeof error !== 'object' || error === null || seen.has(error)) return []
  seen.add(error)
  const { errors, cause }: ClientError = error
  const inside = Array.isArray(errors) ? (errors as readonly unknown[]) : []
  return [error, ...[...inside, cause].flatMap((each) => chainOf(each, seen))]
}
