import type { Explanation, SubscriptionExplanation } from '../../operations/explain.ts'
import type { DeliveryReason, ExplainedInstance } from '../../operations/delivery-reason.ts'
import type { Lookup, LookupMatch } from '../../operations/lookup.ts'
import {
  anyOf,
  choice,
  flag,
  integer,
  list,
  number,
  objectOf,
  optional,
  ref,
  text,
  time,
  uuid,
  type PropertiesOf,
  type Schema,
} from './schema.ts'
import { deliveryStates, operationKinds, operationStates } from './state-words.ts'

/** The members of a union that have these values in the property that tells them apart, without that property. */
type Member<U, Tag extends keyof U, V extends string> = Omit<Extract<U, Readonly<Record<Tag, V>>>, Tag>

/**
 * The schema of one member of a union, which the compiler compares with it.
 *
 * @param tag - the property that tells the members apart
 */
const memberOf =
  <U>() =>
  <const Tag extends keyof U & string>(tag: Tag) =>
  <const V extends U[Tag] & string>(
    values: readonly V[],
    properties: PropertiesOf<Member<U, Tag, V>>,
  ): Schema => {
    const all = { [tag]: choice(...values), ...properties }
    // The tag is no property of `Member`.
    return objectOf<Record<string, unknown>>(all as unknown as PropertiesOf<Record<string, unknown>>)
  }

const reason = memberOf<DeliveryReason>()('reason')
const match = memberOf<LookupMatch>()('kind')

const ofTenant = { tenantId: text(), id: uuid('One of its events.') }
const isPartial = flag()

const reasons = [
  reason(['not-dispatched'], { relayCount: optional(integer()) }),
  reason(['scheduled'], { until: optional(time()) }),
  reason(['cancelled'], { at: time() }),
  reason(['no-pattern-matches'], { type: text(), patterns: list(text()) }),
  reason(['predicate-false'], { where: list(text()) }),
  reason(['predicate-error'], { where: list(text()), problem: optional(text()) }),
  reason(['not-routed'], { registeredAt: optional(time()) }),
  reason(['held'], {}),
  reason(['paused'], { since: time(), by: optional(text()), why: optional(text()) }),
  reason(['circuit-open'], { since: time(), until: optional(time()), error: optional(text()) }),
  reason(['key-blocked', 'key-parked', 'key-overrunning'], {
    orderingKey: text(),
    byEventId: optional(uuid()),
    since: optional(time()),
  }),
  reason(['behind-key'], {
    orderingKey: text(),
    firstEventId: optional(uuid()),
    aheadCount: integer(),
    isPartial,
  }),
  reason(['no-instance'], { service: optional(text()) }),
  reason(['not-covered'], { since: optional(time()), versions: list(text()) }),
  reason(['tenant-limit'], { limit: integer(), until: time() }),
  reason(['behind-tenant'], { aheadCount: integer(), isPartial }),
  reason(['waiting'], { aheadCount: optional(integer()), isPartial }),
  reason(['delivering'], {
    since: optional(time()),
    heartbeatAt: optional(time()),
    isOverdue: flag(),
    instances: list(ref('ExplainedInstance')),
    eventCount: optional(integer()),
  }),
  reason(['retrying'], { attempts: integer(), until: optional(time()), error: optional(ref('LastError')) }),
  reason(['dead'], { attempts: integer(), since: optional(time()), error: optional(ref('LastError')) }),
  reason(['expired', 'erased'], { at: optional(time()) }),
  reason(['discarded'], {
    at: optional(time()),
    by: optional(text()),
    because: optional(text()),
    replacedBy: optional(uuid()),
  }),
  reason(['delivered'], {
    at: optional(time()),
    attempt: integer(),
    durationMs: optional(number()),
    instanceId: optional(text()),
  }),
]

const matches = [
  match(['event'], { ...ofTenant, type: text() }),
  match(['job'], {
    jobId: uuid(),
    queue: text(),
    state: text(),
    subscription: optional(text()),
    isDeadLetter: flag(),
    eventIds: list(text()),
    eventCount: integer(),
  }),
  match(['operation'], {
    id: uuid(),
    operation: choice(...operationKinds),
    state: choice(...operationStates),
  }),
  match(['instance'], { id: text(), service: text(), host: text(), pid: integer() }),
  match(['audit'], { id: uuid(), action: text(), by: text(), at: time() }),
  match(['business-id', 'idempotency-key'], ofTenant),
  match(['correlation'], ofTenant),
  match(['subject'], ofTenant),
  match(['tenant'], ofTenant),
  match(['ordering-key'], {
    tenantId: text(),
    id: uuid('The first event that it has to deliver.'),
    subscription: text(),
    state: choice('active', 'blocked', 'parked', 'overrunning'),
  }),
  match(['subscription'], { name: text(), service: text() }),
  match(['type'], { type: text(), id: uuid('Its newest event.') }),
]

/** Schemas of explanations and of what a text stands for. */
export const explainSchemas = {
  ExplainedInstance: objectOf<ExplainedInstance>({
    id: text(),
    service: text(),
    host: text(),
    pid: integer(),
    version: text(),
  }),
  DeliveryReason: anyOf(...reasons),
  SubscriptionExplanation: objectOf<SubscriptionExplanation>({
    subscription: text(),
    state: optional(choice(...deliveryStates)),
    sentence: text('One sentence for `reason`.'),
    reason: ref('DeliveryReason'),
    also: list(ref('DeliveryReason'), 'What is in its way besides.'),
    replays: optional(list(ref('ReplayedDelivery'))),
  }),
  Explanation: objectOf<Explanation>(
    {
      id: uuid(),
      sentence: text('For a person.'),
      isInLog: flag(),
      type: optional(text()),
      tenantId: optional(text()),
      reason: optional(ref('DeliveryReason')),
      subscriptions: list(ref('SubscriptionExplanation')),
    },
    'Why an event is where it is.',
  ),
  LookupMatch: anyOf(...matches),
  Lookup: objectOf<Lookup>(
    {
      text: text(),
      matches: list(ref('LookupMatch'), 'Up to ten of each kind.'),
      isPartial: flag('There are more months or tenants than were searched.'),
    },
    'What a text stands for.',
  ),
} as const
