import { describe, invalidOption, refuseUnknownKeys, textOption } from '../foundation/options.ts'
import { limits } from '../foundation/limits.ts'
import type { EventDelivery } from './event-deliveries.ts'

/** Where an event is for a subscription. What replays did is not looked for. */
export type DeliveryState = Exclude<EventDelivery['state'], 'replayed'>

/**
 * The words of outbox tables that services write themselves: `PENDING` is waiting, `PROCESSING` delivering, `PUBLISHED` delivered, `FAILED`
 * retrying, `DEAD_LETTER` dead.
 */
export type OutboxStatus = 'PENDING' | 'PROCESSING' | 'PUBLISHED' | 'FAILED' | 'DEAD_LETTER'

/** A state for any subscription, or for one. */
export type StatusFilter =
  | DeliveryState
  | OutboxStatus
  | { readonly state: DeliveryState | OutboxStatus; readonly subscription?: string | undefined }

export interface CheckedStatus {
  readonly state: DeliveryState
  readonly subscription: string | undefined
}

const states: readonly DeliveryState[] = [
  'waiting',
  'delivering',
  'retrying',
  'delivered',
  'expired',
  'erased',
  'discarded',
  'dead',
]

const outboxStates: Readonly<Record<OutboxStatus, DeliveryState>> = {
  PENDING: 'waiting',
  PROCESSING: 'delivering',
  PUBLISHED: 'delivered',
  FAILED: 'retrying',
  DEAD_LETTER: 'dead',
}

/** @throws a {@link ConfigurationError} `BUS_INVALID_OPTION` */
export function checkStatus(given: unknown): CheckedStatus {
  if (given === null || typeof given !== 'object') return { state: toState(given), subscription: undefined }
  refuseUnknownKeys(given, ['state', 'subscription'], '`status`')
  const { state, subscription } = given as { readonly state?: unknown; readonly subscription?: unknown }
  return {
    state: toState(state),
    subscription:
      subscription === undefined
        ? undefined
        : textOption('status.subscription', subscription, { max: limits.subscriptionNameLength }),
  }
}

function toState(given: unknown): DeliveryState {
  if (typeof given === 'string') {
    if (Object.hasOwn(outboxStates, given)) return outboxStates[given as OutboxStatus]
    const state = states.find((each) => each === given)
    if (state !== undefined) return state
  }
  throw invalidOption(
    `Expected \`status\` to be one of ${[...states, ...Object.keys(outboxStates)].join(', ')}, got ${describe(given)}`,
    'status',
  )
}
