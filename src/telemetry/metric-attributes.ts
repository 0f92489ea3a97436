import type { Attributes } from '@opentelemetry/api'
import { operationAttributes, type OperationName } from './attributes.ts'
import { attributeNames, messagingSystem, type Instrument } from './instruments.ts'

/** Returns the attributes of a measurement: those that the instrument has. */
export type AttributesFor = (
  operation: OperationName | undefined,
  type: string | undefined,
  subscription: string | undefined,
  errorType: string | undefined,
) => Attributes

type Level<V> = Map<string | undefined, V>

/** Returns the same object for the same attributes: types, subscriptions and types of errors are few. */
export function createAttributes({ attributes: names }: Pick<Instrument, 'attributes'>): AttributesFor {
  const known: Level<Level<Level<Level<Attributes>>>> = new Map()
  const hasType = names.includes('destination')
  const hasOperationType = names.includes('operationType')

  const make: AttributesFor = (operation, type, subscription, errorType) => {
    const attributes: Attributes =
      operation === undefined
        ? { [attributeNames.system]: messagingSystem }
        : operationAttributes(operation, undefined, undefined)
    if (!hasOperationType) delete attributes[attributeNames.operationType]
    if (type !== undefined) attributes[attributeNames.destination] = type
    if (subscription !== undefined) attributes[attributeNames.subscription] = subscription
    if (errorType !== undefined) attributes[attributeNames.errorType] = errorType
    return attributes
  }

  return (operation, givenType, subscription, errorType) => {
    const type = hasType ? givenType : undefined
    const found = known.get(operation)?.get(type)?.get(subscription)?.get(errorType)
    if (found !== undefined) return found
    const made = make(operation, type, subscription, errorType)
    below(below(below(known, operation), type), subscription).set(errorType, made)
    return made
  }
}

function below<V>(level: Level<Level<V>>, key: string | undefined): Level<V> {
  const found = level.get(key)
  if (found !== undefined) return found
  const made: Level<V> = new Map()
  level.set(key, made)
  return made
}
