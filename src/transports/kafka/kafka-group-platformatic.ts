import { toMessage, type KafkaGroup, type ReadOptions } from './kafka-group.ts'

/** A message of `@platformatic/kafka`. */
interface PlatformaticMessage {
  readonly topic: string
  readonly partition: number
  readonly offset: bigint
  readonly leaderEpoch: number
  readonly key: Buffer | null | undefined
  readonly value: Buffer | null | undefined
  readonly headers: ReadonlyMap<unknown, unknown>
}

/** What `consume` of `@platformatic/kafka` gives. */
interface PlatformaticStream {
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

export function platformaticGroup(consumer: PlatformaticConsumer, options: ReadOptions): KafkaGroup {
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
