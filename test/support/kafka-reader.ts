import { Consumer } from '@platformatic/kafka'
import type { KafkaCluster } from './kafka-cluster.ts'

/** A record as a consumer gets it. */
export interface ReadRecord {
  readonly topic: string
  readonly partition: number
  readonly offset: number
  readonly key: Buffer | undefined
  readonly value: Buffer
  readonly headers: Readonly<Record<string, string>>
}

/** Reads all records of some topics from the beginning. A topic that is not there is created, with four partitions. */
export interface KafkaReader {
  /** The records of a topic that are meant, each partition in its order. Resolves when there are so many, or after 20 seconds. */
  readonly records: (
    topic: string,
    count: number,
    isMeant?: (record: ReadRecord) => boolean,
  ) => Promise<readonly ReadRecord[]>
  readonly close: () => Promise<void>
}

export async function createKafkaReader(
  cluster: KafkaCluster,
  topics: readonly string[],
): Promise<KafkaReader> {
  const consumer = new Consumer({
    clientId: 'reader',
    groupId: `reader-${topics.join('-').slice(0, 40)}`,
    bootstrapBrokers: cluster.brokers,
    retries: 2,
    retryDelay: 100,
    maxWaitTime: 50,
    // These brokers wait so long for a member that comes again.
    sessionTimeout: 6000,
    heartbeatInterval: 500,
    autocreateTopics: true,
  })
  const byTopic = new Map<string, Map<string, ReadRecord>>(topics.map((topic) => [topic, new Map()]))
  let news = Promise.withResolvers<void>()
  let isClosed = false

  /** A stream ends when a broker does: the next one begins at the beginning, and what is known is known. */
  async function read(): Promise<void> {
    const stream = await consumer.consume({ topics: [...topics], mode: 'earliest', autocommit: false })
    stream.on('data', ({ topic, partition, offset, key, value, headers }) => {
      const texts = [...headers].map(([name, text]) => [name.toString(), text.toString()])
      byTopic.get(topic)?.set(`${partition}/${offset}`, {
        topic,
        partition,
        offset: Number(offset),
        key,
        value,
        headers: Object.fromEntries(texts) as Record<string, string>,
      })
      news.resolve()
      news = Promise.withResolvers()
    })
    stream.on('error', () => {})
    stream.once('close', readAgain)
  }

  function readAgain(): void {
    if (!isClosed) setTimeout(() => void read().catch(readAgain), 100)
  }

  await read()
  return {
    async records(topic, count, isMeant = () => true) {
      const deadline = AbortSignal.timeout(20_000)
      const ended = new Promise<void>((resolve) => {
        deadline.addEventListener('abort', () => resolve(), { once: true })
      })
      const records = byTopic.get(topic) ?? new Map<string, ReadRecord>()
      const meant = (): ReadRecord[] => [...records.values()].filter(isMeant)
      while (meant().length < count && !deadline.aborted) await Promise.race([news.promise, ended])
      return meant().toSorted((a, b) => a.partition - b.partition || a.offset - b.offset)
    },
    async close() {
      isClosed = true
      await consumer.close(true)
    },
  }
}
