import {
  assertObject,
  describe,
  integerOption,
  invalidOption,
  refuseUnknownKeys,
} from '../../foundation/options.ts'
import {
  clientOption,
  commandsOption,
  createAwsCalls,
  type AwsClient,
  type AwsCommands,
} from '../aws/aws-calls.ts'
import { fifoFields, messageAttributes, messageLimits, tenantGroup } from '../aws/aws-message.ts'
import { createAwsTransport, maxEvents, resultsOfBatch, timeoutOption } from '../aws/aws-transport.ts'
import { arnOf, clientConfig } from '../aws/aws-url.ts'
import { createConnectedTransport, loadPackage } from '../sending/connected-transport.ts'
import { createEncoder, type EnvelopeOptions } from '../sending/envelope.ts'
import type { Transport } from '../sending/transport.ts'
import type { TransportUrl } from '../sending/transport-url.ts'

const commandNames = ['PublishBatch', 'GetTopicAttributes'] as const

/** Options of {@link sns}. */
export interface SnsOptions extends EnvelopeOptions<'structured' | 'raw'> {
  /** `new SNSClient({ … })` or `new SNS({ … })` of `@aws-sdk/client-sns`. It is yours: the transport does not end it. */
  readonly client: AwsClient
  /** A topic whose name ends in `.fifo` keeps the events of a key in order. */
  readonly topicArn: string
  /**
   * The attribute `MaximumMessageSize` of the topic: the largest message, and the largest sum of a request. Above 262,144 the topic may have
   * 100 subscriptions of SQS, Lambda and Firehose, and no others. 1,024 to 1,048,576. @defaultValue `262_144`
   */
  readonly maxMessageBytes?: number | undefined
  /**
   * `{ PublishBatchCommand, GetTopicAttributesCommand }`, for a bundle in which `@aws-sdk/client-sns` cannot be imported by name when it runs.
   * `new SNS({ … })` needs them neither way.
   */
  readonly commands?: AwsCommands<(typeof commandNames)[number]> | undefined
  /** How long a request may take, with the attempts of the SDK, in milliseconds. @defaultValue `10_000` */
  readonly timeoutMs?: number | undefined
}

const messageBytes = { min: 1024, max: 1_048_576, default: 262_144 }

/**
 * Publishes events to a topic of Amazon SNS. The id of the event is the deduplication id of a FIFO topic, tenant and ordering key are its
 * message group; in a standard topic the tenant is, which makes the queues behind it fair.
 *
 * @throws a `ConfigurationError` `BUS_INVALID_OPTION`
 */
export function sns(options: SnsOptions): Transport {
  assertObject('options like { client, topicArn }', options)
  refuseUnknownKeys(
    options,
    ['client', 'topicArn', 'maxMessageBytes', 'commands', 'timeoutMs', 'envelope', 'claimCheck'],
    'sns',
  )
  const { topicArn } = options
  if (typeof topicArn !== 'string' || arnOf(topicArn, 'sns') === undefined)
    throw invalidOption(
      `Expected \`topicArn\` to be the ARN of a topic, got ${describe(topicArn)}`,
      'topicArn',
    )
  const isFifo = topicArn.endsWith('.fifo')
  const maxBytes = integerOption('maxMessageBytes', options.maxMessageBytes, messageBytes)
  const calls = createAwsCalls({
    names: commandNames,
    client: clientOption(options.client, '`new SNSClient()`'),
    commands: commandsOption(options.commands, commandNames),
    load: loadSns,
    timeoutMs: timeoutOption(options.timeoutMs),
  })
  return createAwsTransport({
    name: 'sns',
    order: isFifo ? 'key' : 'none',
    encode: createEncoder(options, messageLimits(maxBytes)),
    maxRequestBytes: maxBytes,
    async request(messages, signal) {
      const PublishBatchRequestEntries = messages.map((message, index) => ({
        Id: String(index),
        Message: message.body.toString(),
        MessageAttributes: messageAttributes(message),
        ...(isFifo ? fifoFields(message.event) : { MessageGroupId: tenantGroup(message.event) }),
      }))
      const input = { TopicArn: topicArn, PublishBatchRequestEntries }
      return resultsOfBatch(messages.length, await calls.call('PublishBatch', input, signal))
    },
    open: async () => calls.open(),
    check: async (signal) => calls.call('GetTopicAttributes', { TopicArn: topicArn }, signal),
  })
}

/** `sns:arn:aws:sns:eu-central-1:123456789012:orders?maxMessageBytes=1048576`. */
export function snsFromUrl(url: TransportUrl): Transport {
  const envelope = url.choice('envelope', ['structured', 'raw'])
  const maxMessageBytes = url.integer('maxMessageBytes', messageBytes.min, messageBytes.max)
  const arn = arnOf(url.path, 'sns')
  if (arn === undefined || !/^[A-Za-z0-9_-]{1,256}(?:\.fifo)?$/.test(arn.resource))
    throw url.refuse(
      'expected the ARN of a topic, such as `sns:arn:aws:sns:eu-central-1:123456789012:orders`',
    )
  const config = clientConfig(url, arn.region)
  return createConnectedTransport({
    name: 'sns',
    order: arn.resource.endsWith('.fifo') ? 'key' : 'none',
    maxEvents,
    load: loadSns,
    async connect(commands) {
      const client = new commands.SNSClient(config)
      return {
        transport: sns({ client, topicArn: arn.text, commands, maxMessageBytes, envelope }),
        end: async () => client.destroy(),
      }
    },
  })
}

const loadSns = async () => loadPackage('@aws-sdk/client-sns', async () => import('@aws-sdk/client-sns'))
