import { messageHeaders, type ReceivedMessage } from '../receiving/source.ts'

/** A message as SQS hands it out. */
export interface SqsMessage {
  readonly MessageId?: string
  readonly ReceiptHandle?: string
  readonly Body?: string
  readonly Attributes?: Readonly<Record<string, string | undefined>>
  readonly MessageAttributes?: Readonly<Record<string, SqsAttribute>>
}

interface SqsAttribute {
  readonly StringValue?: string
  readonly BinaryValue?: Uint8Array
}

/** What a topic delivers to a queue without raw delivery. */
interface Notification {
  readonly Type: 'Notification'
  readonly MessageId?: unknown
  readonly TopicArn: string
  readonly Message: string
  readonly MessageAttributes?: unknown
}

/**
 * A message of SQS for `bus.receive`. What SNS has wrapped is unwrapped. Its id is `MessageId`: SQS delivers a message again with the same
 * one, in FIFO queues too. Attributes are headers; one named `content-type` is the content type.
 */
export function toReceived(message: SqsMessage, queue: string): ReceivedMessage {
  const { MessageId, Body = '', Attributes, MessageAttributes } = message
  const notification = notificationOf(Body)
  const body = notification === undefined ? Body : notification.Message
  const { 'content-type': contentType, ...headers } = messageHeaders([
    ...(notification === undefined ? attributesOf(MessageAttributes) : notificationHeaders(notification)),
  ])
  return {
    id: MessageId,
    body: Buffer.from(body),
    headers,
    contentType: contentType ?? (isCloudEvent(body) ? 'application/cloudevents+json' : undefined),
    key: Attributes?.['MessageGroupId'],
    from: queue,
    protocol: undefined,
  }
}

function attributesOf(attributes: SqsMessage['MessageAttributes'] = {}): [string, unknown][] {
  return Object.entries(attributes).map(([name, { StringValue, BinaryValue }]) => [
    name,
    StringValue ?? BinaryValue,
  ])
}

/** The headers have the names that SNS uses over HTTP. */
function notificationHeaders({ MessageId, TopicArn, MessageAttributes }: Notification): [string, unknown][] {
  const attributes = Object.entries((MessageAttributes ?? {}) as Readonly<Record<string, unknown>>)
  return [
    ['x-amz-sns-message-id', MessageId],
    ['x-amz-sns-topic-arn', TopicArn],
    ...attributes.map(([name, given]): [string, unknown] => {
      const { Type, Value } = (given ?? {}) as { readonly Type?: unknown; readonly Value?: unknown }
      const isBinary = Type === 'Binary' && typeof Value === 'string'
      return [name, isBinary ? Buffer.from(Value, 'base64') : Value]
    }),
  ]
}

/** Undefined for every other message: it is left as it is. */
function notificationOf(body: string): Notification | undefined {
  // Nearly all other messages are told apart without parsing them.
  if (!/^\s*\{/.test(body) || !body.includes('"TopicArn"')) return undefined
  const given = parsed(body) as Partial<Record<keyof Notification, unknown>>
  const { Type, TopicArn, Message } = given
  const isNotification =
    Type === 'Notification' && typeof TopicArn === 'string' && typeof Message === 'string'
  return isNotification ? (given as unknown as Notification) : undefined
}

/** Whether a message without a content type is a CloudEvent in the JSON format. */
function isCloudEvent(body: string): boolean {
  if (!/^\s*\{/.test(body) || !body.includes('"specversion"')) return false
  return (parsed(body) as { readonly specversion?: unknown }).specversion === '1.0'
}

function parsed(body: string): object {
  try {
    return JSON.parse(body) as object
  } catch {
    return {}
  }
}
