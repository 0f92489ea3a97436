import type { Executor } from '../database/database.ts'
import { subscriptionNotFound } from '../delivery/registry/find-subscription.ts'
import { limits } from '../foundation/limits.ts'
import { idOption, textOption } from '../foundation/options.ts'
import type { DeliveryState } from './delivery-status.ts'
import type { DeliveryReason } from './delivery-reason.ts'
import type { EventFacts } from './explain-facts.ts'
import { deliveryReasons, eventReason } from './explain-reasons.ts'
import { sentenceOf } from './explain-sentences.ts'

/** Why an event is where it is. */
export interface Explanation {
  readonly id: string
  /** For a person. */
  readonly sentence: string
  readonly isInLog: boolean
  readonly type: string | undefined
  readonly tenantId: string | undefined
  /**
   * What stops it altogether: it is cancelled, scheduled or not dispatched yet. Undefined once it is dispatched, and if it is not in the log.
   */
  readonly reason: DeliveryReason | undefined
  /** By name. Empty if the event is not in the log. */
  readonly subscriptions: readonly SubscriptionExplanation[]
}

/** Why an event is where it is for one subscription. */
export interface SubscriptionExplanation {
  readonly subscription: string
  /** As `bus.deliveries` says it. Undefined if the subscription neither has nor had the event. */
  readonly state: DeliveryState | undefined
  /** One sentence for `reason`. */
  readonly sentence: string
  readonly reason: DeliveryReason
  /** What is in its way besides: it would wait for this even without `reason`. */
  readonly also: readonly DeliveryReason[]
}

/**
 * @param source - the SQL function to call: the operator's, or the one of the current tenant
 * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`, `BUS_SUBSCRIPTION_NOT_FOUND`
 */
export async function explainEvent(
  executor: Executor,
  source: 'bus.event_facts' | 'bus.tenant_event_facts',
  given: unknown,
  subscription: unknown,
): Promise<Explanation> {
  const id = idOption('id', given)
  const name =
    subscription === undefined
      ? null
      : textOption('subscription', subscription, { max: limits.subscriptionNameLength })
  const { rows } = await executor.query<{ facts: string | null }>(
    `select ${source}($1::uuid, $2)::text as facts`,
    [id, name],
  )
  const text = rows[0]?.facts ?? null
  if (text === null)
    return {
      id,
      sentence: `There is no event ${id} in the log.`,
      isInLog: false,
      type: undefined,
      tenantId: undefined,
      reason: undefined,
      subscriptions: [],
    }
  const facts = JSON.parse(text) as EventFacts
  const isOperator = source === 'bus.event_facts'
  if (name !== null && isOperator && facts.subscriptions.length === 0)
    throw subscriptionNotFound(name)
  const subscriptions = facts.subscriptions.map((each) => {
    const [reason, ...also] = deliveryReasons(facts, each)
    return toExplanation(
      each.name,
      each.delivery?.state ?? (each.isHeld ? 'waiting' : undefined),
      reason,
      also,
    )
  })
  const reason = eventReason(facts)
  return {
    id,
    sentence: reason === undefined ? summaryOf(subscriptions) : sentenceOf(reason),
    isInLog: true,
    type: facts.type,
    tenantId: facts.tenantId,
    reason,
    subscriptions,
  }
}

function toExplanation(
  subscription: string,
  state: DeliveryState | undefined,
  reason: DeliveryReason = { reason: 'waiting', aheadCount: undefined, isPartial: false },
  also: readonly DeliveryReason[] = [],
): SubscriptionExplanation {
  return { subscription, state, sentence: sentenceOf(reason), reason, also }
}

const words: readonly (readonly [state: DeliveryState, text: string])[] = [
  ['dead', 'dead for'],
  ['retrying', 'retrying for'],
  ['delivering', 'being delivered to'],
  ['waiting', 'waiting for'],
  ['expired', 'expired for'],
  ['erased', 'erased for'],
  ['discarded', 'discarded for'],
  ['delivered', 'delivered to'],
]

/** Names of one state that a summary lists. */
const maxNames = 3

/** What has become of a dispatched event, what needs somebody first. */
function summaryOf(subscriptions: readonly SubscriptionExplanation[]): string {
  const [only] = subscriptions
  if (only !== undefined && subscriptions.length === 1) return only.sentence
  const parts = words.flatMap(([state, text]) => {
    const names = subscriptions.filter((each) => each.state === state).map((each) => each.subscription)
    if (names.length === 0) return []
    const shown = names.length <= maxNames ? names.join(', ') : `${names.length} subscriptions`
    return `${text} ${shown}`
  })
  if (parts.length === 0)
    return subscriptions.length === 0
      ? 'Dispatched to nobody: there are no subscriptions that concern it.'
      : 'Dispatched to nobody: no subscription wanted it.'
  const sentence = parts.join('; ')
  return `${sentence.charAt(0).toUpperCase()}${sentence.slice(1)}.`
}
