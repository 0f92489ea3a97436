import { setTimeout as pause } from 'node:timers/promises'
import {
  assertObject,
  describe,
  integerOption,
  invalidOption,
  refuseUnknownKeys,
} from '../../foundation/options.ts'
import { failureDelayMs } from '../../foundation/retry-delay.ts'
import { loadPackage } from '../sending/connected-transport.ts'
import {
  repeatUntilStored,
  type ReceiveMessages,
  type Source,
  type SourceContext,
} from '../receiving/source.ts'
import {
  clientOption,
  commandsOption,
  createAwsCalls,
  type AwsClient,
  type AwsCommands,
} from './aws-calls.ts'
import { timeoutOption } from './aws-transport.ts'
import { createSqsHold } from './sqs-hold.ts'
import { toReceived, type SqsMessage } from './sqs-message.ts'

const commandNames = [
  'ReceiveMessage',
  'DeleteMessageBatch',
  'ChangeMessageVisibilityBatch',
  'GetQueueAttributes',
] as const

/** Options of {@link sqsSource}. */
export interface SqsSourceOptions {
  /** `new SQSClient({ … })` or `new SQS({ … })` of `@aws-sdk/client-sqs`. It is yours: the source does not end it. */
  readonly client: AwsClient
  /** The URL of the queue, not its ARN. */
  readonly queueUrl: string
  /** Requests for messages at the same time; each takes up to ten. 1 to 50, which is as many connections as the SDK opens. @defaultValue `4` */
  readonly concurrency?: number | undefined
  /**
   * For how long a message is hidden from other receivers. It is extended while the message is being stored. What a process that was killed
   * had fetched is delivered again after this time. 10 to 43,200. @defaultValue `30`
   */
  readonly visibilityTimeoutSeconds?: number | undefined
  /** How long a request waits for messages, 1 to 20. @defaultValue `20` */
  readonly waitTimeSeconds?: number | undefined
  /**
   * The classes of the commands `ReceiveMessage`, `DeleteMessageBatch`, `ChangeMessageVisibilityBatch` and `GetQueueAttributes`, for a bundle
   * in which `@aws-sdk/client-sqs` cannot be imported by name when it runs. `new SQS({ … })` needs them neither way.
   */
  readonly commands?: AwsCommands<(typeof commandNames)[number]> | undefined
  /** How long a request may take beside its waiting time, with the attempts of the SDK, in milliseconds. @defaultValue `10_000` */
  readonly timeoutMs?: number | undefined
}

/**
 * Receives the messages of a queue of Amazon SQS, also those that SNS has put there. A message is deleted when it is stored; until then it
 * is hidden from other receivers. The messages of a FIFO queue are in the log in the order of their group.
 *
 * @throws a `ConfigurationError` `BUS_INVALID_OPTION`
 */
export function sqsSource(options: SqsSourceOptions): Source {
  assertObject('options like { client, queueUrl }', options)
  const known = ['client', 'queueUrl', 'concurrency', 'visibilityTimeoutSeconds', 'waitTimeSeconds']
  refuseUnknownKeys(options, [...known, 'commands', 'timeoutMs'], 'sqsSource')
  const { queueUrl: QueueUrl } = options
  if (typeof QueueUrl !== 'string' || !/^https?:\/\/[^/]+\/.+/.test(QueueUrl))
    throw invalidOption(
      `Expected \`queueUrl\` to be the URL of a queue, got ${describe(QueueUrl)}`,
      'queueUrl',
    )
  const concurrency = integerOption('concurrency', options.concurrency, { min: 1, max: 50, default: 4 })
  const visibilitySeconds = integerOption('visibilityTimeoutSeconds', options.visibilityTimeoutSeconds, {
    ...{ min: 10, max: 43_200, default: 30 },
  })
  const waitSeconds = integerOption('waitTimeSeconds', options.waitTimeSeconds, {
    ...{ min: 1, max: 20, default: 20 },
  })
  const calls = createAwsCalls({
    names: commandNames,
    client: clientOption(options.client, '`new SQSClient()`'),
    commands: commandsOption(options.commands, commandNames),
    load: async () => loadPackage('@aws-sdk/client-sqs', async () => import('@aws-sdk/client-sqs')),
    timeoutMs: timeoutOption(options.timeoutMs),
  })
  const queue = QueueUrl.split('/').at(-1) ?? QueueUrl
  const stopping = new AbortController()
  let loops: Promise<unknown> = Promise.resolve()

  async function fetchMessages(): Promise<readonly SqsMessage[]> {
    const input = {
      QueueUrl,
      MaxNumberOfMessages: 10,
      WaitTimeSeconds: waitSeconds,
      VisibilityTimeout: visibilitySeconds,
      MessageSystemAttributeNames: ['MessageGroupId'],
      MessageAttributeNames: ['All'],
    }
    const answer = await calls.call('ReceiveMessage', input, stopping.signal, waitSeconds * 1000)
    return (answer as { readonly Messages?: readonly SqsMessage[] } | undefined)?.Messages ?? []
  }

  async function store(
    messages: readonly SqsMessage[],
    receive: ReceiveMessages,
    context: SourceContext,
  ): Promise<void> {
    const hold = createSqsHold({ calls, QueueUrl, visibilitySeconds, context }, messages)
    try {
      const received = messages.map((message) => toReceived(message, queue))
      await storeUnlessStopped(receive, received, context, stopping.signal)
    } catch (error) {
      await hold.giveBack()
      throw error
    }
    await hold.remove()
  }

  async function run(receive: ReceiveMessages, context: SourceContext): Promise<void> {
    let failureCount = 0
    while (!stopping.signal.aborted) {
      try {
        const messages = await fetchMessages()
        failureCount = 0
        if (messages.length > 0) await store(messages, receive, context)
      } catch (error) {
        if (stopping.signal.aborted) return
        context.reportFailure(error)
        failureCount += 1
        await pause(failureDelayMs(failureCount), undefined, { signal: stopping.signal }).catch(() => {})
      }
    }
  }

  return {
    name: 'sqs',
    open: async () => calls.open(),
    async start(receive, context) {
      const giveUp = (): void => stopping.abort(context.signal.reason)
      context.signal.addEventListener('abort', giveUp, { once: true })
      loops = Promise.all(Array.from({ length: concurrency }, async () => run(receive, context))).finally(
        () => context.signal.removeEventListener('abort', giveUp),
      )
    },
    async stop() {
      stopping.abort(new Error('the source was stopped'))
      await loops
    },
    async check({ signal }) {
      await calls.call('GetQueueAttributes', { QueueUrl, AttributeNames: ['QueueArn'] }, signal)
    },
  }
}

/**
 * Tries until the messages are stored: leaving them to be delivered again would count towards the dead-letter queue of SQS, though nothing is
 * wrong with them. A try that runs when the source stops is the last.
 */
async function storeUnlessStopped(
  receive: ReceiveMessages,
  messages: Parameters<ReceiveMessages>[0],
  context: SourceContext,
  stopping: AbortSignal,
): Promise<void> {
  const last = new AbortController()
  let isTrying = false
  const stop = (): void => {
    if (!isTrying) last.abort(stopping.reason)
  }
  stopping.addEventListener('abort', stop, { once: true })
  try {
    await repeatUntilStored(
      async (each, call) => {
        isTrying = true
        try {
          await receive(each, call)
        } catch (error) {
          if (stopping.aborted) last.abort(error)
          throw error
        } finally {
          isTrying = false
        }
      },
      messages,
      { signal: last.signal },
      context,
    )
  } finally {
    stopping.removeEventListener('abort', stop)
  }
}
