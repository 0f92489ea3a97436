import type { StoredEvent } from '../../events/envelope.ts'
import { NonRetryableError } from '../../foundation/errors.ts'
import { assertObject, describe, invalidOption, refuseUnknownKeys } from '../../foundation/options.ts'
import {
  clientOption,
  commandsOption,
  createAwsCalls,
  type AwsClient,
  type AwsCommands,
} from '../aws/aws-calls.ts'
import { entryError, resultOfError } from '../aws/aws-errors.ts'
import { createAwsTransport, maxEvents, timeoutOption } from '../aws/aws-transport.ts'
import { arnOf, clientConfig } from '../aws/aws-url.ts'
import { createConnectedTransport, loadPackage } from '../sending/connected-transport.ts'
import { createEncoder, type EncodedEvent, type EnvelopeOptions } from '../sending/envelope.ts'
import { delivered, type PublishResult, type Transport } from '../sending/transport.ts'
import type { TransportUrl } from '../sending/transport-url.ts'

const commandNames = ['PutEvents', 'DescribeEventBus'] as const

/** Options of {@link eventbridge}. */
export interface EventbridgeOptions extends EnvelopeOptions<'structured' | 'raw'> {
  /** `new EventBridgeClient({ … })` or `new EventBridge({ … })` of `@aws-sdk/client-eventbridge`. It is yours: the transport does not end it. */
  readonly client: AwsClient
  /** The name or the ARN of the event bus. @defaultValue `'default'` */
  readonly eventBus?: string | undefined
  /**
   * `{ PutEventsCommand, DescribeEventBusCommand }`, for a bundle in which `@aws-sdk/client-eventbridge` cannot be imported by name when it
   * runs. `new EventBridge({ … })` needs them neither way.
   */
  readonly commands?: AwsCommands<(typeof commandNames)[number]> | undefined
  /** How long a request may take, with the attempts of the SDK, in milliseconds. @defaultValue `10_000` */
  readonly timeoutMs?: number | undefined
}

/** The entries of a request have less than 1 MiB together. */
const maxBytes = 1_048_575

/** What EventBridge counts for `Time`. */
const timeBytes = 14

/**
 * Puts events on an event bus of Amazon EventBridge: their source is `source`, their type is `detail-type`, the CloudEvent is `detail`. It
 * has no order, and no key for duplicates: targets compare `detail.id`, or with the envelope `'raw'` the only entry of `resources`.
 *
 * @throws a `ConfigurationError` `BUS_INVALID_OPTION`
 */
export function eventbridge(options: EventbridgeOptions): Transport {
  assertObject('options like { client, eventBus }', options)
  refuseUnknownKeys(
    options,
    ['client', 'eventBus', 'commands', 'timeoutMs', 'envelope', 'claimCheck'],
    'eventbridge',
  )
  const eventBus = options.eventBus ?? 'default'
  if (!isEventBus(eventBus))
    throw invalidOption(
      `Expected \`eventBus\` to be the name or the ARN of an event bus, got ${describe(eventBus)}`,
      'eventBus',
    )
  const isRaw = options.envelope === 'raw'
  const calls = createAwsCalls({
    names: commandNames,
    client: clientOption(options.client, '`new EventBridgeClient()`'),
    commands: commandsOption(options.commands, commandNames),
    load: loadEventBridge,
    timeoutMs: timeoutOption(options.timeoutMs),
  })

  const resourcesOf = ({ id }: StoredEvent): string[] => (isRaw ? [`urn:uuid:${id}`] : [])

  const encode = createEncoder(options, {
    protocol: undefined,
    maxBytes,
    overheadBytes: (event) =>
      timeBytes + Buffer.byteLength([event.source, event.type, ...resourcesOf(event)].join('')),
  })

  async function encodeObject(event: StoredEvent): Promise<EncodedEvent> {
    const { payload } = event
    if (isRaw && (typeof payload !== 'object' || payload === null || Array.isArray(payload)))
      throw new NonRetryableError(
        "EventBridge accepts objects only: send other payloads with the envelope 'structured'",
      )
    return encode(event)
  }

  return createAwsTransport({
    name: 'eventbridge',
    order: 'none',
    encode: encodeObject,
    maxRequestBytes: maxBytes,
    async request(messages, signal) {
      const Entries = messages.map(({ event, body }) => ({
        EventBusName: eventBus,
        Source: event.source,
        DetailType: event.type,
        Detail: body.toString(),
        Time: event.createdAt,
        Resources: resourcesOf(event),
      }))
      return resultsOfEntries(messages.length, await calls.call('PutEvents', { Entries }, signal))
    },
    open: async () => calls.open(),
    check: async (signal) => calls.call('DescribeEventBus', { Name: eventBus }, signal),
  })
}

/** The answers of entries, in their order. */
interface PutEventsAnswer {
  readonly Entries?: readonly {
    readonly EventId?: string
    readonly ErrorCode?: string
    readonly ErrorMessage?: string
  }[]
}

function resultsOfEntries(count: number, answer: unknown): PublishResult[] {
  const { Entries = [] } = (answer ?? {}) as PutEventsAnswer
  return Array.from({ length: count }, (_, index): PublishResult => {
    const { EventId, ErrorCode, ErrorMessage = 'no result for the entry' } = Entries[index] ?? {}
    return EventId !== undefined && ErrorCode === undefined
      ? delivered
      : resultOfError(entryError(ErrorCode, ErrorMessage))
  })
}

function isEventBus(text: unknown): text is string {
  if (typeof text !== 'string') return false
  const name = arnOf(text, 'events')?.resource.replace(/^event-bus\//, '') ?? text
  return /^[A-Za-z0-9._/-]{1,256}$/.test(name)
}

/** `eventbridge:orders`, or `eventbridge:arn:aws:events:eu-central-1:123456789012:event-bus/orders`. */
export function eventbridgeFromUrl(url: TransportUrl): Transport {
  const envelope = url.choice('envelope', ['structured', 'raw'])
  const eventBus = url.path
  if (!isEventBus(eventBus))
    throw url.refuse('expected the name or the ARN of an event bus, such as `eventbridge:orders`')
  const config = clientConfig(url, arnOf(eventBus, 'events')?.region)
  return createConnectedTransport({
    name: 'eventbridge',
    order: 'none',
    maxEvents,
    load: loadEventBridge,
    async connect(commands) {
      const client = new commands.EventBridgeClient(config)
      return {
        transport: eventbridge({ client, eventBus, commands, envelope }),
        end: async () => client.destroy(),
      }
    },
  })
}

const loadEventBridge = async () =>
  loadPackage('@aws-sdk/client-eventbridge', async () => import('@aws-sdk/client-eventbridge'))
