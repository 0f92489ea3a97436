import { randomUUID } from 'node:crypto'
import { Producer } from '@platformatic/kafka'
import { kafka } from '../../src/transports/adapters/kafka.ts'
import { librdkafkaPath, startKafkaCluster } from '../../test/support/kafka-cluster.ts'
import type { MeasuredSystem } from './measured-system.ts'

/** Messages of a call of the client alone, and calls at the same time: as many as a transport makes. */
const callSize = 1000
const callCount = 4

/** Kafka, by the brokers of librdkafka; `KAFKA` names others, with the topics `measured` and `alone`. */
export async function measureKafka(): Promise<MeasuredSystem | undefined> {
  const given = process.env['KAFKA']
  if (given === undefined && librdkafkaPath === undefined) return undefined
  const cluster = given === undefined ? await startKafkaCluster() : undefined
  for (const topic of ['measured', 'alone']) await cluster?.createTopic(topic, 12)
  const producer = new Producer({
    clientId: 'measure',
    bootstrapBrokers: given?.split(',') ?? cluster?.brokers ?? [],
  })
  const note = 'x'.repeat(160)

  async function send(count: number): Promise<void> {
    const messages = Array.from({ length: count }, () => ({
      topic: 'alone',
      key: Buffer.from(randomUUID()),
      value: Buffer.from(JSON.stringify({ id: randomUUID(), data: { number: count, note } })),
    }))
    await producer.send({ messages, acks: -1 })
  }

  return {
    transport: kafka({ producer, topic: 'measured', envelope: 'raw' }),
    note,
    async rawRate(count) {
      await send(callSize)
      const startedAt = performance.now()
      for (let sent = 0; sent < count; sent += callSize * callCount)
        await Promise.all(Array.from({ length: callCount }, async () => send(callSize)))
      return (count / (performance.now() - startedAt)) * 1000
    },
    async stop() {
      await producer.close()
      await cluster?.stop()
    },
  }
}
