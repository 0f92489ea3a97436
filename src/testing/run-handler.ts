import type { EventCatalogue, EventType } from '../events/catalogue.ts'
import type { EventOf, NewEvent, StoredEvent } from '../events/envelope.ts'
import type { BusLogger } from '../foundation/logger.ts'
import {
  assertObject,
  describe,
  integerOption,
  invalidOption,
  refuseUnknownKeys,
} from '../foundation/options.ts'
import { compilePatterns, type EventPattern, type MatchedType } from '../events/pattern.ts'
import { createContextPublisher } from '../delivery/attempts/context-publisher.ts'
import type { DeliveryMode, SubscriptionOptions } from '../delivery/subscriptions/subscription-options.ts'
import { resolveSubscription } from '../delivery/subscriptions/subscription.ts'
import type { DrizzleTransaction } from '../outbox/transactions/caller-connection.ts'
import { limits } from '../foundation/limits.ts'
import { createFakePublisher, toStored } from './fake-publisher.ts'
import { checkEvents, type UncheckedEvent } from '../outbox/publish/check-events.ts'

/** The context of the call, which the handler receives as `ctx`. */
export interface RunHandlerOptions {
  /** @defaultValue `1` */
  readonly attempt?: number | undefined
  /** The id of a replay: the handler sees the event as one that is replayed. @defaultValue none */
  readonly replayId?: string | undefined
  /** @defaultValue one that is never aborted */
  readonly signal?: AbortSignal | undefined
  /** @defaultValue one that logs nowhere */
  readonly log?: BusLogger | undefined
  /** The `source` of the event and of the events that the handler publishes. @defaultValue `'test'` */
  readonly source?: string | undefined
}

/** The result of calling a handler. */
export interface HandlerRun<C extends EventCatalogue> {
  /** The event as the handler received it. */
  readonly event: StoredEvent
  /** The events it published, in order, as they would be stored: with the tenant, correlation and cause of the handled event. */
  readonly published: readonly EventOf<C, EventType<C>>[]
  /** The ids that it cancelled. */
  readonly cancelled: readonly string[]
  /** Its return value. */
  readonly returned: unknown
}

type EventFor<C extends EventCatalogue, P extends EventPattern<C>> = Extract<
  NewEvent<C, 'tenantId'>,
  { readonly type: MatchedType<C, P> }
>

/** An exactly-once handler needs a transaction: a real one that the test rolls back, or a substitute. */
type OptionsFor<M, Tx> = M extends 'exactly-once'
  ? RunHandlerOptions & { readonly tx: Tx }
  : RunHandlerOptions & { readonly tx?: undefined }

const quiet: BusLogger = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }

/**
 * Calls the handler of a subscription with an event, as a bus would, without a database. The payload goes through its
 * schema, and the events that the handler publishes are validated and kept. `where` is ignored, because only PostgreSQL
 * can evaluate it. Without `tenantId` the event belongs to the tenant `test`.
 *
 * @example
 * ```ts
 * const { published } = await runHandler(events, openCase, { type: 'payment.paid', payload: { paymentId: '42', amountCents: 4200 } })
 * ```
 * @throws the handler's error; {@link ConfigurationError} `BUS_INVALID_OPTION`; {@link InvalidEventError}
 */
export async function runHandler<
  const C extends EventCatalogue,
  const P extends EventPattern<C>,
  const M extends DeliveryMode = 'at-least-once',
  Tx = DrizzleTransaction,
>(
  events: C,
  subscription: SubscriptionOptions<C, P, M, Tx>,
  event: EventFor<C, P>,
  ...[options]: M extends 'exactly-once' ? [options: OptionsFor<M, Tx>] : [options?: OptionsFor<M, Tx>]
): Promise<HandlerRun<C>> {
  const given: RunHandlerOptions & { readonly tx?: unknown } = options ?? {}
  assertObject('options like { attempt, tx }', given)
  refuseUnknownKeys(given, ['attempt', 'replayId', 'signal', 'log', 'source', 'tx'], 'runHandler')
  const { signal = new AbortController().signal, log = quiet, source = 'test', tx, replayId } = given
  const attempt = integerOption('attempt', given.attempt, { min: 1, max: 1000, default: 1 })
  const { name, patterns, mode, handler } = resolveSubscription(subscription, events)
  if (mode === 'exactly-once' && (tx === undefined || tx === null))
    throw invalidOption(
      `Expected \`tx\` for the handler of \`${name}\`, which is exactly-once: a transaction that the test rolls back, or a substitute`,
      'tx',
    )
  const { type, tenantId = 'test' } = event as unknown as Partial<UncheckedEvent>
  if (typeof type !== 'string' || !compilePatterns(patterns)(type))
    throw invalidOption(
      `Expected an event that \`${name}\` handles, got one of type ${describe(type)}`,
      'type',
    )
  // The handler receives the event whichever service may publish it.
  const definition = { ...events[type], sources: undefined }
  const [checked] = await checkEvents(
    { catalogue: { ...events, [type]: definition }, source, maxPayloadBytes: limits.payloadBytes.max },
    [{ ...(event as unknown as UncheckedEvent), tenantId }],
  )
  if (checked === undefined) throw invalidOption('Expected one event')
  const stored = toStored(checked.event, checked.payload, checked.schemaVersion, source)
  const publisher = createFakePublisher(events, { source })
  const cancelled: string[] = []
  const context = {
    ...createContextPublisher(
      {
        ...(publisher as unknown as Parameters<typeof createContextPublisher>[0]),
        cancel: async (_tx, id) => cancelled.push(id) > 0,
        tryFailed: () => undefined,
      },
      stored,
      tx as DrizzleTransaction | undefined,
    ),
    ...{ attempt, signal, log, isReplay: replayId !== undefined, replayId },
    ...(tx === undefined ? {} : { tx }),
  }
  const returned = await handler(stored, context)
  return { event: stored, published: publisher.published, cancelled, returned }
}
