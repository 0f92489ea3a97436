import type { Attributes } from '@opentelemetry/api'
import { attributeNames, messagingSystem } from './instruments.ts'

/** The attributes that only spans have: those of single events, of which there are too many for metrics, and of the server. */
export const spanAttributeNames = {
  messageId: 'messaging.message.id',
  /** The correlation id. */
  conversationId: 'messaging.message.conversation_id',
  batchCount: 'messaging.batch.message_count',
  tenant: 'messaging.bossbus.tenant.id',
  attempt: 'messaging.bossbus.attempt',
  replay: 'messaging.bossbus.replay.id',
  duplicate: 'messaging.bossbus.duplicate',
  serverAddress: 'server.address',
  serverPort: 'server.port',
} as const

/** The database server of the bus. */
export interface ServerAddress {
  /** A name, an IP address, or the path of a Unix socket. */
  readonly host: string
  readonly port: number | undefined
}

/** What the bus does, as `messaging.operation.name` has it. */
export type OperationName = 'publish' | 'create' | 'process' | 'settle' | 'cancel'

/** Their types by the conventions, which have none for cancelling. */
const operationTypes: Readonly<Record<OperationName, string | undefined>> = {
  publish: 'send',
  create: 'create',
  process: 'process',
  settle: 'settle',
  cancel: undefined,
}

/**
 * The attributes that every span and most metrics of an operation have. Undefined ones are left out.
 *
 * @param server - of spans of what is asked of the database
 */
export function operationAttributes(
  operation: OperationName,
  type: string | undefined,
  subscription: string | undefined,
  server?: ServerAddress,
): Attributes {
  const operationType = operationTypes[operation]
  const attributes: Attributes = {
    [attributeNames.system]: messagingSystem,
    [attributeNames.operationName]: operation,
  }
  if (operationType !== undefined) attributes[attributeNames.operationType] = operationType
  if (type !== undefined) attributes[attributeNames.destination] = type
  if (subscription !== undefined) attributes[attributeNames.subscription] = subscription
  if (server !== undefined) {
    attributes[spanAttributeNames.serverAddress] = server.host
    if (server.port !== undefined) attributes[spanAttributeNames.serverPort] = server.port
  }
  return attributes
}

/** What spans say of a single event, before it has an id. */
export function eventAttributes({
  tenantId,
  correlationId,
}: {
  readonly tenantId: string
  readonly correlationId?: string | undefined
}): Attributes {
  const attributes: Attributes = { [spanAttributeNames.tenant]: tenantId }
  if (correlationId !== undefined) attributes[spanAttributeNames.conversationId] = correlationId
  return attributes
}

/** The type that all events have; undefined where they have several. */
export function commonTypeOf(events: readonly { readonly type: string }[]): string | undefined {
  const [first] = events
  return first !== undefined && events.every(({ type }) => type === first.type) ? first.type : undefined
}

/** `publish payment.paid` */
export function spanName(operation: OperationName, type: string | undefined): string {
  return type === undefined ? operation : `${operation} ${type}`
}
