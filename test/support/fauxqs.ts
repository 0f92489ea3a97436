import { setTimeout as pause } from 'node:timers/promises'
import { SNSClient } from '@aws-sdk/client-sns'
import {
  DeleteMessageBatchCommand,
  ReceiveMessageCommand,
  SQSClient,
  type Message,
} from '@aws-sdk/client-sqs'
import { startFauxqs, type FauxqsServer } from 'fauxqs'
import { onTestFinished } from 'vitest'

/** What the clients of the SDK need to find a server of this machine. */
export function clientOptions(port: number) {
  return {
    region: 'us-east-1',
    endpoint: `http://127.0.0.1:${port}`,
    credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
  }
}

/** SNS and SQS in this process, until the test is over. */
export interface Queues {
  readonly server: FauxqsServer
  readonly sqs: SQSClient
  readonly sns: SNSClient
}

export async function startQueues(options: { port?: number; dataDir?: string } = {}): Promise<Queues> {
  const server = await startFauxqs({ port: 0, logger: false, ...options })
  const sqs = new SQSClient(clientOptions(server.port))
  const sns = new SNSClient(clientOptions(server.port))
  sqs.middlewareStack.add(withoutAstral('Entries', 'MessageBody'), { step: 'initialize' })
  sns.middlewareStack.add(withoutAstral('PublishBatchRequestEntries', 'Message'), { step: 'initialize' })
  onTestFinished(async () => {
    sqs.destroy()
    sns.destroy()
    await server.stop()
  })
  return { server, sqs, sns }
}

/**
 * SQS accepts all characters beyond U+FFFF; fauxqs takes them for invalid ones. In JSON an escape is the same.
 *
 * @param list - the field of the input that has the entries
 * @param field - the field of an entry that has the body
 */
function withoutAstral(list: string, field: string) {
  return <O>(next: (args: { input: object }) => Promise<O>) =>
    async (args: { input: object }): Promise<O> => {
      const input = args.input as Record<string, unknown>
      const entries = input[list] as Record<string, unknown>[] | undefined
      if (entries === undefined) return next(args)
      const escaped = entries.map((entry) =>
        typeof entry[field] === 'string' ? { ...entry, [field]: escapeAstral(entry[field]) } : entry,
      )
      return next({ ...args, input: { ...input, [list]: escaped } })
    }
}

function escapeAstral(json: string): string {
  return json.replaceAll(/[\u{10000}-\u{10FFFF}]/gu, (character) =>
    [0, 1].map((unit) => `\\u${character.charCodeAt(unit).toString(16)}`).join(''),
  )
}

/** A queue that no other test uses. */
export function newQueue({ server }: Queues, kind: 'standard' | 'fifo' = 'standard'): string {
  const name = `q${(queueCount += 1)}${kind === 'fifo' ? '.fifo' : ''}`
  const { queueUrl } = server.createQueue(name, kind === 'fifo' ? { attributes: { FifoQueue: 'true' } } : {})
  return queueUrl
}

let queueCount = 0

/** A topic, and a queue that gets its messages. */
export function newTopic(
  queues: Queues,
  { isFifo = false, isRaw = true }: { readonly isFifo?: boolean; readonly isRaw?: boolean } = {},
): { readonly topicArn: string; readonly queueUrl: string } {
  const queueUrl = newQueue(queues, isFifo ? 'fifo' : 'standard')
  const queue = queueUrl.split('/').at(-1) ?? ''
  const topic = `t-${queue}`
  const { topicArn } = queues.server.createTopic(topic, isFifo ? { attributes: { FifoTopic: 'true' } } : {})
  const attributes = isRaw ? { RawMessageDelivery: 'true' } : {}
  queues.server.subscribe({ topic, queue, attributes })
  return { topicArn, queueUrl }
}

/** Takes messages from a queue until there are `count`, or none comes for five seconds. */
export async function takeMessages(client: SQSClient, QueueUrl: string, count: number): Promise<Message[]> {
  const taken: Message[] = []
  for (let deadline = Date.now() + 5000; taken.length < count && Date.now() < deadline;) {
    const { Messages = [] } = await client.send(
      new ReceiveMessageCommand({
        QueueUrl,
        MaxNumberOfMessages: 10,
        MessageSystemAttributeNames: ['All'],
        MessageAttributeNames: ['All'],
      }),
    )
    taken.push(...Messages)
    if (Messages.length === 0) {
      await pause(20)
      continue
    }
    deadline = Date.now() + 5000
    const Entries = Messages.map(({ ReceiptHandle }, index) => ({ Id: String(index), ReceiptHandle }))
    await client.send(new DeleteMessageBatchCommand({ QueueUrl, Entries }))
  }
  return taken
}

/** An error as the SDK throws it. */
export function awsError(name: string, headers: Readonly<Record<string, string>> = {}): Error {
  const error = Object.assign(new Error(`${name}!`), { name })
  Object.defineProperty(error, '$response', { value: { headers }, enumerable: false })
  return error
}

/** A request that a scripted client was given. */
export interface AwsRequest {
  readonly command: string
  readonly input: Readonly<Record<string, unknown>>
  readonly signal: AbortSignal
}

/** A client that answers by a function, and the classes of its commands. */
export function scriptedClient<N extends string>(
  names: readonly N[],
  answer: (request: AwsRequest) => unknown,
): {
  readonly client: { readonly send: (command: never, options?: never) => Promise<unknown> }
  readonly commands: Readonly<Record<`${N}Command`, new (input: never) => object>>
  readonly requests: AwsRequest[]
} {
  const requests: AwsRequest[] = []
  class Command {
    readonly command: string
    readonly input: Readonly<Record<string, unknown>>
    constructor(command: string, input: Readonly<Record<string, unknown>>) {
      this.command = command
      this.input = input
    }
  }
  const commands = Object.fromEntries(
    names.map((name) => [
      `${name}Command`,
      class extends Command {
        constructor(input: Readonly<Record<string, unknown>>) {
          super(name, input)
        }
      },
    ]),
  ) as unknown as Readonly<Record<`${N}Command`, new (input: never) => object>>
  return {
    requests,
    commands,
    client: {
      async send(command: never, options?: never) {
        const { abortSignal } = options as unknown as { readonly abortSignal: AbortSignal }
        const { command: name, input } = command as Command
        const request = { command: name, input, signal: abortSignal }
        requests.push(request)
        return answer(request)
      },
    },
  }
}
