import {
  toMessage,
  type KafkaGroup,
  type ReadOptions,
  type ReportFailure,
  type StoreMessages,
} from './kafka-group.ts'

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

/** How often `kafkajs` is told, during a batch, that it still runs. It sends no more heartbeats than it has to. */
const heartbeatMs = 1000

export function kafkaJsGroup(consumer: KafkaJsConsumer, options: ReadOptions): KafkaGroup {
  const { topics, startAt, batchSize } = options

  async function storeBatch(
    call: KafkaJsBatch,
    store: StoreMessages,
    signal: AbortSignal,
    report: ReportFailure,
  ): Promise<void> {
    const { topic, partition, messages } = call.batch
    for (let at = 0; at < messages.length; at += batchSize) {
      // What is left is read again, by whoever has the partition then.
      if (signal.aborted || !call.isRunning() || call.isStale()) return
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
      // It may be before anybody waits for it.
      ended.promise.catch(() => {})
      const stop = (): void => ended.resolve()
      signal.addEventListener('abort', stop)
      const unlisten = consumer.on('consumer.crash', ({ payload: { error, restart } }) => {
        if (restart) report(error)
        else ended.reject(error)
      })
      const storing = new Set<Promise<void>>()
      try {
        await consumer.connect()
        await consumer.subscribe({ topics: [...topics], fromBeginning: startAt === 'earliest' })
        await consumer.run({
          autoCommit: false,
          eachBatchAutoResolve: false,
          async eachBatch(call) {
            const stored = storeBatch(call, store, signal, report)
            storing.add(stored)
            try {
              await stored
            } catch (error) {
              if (!signal.aborted) throw error
            } finally {
              storing.delete(stored)
            }
          },
        })
        if (!signal.aborted) await ended.promise
      } finally {
        signal.removeEventListener('abort', stop)
        unlisten()
        // A consumer that is stopped commits no more.
        await Promise.allSettled(storing)
        await consumer.stop()
      }
    },
    async leave() {},
    check: async () => consumer.connect(),
  }
}
