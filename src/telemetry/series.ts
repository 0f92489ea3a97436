import type { Attributes } from '@opentelemetry/api'
import { operationAttributes, type OperationName } from './attributes.ts'
import { attributeNames, messagingSystem, type Instrument } from './instruments.ts'
import { createKeyedByFour } from './keyed-by-four.ts'

/** The measurements of an instrument that have the same attributes. */
interface Series {
  readonly attributes: Attributes
  /** Of a counter. */
  count: number
}

/** The series of an instrument. They are few: types, subscriptions and types of errors are. */
export interface SeriesOfInstrument {
  /** The series of a measurement. Attributes that the instrument does not have are left out. */
  readonly of: (
    operation: OperationName | undefined,
    type: string | undefined,
    subscription: string | undefined,
    errorType: string | undefined,
  ) => Series
  readonly all: Iterable<Series>
}

export function createSeries({ attributes: names }: Pick<Instrument, 'attributes'>): SeriesOfInstrument {
  const known = createKeyedByFour<Series>()
  const all: Series[] = []
  const hasType = names.includes('destination')
  const hasOperationType = names.includes('operationType')

  function attributesOf(
    operation: OperationName | undefined,
    type: string | undefined,
    subscription: string | undefined,
    errorType: string | undefined,
  ): Attributes {
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

  return {
    all,
    of(operation, givenType, subscription, errorType) {
      const type = hasType ? givenType : undefined
      const found = known.get(operation, type, subscription, errorType)
      if (found !== undefined) return found
      const series = { attributes: attributesOf(operation, type, subscription, errorType), count: 0 }
      known.set(operation, type, subscription, errorType, series)
      all.push(series)
      return series
    },
  }
}
