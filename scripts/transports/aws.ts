import { randomUUID } from 'node:crypto'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import { EventBridgeClient, PutEventsCommand } from '@aws-sdk/client-eventbridge'
import { CreateTopicCommand, PublishBatchCommand, SNSClient } from '@aws-sdk/client-sns'
import { CreateQueueCommand, SendMessageBatchCommand, SQSClient } from '@aws-sdk/client-sqs'
import { eventbridge } from '../../src/transports/adapters/eventbridge.ts'
import { sns } from '../../src/transports/adapters/sns.ts'
import { sqs } from '../../src/transports/adapters/sqs.ts'
import type { MeasuredSystem } from './measured-system.ts'

const note = 'x'.repeat(160)

/** Requests of the client alone at the same time: as many as four calls of a transport make. */
const requestCount = 40

function clientOptions(port: number) {
  return {
    region: 'us-east-1',
    endpoint: `http://127.0.0.1:${port}`,
    credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
  }
}

/** SNS and SQS by fauxqs in a process of its own. */
async function startQueues(): Promise<{ readonly port: number; readonly stop: () => void }> {
  const program = fileURLToPath(new URL('../../test/support/fauxqs-process.ts', import.meta.url))
  const child = spawn(process.execPath, [program, '0'], { stdio: ['ignore', 'pipe', 'inherit'] })
  const [first] = (await once(child.stdout, 'data')) as [Buffer]
  const port = Number(/port (\d+)/.exec(first.toString())?.[1])
  return { port, stop: () => void child.kill() }
}

/** Messages a second of requests of ten. */
async function rateOf(count: number, request: (ids: readonly string[]) => Promise<unknown>): Promise<number> {
  const ten = (): string[] => Array.from({ length: 10 }, () => randomUUID())
  await request(ten())
  let left = count / 10
  const startedAt = performance.now()
  await Promise.all(
    Array.from({ length: requestCount }, async () => {
      while (left > 0) {
        left -= 1
        await request(ten())
      }
    }),
  )
  return (count / (performance.now() - startedAt)) * 1000
}

const bodyOf = (id: string): string => JSON.stringify({ id, data: { number: 1, note } })

const fifoFields = (id: string) => ({ MessageGroupId: id, MessageDeduplicationId: id })

/** A FIFO queue, with as many groups as there are messages. */
export async function measureSqs(): Promise<MeasuredSystem> {
  const { port, stop } = await startQueues()
  const client = new SQSClient(clientOptions(port))
  const Attributes = { FifoQueue: 'true' }
  const newQueue = async (QueueName: string): Promise<string> =>
    (await client.send(new CreateQueueCommand({ QueueName, Attributes }))).QueueUrl ?? ''
  const [queueUrl, QueueUrl] = [await newQueue('measured.fifo'), await newQueue('alone.fifo')]
  return {
    transport: sqs({ client, queueUrl }),
    note,
    rawRate: async (count) =>
      rateOf(count, async (ids) => {
        const Entries = ids.map((id, n) => ({ Id: `${n}`, MessageBody: bodyOf(id), ...fifoFields(id) }))
        return client.send(new SendMessageBatchCommand({ QueueUrl, Entries }))
      }),
    async stop() {
      client.destroy()
      stop()
    },
  }
}

/** A FIFO topic that nobody subscribes to. */
export async function measureSns(): Promise<MeasuredSystem> {
  const { port, stop } = await startQueues()
  const client = new SNSClient(clientOptions(port))
  const Attributes = { FifoTopic: 'true' }
  const newTopic = async (Name: string): Promise<string> =>
    (await client.send(new CreateTopicCommand({ Name, Attributes }))).TopicArn ?? ''
  const [topicArn, TopicArn] = [await newTopic('measured.fifo'), await newTopic('alone.fifo')]
  return {
    transport: sns({ client, topicArn }),
    note,
    rawRate: async (count) =>
      rateOf(count, async (ids) =>
        client.send(
          new PublishBatchCommand({
            TopicArn,
            PublishBatchRequestEntries: ids.map((id, n) => ({
              ...{ Id: `${n}`, Message: bodyOf(id) },
              ...fifoFields(id),
            })),
          }),
        ),
      ),
    async stop() {
      client.destroy()
      stop()
    },
  }
}

/** A server of this process that accepts all. */
export async function measureEventBridge(): Promise<MeasuredSystem> {
  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const { Entries } = JSON.parse(Buffer.concat(chunks).toString()) as {
        readonly Entries: readonly object[]
      }
      const answer = { FailedEntryCount: 0, Entries: Entries.map(() => ({ EventId: 'e' })) }
      response.writeHead(200, { 'content-type': 'application/x-amz-json-1.1' }).end(JSON.stringify(answer))
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const client = new EventBridgeClient(clientOptions((server.address() as AddressInfo).port))
  return {
    transport: eventbridge({ client }),
    note,
    rawRate: async (count) =>
      rateOf(count, async (ids) =>
        client.send(
          new PutEventsCommand({
            Entries: ids.map((id) => ({ Source: 'measure', DetailType: 'order.placed', Detail: bodyOf(id) })),
          }),
        ),
      ),
    async stop() {
      client.destroy()
      server.closeAllConnections()
      server.close()
    },
  }
}
