import type { DeliveryReason } from './delivery-reason.ts'
import type { LastError } from './event-deliveries.ts'
import type { EventFacts, SubscriptionFacts } from './explain-facts.ts'

/** So many jobs before an event are counted. */
const maxJobsAhead = 200

/** So many events of a key before an event are counted. */
const maxKeyAhead = 10_000

const toDate = (time: string | null | undefined): Date | undefined =>
  time === null || time === undefined ? undefined : new Date(time)

/** What stops an event altogether, before any subscription has it. */
export function eventReason(facts: EventFacts): DeliveryReason | undefined {
  const cancelledAt = toDate(facts.cancelledAt)
  if (cancelledAt !== undefined) return { reason: 'cancelled', at: cancelledAt }
  if (facts.outbox === null) return undefined
  const until = toDate(facts.outbox.availableAt)
  if (until !== undefined && until > new Date(facts.now)) return { reason: 'scheduled', until }
  return { reason: 'not-dispatched', relayCount: facts.relayCount }
}

/** Why the event is where it is for a subscription: the main reason first, then what is in its way besides. */
export function deliveryReasons(facts: EventFacts, subscription: SubscriptionFacts): DeliveryReason[] {
  const { delivery } = subscription
  if (delivery === null)
    return subscription.isHeld ? [{ reason: 'held' }] : [unroutedReason(facts, subscription)]
  const error = delivery.state === 'discarded' ? undefined : toError(delivery.failure)
  const at = toDate(delivery.settledAt)
  const { attempts } = delivery
  switch (delivery.state) {
    case 'delivered':
      return [
        {
          reason: 'delivered',
          at,
          attempt: attempts,
          durationMs: delivery.durationMs ?? undefined,
          instanceId: delivery.instanceId ?? undefined,
        },
      ]
    case 'expired':
    case 'erased':
      return [{ reason: delivery.state, at }]
    case 'discarded': {
      const { discardedBy: by, reason: because, replacedBy } = delivery.failure ?? {}
      return [{ reason: 'discarded', at, by, because, replacedBy }]
    }
    case 'dead':
      if (attempts === 0 && subscription.key?.state === 'parked')
        return [keyReason(subscription.key, 'key-parked')]
      return [{ reason: 'dead', attempts, since: toDate(delivery.timeline.at(-1)?.at) ?? error?.at, error }]
    case 'delivering':
      return [deliveringReason(facts, subscription)]
    case 'retrying': {
      const until = toDate(delivery.dueAt)
      const retrying: DeliveryReason = { reason: 'retrying', attempts, until, error }
      const others = obstacles(subscription)
      return until !== undefined && until > new Date(facts.now)
        ? [retrying, ...others]
        : [...others, retrying]
    }
    default:
      return [...obstacles(subscription), ...queueReasons(facts, subscription)]
  }
}

/** Why a subscription has not received an event, or will not receive it. */
function unroutedReason(facts: EventFacts, subscription: SubscriptionFacts): DeliveryReason {
  const active = subscription.declarations.filter(({ isActive }) => isActive)
  const matching = active.filter(({ matches }) => matches)
  if (matching.length === 0)
    return {
      reason: 'no-pattern-matches',
      type: facts.type,
      patterns: [...new Set(active.flatMap(({ patterns }) => patterns))],
    }
  const where = matching.flatMap((declaration) => declaration.where ?? [])
  const isJudged = facts.erasedAt === null
  const isWanted = matching.some(({ hasWhere, result }) => !hasWhere || result === true)
  if (isJudged && !isWanted) {
    const problem =
      matching.find((declaration) => typeof declaration.problem === 'string')?.problem ?? undefined
    return matching.some(({ result }) => result === false) && problem === undefined
      ? { reason: 'predicate-false', where }
      : { reason: 'predicate-error', where, problem }
  }
  return eventReason(facts) ?? { reason: 'not-routed', registeredAt: toDate(subscription.registeredAt) }
}

/** What keeps a subscription from delivering. */
function obstacles(subscription: SubscriptionFacts): DeliveryReason[] {
  const { key, instances, job } = subscription
  const found: DeliveryReason[] = []
  if (key !== null && key.state !== 'active') found.push(keyReason(key, `key-${key.state}`))
  const pausedAt = toDate(subscription.pausedAt)
  if (pausedAt !== undefined)
    found.push({
      reason: 'paused',
      since: pausedAt,
      by: subscription.pausedBy ?? undefined,
      why: subscription.pauseReason ?? undefined,
    })
  const openedAt = toDate(subscription.circuitOpenedAt)
  if (openedAt !== undefined)
    found.push({
      reason: 'circuit-open',
      since: openedAt,
      until: toDate(subscription.circuitProbeAt),
      error: subscription.circuitReason ?? undefined,
    })
  if (instances.length === 0) found.push({ reason: 'no-instance', service: subscription.service })
  if (job?.isDeclined === true)
    found.push({
      reason: 'not-covered',
      since: toDate(subscription.uncoveredSince),
      versions: [...new Set(instances.flatMap(({ version }) => version ?? []))],
    })
  return found
}

/** What comes before an event in its queue. */
function queueReasons(
  facts: EventFacts,
  { key, job, tenantConcurrency }: SubscriptionFacts,
): DeliveryReason[] {
  if (key !== null && key.state === 'active' && key.aheadCount > 0)
    return [
      {
        reason: 'behind-key',
        orderingKey: key.orderingKey,
        firstEventId: key.firstEventId ?? undefined,
        aheadCount: Math.min(key.aheadCount, maxKeyAhead),
        isPartial: key.aheadCount > maxKeyAhead,
      },
    ]
  if (job === null || job === undefined)
    return [{ reason: 'waiting', aheadCount: undefined, isPartial: false }]
  const until = new Date(job.startAfter)
  const isOfTenant = job.flowKey === `=${facts.tenantId}` || job.flowKey === `@${facts.tenantId}`
  if (until > new Date(facts.now))
    return [
      tenantConcurrency !== null && isOfTenant
        ? { reason: 'tenant-limit', limit: tenantConcurrency, until }
        : { reason: 'scheduled', until },
    ]
  const aheadCount = job.eventsAhead
  const isPartial = (job.jobsAhead ?? 0) >= maxJobsAhead
  return [
    isOfTenant && aheadCount !== undefined && aheadCount > 0
      ? { reason: 'behind-tenant', aheadCount, isPartial }
      : { reason: 'waiting', aheadCount, isPartial },
  ]
}

function deliveringReason(facts: EventFacts, { job, instances }: SubscriptionFacts): DeliveryReason {
  const heartbeatAt = toDate(job?.heartbeatAt)
  const isOverdue =
    heartbeatAt !== undefined &&
    typeof job?.heartbeatSeconds === 'number' &&
    heartbeatAt.getTime() + job.heartbeatSeconds * 1000 < new Date(facts.now).getTime()
  return {
    reason: 'delivering',
    since: toDate(job?.startedAt),
    heartbeatAt,
    isOverdue,
    instances: instances.flatMap(({ id, service, host, pid, version }) =>
      id === undefined ||
      service === undefined ||
      host === undefined ||
      pid === undefined ||
      version === undefined
        ? []
        : { id, service, host, pid, version },
    ),
    eventCount: job?.eventCount,
  }
}

function keyReason(
  { orderingKey, failedEventId, failedAt }: NonNullable<SubscriptionFacts['key']>,
  reason: 'key-blocked' | 'key-parked' | 'key-overrunning',
): DeliveryReason {
  return { reason, orderingKey, byEventId: failedEventId ?? undefined, since: toDate(failedAt) }
}

function toError(failure: NonNullable<SubscriptionFacts['delivery']>['failure']): LastError | undefined {
  if (failure === null) return undefined
  const { name = 'Error', message = '', code, at } = failure
  return { name, message, code, at: toDate(at) }
}
