import type { Attributes } from '@opentelemetry/api'
import { attributeNames, messagingSystem } from './instruments.ts'

/** The attributes that only spans have: those of single events, of which there are too many for metrics. */
export const spanAttributeNames = {
  messageId: 'messaging.message.id',
  /** The correlation id. */
  conversationId: 'messaging.message.conversation_id',
  batchCount: 'messaging.batch.message_count',
  tenant: 'messaging.bossbus.tenant.id',
  attempt: 'messaging.bossbus.attempt',
  replay: 'messaging.bossbus.replay.id',
  duplicate: 'messaging.bossbus.duplicate',
} as const

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

/** The attributes that every span and most metrics of an operation have. Undefined ones are left out. */
export function operationAttributes(
  operation: OperationName,
  type: string | undefined,
  subscription: string | undefined,
): Attributes {
  const operationType = operationTypes[operation]
  const attributes: Attributes = {
    [attributeNames.system]: messagingSystem,
    [attributeNames.operationName]: operation,
  }
  if (operationType !== undefined) attributes[attributeNames.operationType] = operationType
  if (type !== undefined) attributes[attributeNames.destination] = type
  if (subscription !== undefined) attributes[attributeNames.subscription] = subscription
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

/** `publish payment.paid` */
export function spanName(operation: OperationName, type: string | undefined): string {
  return type === undefined ? operation : `${operation} ${type}`
}
