import { setTimeout as pause } from 'node:timers/promises'
import {
  assertObject,
  describe,
  integerOption,
  invalidOption,
  refuseUnknownKeys,
} from '../../foundation/options.ts'
import { failureDelayMs } from '../../foundation/retry-delay.ts'
import { boundedCall } from '../sending/bounded-call.ts'
import { repeatUntilStored, type ReceivedMessage, type Source } from '../receiving/source.ts'
import type { KafkaGroup, ReadOptions } from '../kafka/kafka-group.ts'
import { kafkaJsGroup, type KafkaJsConsumer } from '../kafka/kafka-group-kafkajs.ts'
import { platformaticGroup, type PlatformaticConsumer } from '../kafka/kafka-group-platformatic.ts'
import { isTopic } from '../kafka/kafka-records.ts'

export type { KafkaJsConsumer } from '../kafka/kafka-group-kafkajs.ts'
export type { PlatformaticConsumer } from '../kafka/kafka-group-platformatic.ts'

/** Options of {@link kafkaSource}. */
export interface KafkaSourceOptions {
  /**
   * Yours: it is never closed, and does nothing else. Of `@platformatic/kafka` without deserializers, or of `kafkajs` 2. Processes with the
   * same group share the partitions.
   */
  readonly consumer: PlatformaticConsumer | KafkaJsConsumer
  /** One topic, or several. */
  readonly topics: string | readonly string[]
  /** Where a group begins that has committed no offset. @defaultValue `'earliest'` */
  readonly startAt?: 'earliest' | 'latest' | undefined
  /** The most messages that are stored in one transaction. @defaultValue `500` */
  readonly batchSize?: number | undefined
}

const name = 'kafka'

/** A check takes no longer, whatever the retries of the client are. */
const timeoutMs = 30_000

/**
 * Reads topics of Kafka for `bus.receive`. Offsets are committed after the database has committed the events, so that a message is read
 * again until it is stored. Its id is its topic, partition and offset: it becomes one event, however often it is read, and by whichever
 * process after partitions have moved. The messages of a partition are stored in their order.
 *
 * @throws a `ConfigurationError` `BUS_INVALID_OPTION`
 */
export function kafkaSource(options: KafkaSourceOptions): Source {
  assertObject('options like { consumer, topics }', options)
  refuseUnknownKeys(options, ['consumer', 'topics', 'startAt', 'batchSize'], 'kafkaSource')
  const group = groupOf(options.consumer, {
    topics: topicsOption(options.topics),
    startAt: startAtOption(options.startAt),
    batchSize: integerOption('batchSize', options.batchSize, { min: 1, max: 10_000, default: 500 }),
  })
  const stopping = new AbortController()
  let running: Promise<void> | undefined

  return {
    name,
    async start(receive, context) {
      const { signal } = stopping
      let failures = 0

      /** A call that has begun is not given up when the source stops, and is not repeated then. */
      async function store(messages: readonly ReceivedMessage[]): Promise<void> {
        const begun: typeof receive = async (given) => receive(given, { signal: context.signal })
        await repeatUntilStored(begun, messages, { signal }, context)
        failures = 0
      }

      async function run(): Promise<void> {
        const unwatch = group.watch(context.reportFailure)
        try {
          while (!signal.aborted) {
            try {
              await group.read(store, signal, context.reportFailure)
            } catch (error) {
              if (signal.aborted) break
              context.reportFailure(error)
            }
            await pause(failureDelayMs(failures), undefined, { signal }).catch(() => {})
            failures += 1
          }
          await group.leave().catch(context.reportFailure)
        } finally {
          unwatch()
        }
      }

      running ??= run()
    },
    async stop() {
      stopping.abort(new Error('the source was stopped'))
      await running
    },
    async check({ signal }) {
      signal.throwIfAborted()
      await boundedCall(group.check(), { signal, timeoutMs })
    },
  }
}

function groupOf(consumer: unknown, options: ReadOptions): KafkaGroup {
  const given = consumer as Partial<PlatformaticConsumer & KafkaJsConsumer> | null | undefined
  if (typeof given === 'object' && given !== null) {
    if (typeof given.run === 'function' && typeof given.subscribe === 'function')
      return kafkaJsGroup(given as KafkaJsConsumer, options)
    if (typeof given.consume === 'function' && typeof given.commit === 'function')
      return platformaticGroup(given as PlatformaticConsumer, options)
  }
  throw invalidOption(
    `Expected \`consumer\` to be a consumer of @platformatic/kafka or of kafkajs, got ${describe(consumer)}`,
    'consumer',
  )
}

function topicsOption(given: unknown): string[] {
  const topics: readonly unknown[] = Array.isArray(given) ? given : [given]
  if (topics.length > 0 && topics.every(isTopic)) return [...new Set(topics)]
  throw invalidOption(
    `Expected \`topics\` to be a topic, or several, each of 1 to 249 letters, digits, \`.\`, \`_\` and \`-\`, got ${describe(given)}`,
    'topics',
  )
}

function startAtOption(given: unknown): 'earliest' | 'latest' {
  const startAt = given ?? 'earliest'
  if (startAt === 'earliest' || startAt === 'latest') return startAt
  throw invalidOption(`Expected \`startAt\` to be 'earliest' or 'latest', got ${describe(given)}`, 'startAt')
}
