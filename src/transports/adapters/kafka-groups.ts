import { describe, invalidOption } from '../../foundation/options.ts'
import { messageHeaders, type ReceivedMessage } from '../receiving/source.ts'

/** A message of `@platformatic/kafka`. */
export interface PlatformaticMessage {
  readonly topic: string
  readonly partition: number
  readonly offset: bigint
  readonly leaderEpoch: number
  readonly key: Buffer | null | undefined
  readonly value: Buffer | null | undefined
  readonly headers: ReadonlyMap<unknown, unknown>
}

/** What `consume` of `@platformatic/kafka` gives. */
export interface PlatformaticStream {
  read(): PlatformaticMessage | null
  on(event: 'readable' | 'close' | 'end', listener: () => void): unknown
  on(event: 'error', listener: (error: Error) => void): unknown
  close(): Promise<void>
  readonly destroyed: boolean
  readonly readableEnded: boolean
}

/** A `Consumer` of `@platformatic/kafka`, without deserializers. */
export interface PlatformaticConsumer {
  consume(options: {
    topics: string[]
    autocommit: false
    mode: 'committed'
    fallbackMode: 'earliest' | 'latest'
    highWaterMark: number
  }): Promise<PlatformaticStream>
  commit(options: {
    offsets: { topic: string; partition: number; offset: bigint; leaderEpoch: number }[]
  }): Promise<void>
  metadata(options: { topics: string[]; forceUpdate: boolean }): Promise<unknown>
  leaveGroup(force: boolean): Promise<void>
  readonly assignments: readonly { readonly topic: string; readonly partitions: readonly number[] }[] | null
  on(event: string, listener: (payload: never) => void): unknown
  off(event: string, listener: (payload: never) => void): unknown
}

/** A message of `kafkajs`. */
interface KafkaJsMessage {
  readonly key: Buffer | null
  readonly value: Buffer | null
  readonly offset: string
  readonly headers?: Readonly<Record<string, unknown>> | undefined
}

/** A consumer of `kafkajs`. */
export interface KafkaJsConsumer {
  connect(): Promise<void>
  subscribe(options: { topics: string[]; fromBeginning: boolean }): Promise<void>
  run(options: {
    autoCommit: false
    eachBatchAutoResolve: false
    eachBatch: (call: KafkaJsBatch) => Promise<void>
  }): Promise<void>
  commitOffsets(offsets: { topic: string; partition: number; offset: string }[]): Promise<void>
  stop(): Promise<void>
  on(
    event: 'consumer.crash',
    listener: (event: { payload: { error: Error; restart: boolean } }) => void,
  ): () => void
}

interface KafkaJsBatch {
  readonly batch: {
    readonly topic: string
    readonly partition: number
    readonly messages: readonly KafkaJsMessage[]
  }
  resolveOffset(offset: string): void
  heartbeat(): Promise<void>
  isRunning(): boolean
  isStale(): boolean
}

/** What to read. */
export interface ReadOptions {
  readonly topics: readonly string[]
  readonly startAt: 'earliest' | 'latest'
  readonly batchSize: number
}

type StoreMessages = (messages: readonly ReceivedMessage[]) => Promise<void>
type ReportFailure = (error: unknown) => void

/** A member of a consumer group. */
export interface KafkaGroup {
  /** Hears what the client says by itself, until the function that it returns is called. */
  readonly watch: (report: ReportFailure) => () => void
  /**
   * Joins, and stores messages in batches: after each, its offsets are committed. Resolves when the signal is aborted, after the batch
   * that is being stored. Rejects when the client has given up: call it again.
   */
  readonly read: (store: StoreMessages, signal: AbortSignal, report: ReportFailure) => Promise<void>
  /** Others get its partitions at once. */
  readonly leave: () => Promise<void>
  readonly check: () => Promise<void>
}

/** @throws a `ConfigurationError` `BUS_INVALID_OPTION` */
export function groupOf(consumer: unknown, options: ReadOptions): KafkaGroup {
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

function platformaticGroup(consumer: PlatformaticConsumer, options: ReadOptions): KafkaGroup {
  const { topics, startAt, batchSize } = options
  /** Ends the reading that runs. */
  let fail: ((error: Error) => void) | undefined

  /** Of partitions that are still its own: the next owner of another knows better. */
  async function commit(batch: readonly PlatformaticMessage[]): Promise<void> {
    const last = new Map(batch.map((message) => [`${message.topic}/${message.partition}`, message]))
    const offsets = [...last.values()]
      .filter(({ topic, partition }) =>
        consumer.assignments?.some((own) => own.topic === topic && own.partitions.includes(partition)),
      )
      .map(({ topic, partition, offset, leaderEpoch }) => ({
        topic,
        partition,
        offset: offset + 1n,
        leaderEpoch: leaderEpoch ?? -1,
      }))
    if (offsets.length > 0) await consumer.commit({ offsets })
  }

  return {
    watch(report) {
      // Without a listener, a group that cannot be joined again would end the process.
      const onError = (error: Error): void => {
        if (fail === undefined) report(error)
        else fail(error)
      }
      const onStalled = (): void => onError(new Error('the heartbeats of the consumer group have stopped'))
      consumer.on('error', onError)
      consumer.on('consumer:heartbeat:stalled', onStalled)
      return () => {
        consumer.off('error', onError)
        consumer.off('consumer:heartbeat:stalled', onStalled)
      }
    },
    async read(store, signal, report) {
      const stream = await consumer.consume({
        topics: [...topics],
        autocommit: false,
        mode: 'committed',
        fallbackMode: startAt,
        highWaterMark: batchSize,
      })
      let failure: Error | undefined
      let news = Promise.withResolvers<void>()
      const wake = (): void => news.resolve()
      fail = (error) => {
        failure ??= error
        wake()
      }
      // It stays for as long as the stream: without it, the stream would fetch no more.
      stream.on('readable', wake)
      stream.on('end', wake)
      stream.on('close', wake)
      stream.on('error', fail)
      signal.addEventListener('abort', wake)
      try {
        while (!signal.aborted) {
          if (failure !== undefined) throw failure
          news = Promise.withResolvers()
          const batch = takeFrom(stream, batchSize)
          if (batch.length > 0) {
            await store(batch.map(toMessage))
            await commit(batch).catch(report)
          } else if (stream.destroyed || stream.readableEnded) {
            throw new Error('the consumer has stopped reading')
          } else {
            await news.promise
          }
        }
      } finally {
        signal.removeEventListener('abort', wake)
        fail = undefined
        await stream.close().catch(() => {})
      }
    },
    leave: async () => consumer.leaveGroup(true),
    async check() {
      await consumer.metadata({ topics: [...topics], forceUpdate: true })
    },
  }
}

function takeFrom(stream: PlatformaticStream, most: number): PlatformaticMessage[] {
  const batch: PlatformaticMessage[] = []
  while (batch.length < most) {
    const message = stream.read()
    if (message === null) break
    batch.push(message)
  }
  return batch
}

/** How often `kafkajs` is told, during a batch, that it still runs. It sends no more heartbeats than it has to. */
const heartbeatMs = 1000

function kafkaJsGroup(consumer: KafkaJsConsumer, options: ReadOptions): KafkaGroup {
  const { topics, startAt, batchSize } = options

  async function storeBatch(call: KafkaJsBatch, store: StoreMessages, report: ReportFailure): Promise<void> {
    const { topic, partition, messages } = call.batch
    for (let at = 0; at < messages.length; at += batchSize) {
      // What is left is read again, by whoever has the partition then.
      if (!call.isRunning() || call.isStale()) return
      const some = messages.slice(at, at + batchSize)
      const last = some.at(-1)
      if (last === undefined) return
      const beating = setInterval(() => void call.heartbeat().catch(() => {}), heartbeatMs)
      try {
        await store(some.map((message) => toMessage({ topic, partition, ...message })))
      } finally {
        clearInterval(beating)
      }
      call.resolveOffset(last.offset)
      const offset = String(BigInt(last.offset) + 1n)
      await consumer.commitOffsets([{ topic, partition, offset }]).catch(report)
    }
  }

  return {
    watch: () => () => {},
    async read(store, signal, report) {
      const ended = Promise.withResolvers<void>()
      const stop = (): void => ended.resolve()
      signal.addEventListener('abort', stop)
      const unlisten = consumer.on('consumer.crash', ({ payload: { error, restart } }) => {
        if (restart) report(error)
        else ended.reject(error)
      })
      try {
        await consumer.connect()
        await consumer.subscribe({ topics: [...topics], fromBeginning: startAt === 'earliest' })
        await consumer.run({
          autoCommit: false,
          eachBatchAutoResolve: false,
          async eachBatch(call) {
            await storeBatch(call, store, report).catch((error: unknown) => {
              if (!signal.aborted) throw error
            })
          },
        })
        if (!signal.aborted) await ended.promise
      } finally {
        signal.removeEventListener('abort', stop)
        unlisten()
        await consumer.stop()
      }
    },
    async leave() {},
    check: async () => consumer.connect(),
  }
}

/** A message of either client. */
interface ClientMessage {
  readonly topic: string
  readonly partition: number
  readonly offset: bigint | string
  readonly key: Buffer | null | undefined
  readonly value: Buffer | null | undefined
  readonly headers?: ReadonlyMap<unknown, unknown> | Readonly<Record<string, unknown>> | undefined
}

function toMessage({ topic, partition, offset, key, value, headers = {} }: ClientMessage): ReceivedMessage {
  const entries = headers instanceof Map ? headers : Object.entries(headers)
  const { 'content-type': contentType, ...others } = messageHeaders(
    entries as Iterable<readonly [unknown, unknown]>,
  )
  return {
    id: `${topic}/${partition}/${offset}`,
    body: value ?? Buffer.alloc(0),
    headers: others,
    contentType,
    key: key?.toString('utf8'),
    from: topic,
    protocol: 'kafka',
  }
}
