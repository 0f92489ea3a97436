import type { Executor } from '../database/database.ts'
import { missingSubscription } from '../delivery/registry/find-subscription.ts'
import { limits } from '../foundation/limits.ts'
import { idOption, textOption } from '../foundation/options.ts'
import type { DeliveryState } from './delivery-status.ts'
import type { DeliveryReason } from './delivery-reason.ts'
import { groupReplays, type ReplayedDelivery, type ReplayRow } from './event-deliveries.ts'
import type { EventFacts } from './explain-facts.ts'
import { deliveryReasons, eventReason } from './explain-reasons.ts'
import { withStrayedJobs } from './strayed-jobs.ts'
import { isOpenReplay, replaySentence, sentenceOf } from './explain-sentences.ts'

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
  /** As `bus.deliveries` says it: what became of it in replays, and in those that have it still to deliver. Omitted if there are none. */
  readonly replays?: readonly ReplayedDelivery[]
}

/**
 * @param of - whose SQL functions to call: those of operators, or those of the current tenant
 * @throws a {@link ConfigurationError} `BUS_INVALID_OPTION`, `BUS_SUBSCRIPTION_NOT_FOUND`
 */
export async function explainEvent(
  executor: Executor,
  of: 'event' | 'tenant',
  given: unknown,
  subscription: unknown,
): Promise<Explanation> {
  const id = idOption('id', given)
  const name =
    subscription === undefined
      ? null
      : textOption('subscription', subscription, { max: limits.subscriptionNameLength })
  const { rows } = await executor.query<{ facts: string | null; replays: readonly ReplayRow[] | null }>(
    `select bus.${of === 'event' ? 'event_facts' : 'tenant_event_facts'}($1::uuid, $2)::text as facts,
       (select jsonb_agg(to_jsonb(r)) from bus.${of}_replays($1::uuid) r) as replays`,
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
  const isOperator = of === 'event'
  const read = JSON.parse(text) as EventFacts
  const facts = isOperator ? await withStrayedJobs(executor, id, read) : read
  const replays = groupReplays(rows[0]?.replays)
  if (name !== null && isOperator && facts.subscriptions.length === 0)
    throw await missingSubscription(executor, name)
  const subscriptions = facts.subscriptions.map((each) => {
    const [reason, ...also] = deliveryReasons(facts, each)
    const state = each.delivery?.state ?? (each.isHeld ? 'waiting' : undefined)
    return toExplanation({ subscription: each.name, state, replays: replays.get(each.name) }, reason, also)
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

interface Explained {
  readonly subscription: string
  readonly state: DeliveryState | undefined
  readonly replays: readonly ReplayedDelivery[] | undefined
}

function toExplanation(
  { subscription, state, replays }: Explained,
  reason: DeliveryReason = { reason: 'waiting', aheadCount: undefined, isPartial: false },
  also: readonly DeliveryReason[] = [],
): SubscriptionExplanation {
  const sentences = [sentenceOf(reason), ...(replays ?? []).filter(isOpenReplay).map(replaySentence)]
  const explained = { subscription, state, sentence: sentences.join(' '), reason, also }
  return replays === undefined ? explained : { ...explained, replays }
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

function namesOf(subscriptions: readonly SubscriptionExplanation[]): string {
  if (subscriptions.length > maxNames) return `${subscriptions.length} subscriptions`
  return subscriptions.map(({ subscription }) => subscription).join(', ')
}

/** What has become of a dispatched event, what needs somebody first. */
function summaryOf(subscriptions: readonly SubscriptionExplanation[]): string {
  const [only] = subscriptions
  if (only !== undefined && subscriptions.length === 1) return only.sentence
  const parts = words.flatMap(([state, text]) => {
    const inState = subscriptions.filter((each) => each.state === state)
    return inState.length === 0 ? [] : `${text} ${namesOf(inState)}`
  })
  const replayed = subscriptions.filter(({ replays }) => replays?.some(isOpenReplay) === true)
  if (replayed.length > 0) parts.push(`in a replay to ${namesOf(replayed)}`)
  if (parts.length === 0)
    return subscriptions.length === 0
      ? 'Dispatched to nobody: there are no subscriptions that concern it.'
      : 'Dispatched to nobody: no subscription wanted it.'
  const sentence = parts.join('; ')
  return `${sentence.charAt(0).toUpperCase()}${sentence.slice(1)}.`
}
