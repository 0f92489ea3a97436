import { assertObject, describe, invalidOption, refuseUnknownKeys } from '../../foundation/options.ts'
import {
  clientOption,
  commandsOption,
  createAwsCalls,
  type AwsClient,
  type AwsCommands,
} from '../aws/aws-calls.ts'
import { fifoFields, messageAttributes, messageLimits, tenantGroup } from '../aws/aws-message.ts'
import { createAwsTransport, maxEvents, resultsOfBatch, timeoutOption } from '../aws/aws-transport.ts'
import { clientConfig, queueOf, type QueueAddress } from '../aws/aws-url.ts'
import { createConnectedTransport, loadPackage } from '../sending/connected-transport.ts'
import { createEncoder, type EnvelopeOptions } from '../sending/envelope.ts'
import type { Transport } from '../sending/transport.ts'
import type { TransportUrl } from '../sending/transport-url.ts'

export { sqsSource, type SqsSourceOptions } from '../aws/sqs-source.ts'

const commandNames = ['SendMessageBatch', 'GetQueueAttributes'] as const

/** Options of {@link sqs}. */
export interface SqsOptions extends EnvelopeOptions<'structured' | 'raw'> {
  /** `new SQSClient({ … })` or `new SQS({ … })` of `@aws-sdk/client-sqs`. It is yours: the transport does not end it. */
  readonly client: AwsClient
  /** The URL of the queue, not its ARN. A queue whose name ends in `.fifo` keeps the events of a key in order. */
  readonly queueUrl: string
  /**
   * `{ SendMessageBatchCommand, GetQueueAttributesCommand }`, for a bundle in which `@aws-sdk/client-sqs` cannot be imported by name when it
   * runs. `new SQS({ … })` needs them neither way.
   */
  readonly commands?: AwsCommands<(typeof commandNames)[number]> | undefined
  /** How long a request may take, with the attempts of the SDK, in milliseconds. @defaultValue `10_000` */
  readonly timeoutMs?: number | undefined
}

/** Of a message, and of all messages of a request together. */
const maxBytes = 1_048_576

/**
 * Sends events to a queue of Amazon SQS. The id of the event is the deduplication id of a FIFO queue, tenant and ordering key are its
 * message group; in a standard queue the tenant is, which makes it fair.
 *
 * @throws a `ConfigurationError` `BUS_INVALID_OPTION`
 */
export function sqs(options: SqsOptions): Transport {
  assertObject('options like { client, queueUrl }', options)
  refuseUnknownKeys(options, ['client', 'queueUrl', 'commands', 'timeoutMs', 'envelope', 'claimCheck'], 'sqs')
  const { queueUrl } = options
  if (typeof queueUrl !== 'string' || !/^https?:\/\/[^/]+\/.+/.test(queueUrl))
    throw invalidOption(
      `Expected \`queueUrl\` to be the URL of a queue, got ${describe(queueUrl)}`,
      'queueUrl',
    )
  const isFifo = queueUrl.endsWith('.fifo')
  const calls = createAwsCalls({
    names: commandNames,
    client: clientOption(options.client, '`new SQSClient()`'),
    commands: commandsOption(options.commands, commandNames),
    load: loadSqs,
    timeoutMs: timeoutOption(options.timeoutMs),
  })
  return createAwsTransport({
    name: 'sqs',
    order: isFifo ? 'key' : 'none',
    encode: createEncoder(options, messageLimits(maxBytes)),
    maxRequestBytes: maxBytes,
    async request(messages, signal) {
      const Entries = messages.map((message, index) => ({
        Id: String(index),
        MessageBody: message.body.toString(),
        MessageAttributes: messageAttributes(message),
        ...(isFifo ? fifoFields(message.event) : { MessageGroupId: tenantGroup(message.event) }),
      }))
      const answer = await calls.call('SendMessageBatch', { QueueUrl: queueUrl, Entries }, signal)
      return resultsOfBatch(messages.length, answer)
    },
    open: async () => calls.open(),
    check: async (signal) =>
      calls.call('GetQueueAttributes', { QueueUrl: queueUrl, AttributeNames: ['QueueArn'] }, signal),
  })
}

/**
 * `sqs:https://sqs.eu-central-1.amazonaws.com/123456789012/orders.fifo`, or `sqs:arn:aws:sqs:eu-central-1:123456789012:orders.fifo`, whose
 * URL is asked for.
 */
export function sqsFromUrl(url: TransportUrl): Transport {
  const envelope = url.choice('envelope', ['structured', 'raw'])
  const queue = queueOf(url)
  const config = clientConfig(url, queue.region, queue.endpoint)
  return createConnectedTransport({
    name: 'sqs',
    order: queue.isFifo ? 'key' : 'none',
    maxEvents,
    load: loadSqs,
    async connect(commands) {
      const client = new commands.SQSClient(config)
      try {
        const queueUrl = queue.url ?? (await queueUrlOf(queue, client, commands))
        return {
          transport: sqs({ client, queueUrl, commands, envelope }),
          end: async () => client.destroy(),
        }
      } catch (error) {
        client.destroy()
        throw error
      }
    },
  })
}

async function queueUrlOf(
  { name, account }: QueueAddress,
  client: AwsClient,
  commands: AwsCommands<'GetQueueUrl'>,
): Promise<string> {
  const calls = createAwsCalls({
    ...{ names: ['GetQueueUrl'], client, commands, load: loadSqs },
    timeoutMs: timeoutOption(undefined),
  })
  const input = { QueueName: name, QueueOwnerAWSAccountId: account }
  const answer = await calls.call('GetQueueUrl', input, new AbortController().signal)
  const { QueueUrl } = answer as { readonly QueueUrl?: string }
  if (QueueUrl === undefined) throw new Error(`there is no URL of the queue ${name}`)
  return QueueUrl
}

const loadSqs = async () => loadPackage('@aws-sdk/client-sqs', async () => import('@aws-sdk/client-sqs'))
