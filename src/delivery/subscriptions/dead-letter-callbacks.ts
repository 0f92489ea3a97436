import {
  assertObject,
  describe,
  integerOption,
  invalidOption,
  refuseUnknownKeys,
} from '../../foundation/options.ts'

/** A dead letter that a callback is told of. The payload is in the log: `bus.events.get(id)`. */
export interface DeadLetterNotice {
  /** The id of the event. */
  readonly id: string
  readonly subscription: string
  /** Undefined where the event is not in the log. */
  readonly tenantId: string | undefined
  /** `blocked` and `parked`: it holds its key. */
  readonly state: 'dead' | 'blocked' | 'parked'
  readonly attempts: number
  readonly deadAt: Date
  /** The last error. Undefined where its record is gone. */
  readonly error:
    { readonly name: string; readonly message: string; readonly code: string | undefined } | undefined
}

/** Many events of a subscription became dead letters within a time. */
export interface DeadLetterAlert {
  readonly subscription: string
  /** At least so many, within `perSeconds`. */
  readonly count: number
  readonly perSeconds: number
  /** When the oldest of them became one. */
  readonly firstAt: Date
}

/** When to be told that a subscription collects dead letters. */
export interface DeadLetterAlertOptions {
  /** How many dead letters, 1 to 10,000. */
  readonly count: number
  /** Within how many seconds, 1 to 86,400. It is told once in this time at most. */
  readonly perSeconds: number
  /** Awaited. If it throws, it is called again. */
  readonly onAlert: (alert: DeadLetterAlert) => unknown
}

/**
 * What is called when events become dead letters: in some process that runs the subscription, at least once for each, also after a crash.
 * Delivery does not wait for it. A callback that throws, or takes longer than 30 seconds, is called again, with growing delays of up
 * to five minutes, for a day.
 */
export interface DeadLetterCallbacks {
  /** Told of each event that becomes a dead letter. */
  readonly onDeadLetter?: ((letter: DeadLetterNotice) => unknown) | undefined
  /** Told when there are many. */
  readonly deadLetterAlert?: DeadLetterAlertOptions | undefined
}

export const callbackNames = ['onDeadLetter', 'deadLetterAlert'] as const

/** @param of - what has the options, for messages. @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
export function resolveCallbacks(of: string, given: DeadLetterCallbacks): DeadLetterCallbacks {
  const { onDeadLetter, deadLetterAlert } = given
  if (onDeadLetter !== undefined && typeof onDeadLetter !== 'function')
    throw invalidOption(
      `Expected \`onDeadLetter\` of ${of} to be a function, got ${describe(onDeadLetter)}`,
      'onDeadLetter',
    )
  return {
    ...(onDeadLetter === undefined ? {} : { onDeadLetter }),
    ...(deadLetterAlert === undefined ? {} : { deadLetterAlert: resolveAlert(deadLetterAlert) }),
  }
}

function resolveAlert(given: DeadLetterAlertOptions): DeadLetterAlertOptions {
  assertObject('`deadLetterAlert` to be an object like { count, perSeconds, onAlert }', given)
  refuseUnknownKeys(given, ['count', 'perSeconds', 'onAlert'], '`deadLetterAlert`')
  const { onAlert } = given
  if (typeof onAlert !== 'function')
    throw invalidOption(
      `Expected \`deadLetterAlert.onAlert\` to be a function, got ${describe(onAlert)}`,
      'deadLetterAlert.onAlert',
    )
  return Object.freeze({
    // Both are required: 0 is no valid default.
    count: integerOption('deadLetterAlert.count', given.count, { min: 1, max: 10_000, default: 0 }),
    perSeconds: integerOption('deadLetterAlert.perSeconds', given.perSeconds, {
      min: 1,
      max: 86_400,
      default: 0,
    }),
    onAlert,
  })
}
