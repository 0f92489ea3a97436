import { subscriptionOptionNames } from '../delivery/subscriptions/subscription.ts'
import { assertSubscriptionName } from '../delivery/subscriptions/subscription-name.ts'
import type { OptionsBesideHandler } from '../delivery/subscriptions/subscription-options.ts'
import type { StoredEvent } from '../events/envelope.ts'
import { assertObject, booleanOption, invalidOption, refuseUnknownKeys } from '../foundation/options.ts'
import { createSendQueue } from './sending/send-queue.ts'
import { assertTransport, type Transport } from './sending/transport.ts'

/** Options of `bus.forward`: those of a subscription, and where to. */
export type ForwardOptions<P extends string> = Omit<OptionsBesideHandler<P, 'at-least-once'>, 'mode'> & {
  /**
   * Where the events go. With several, each has a subscription of its own, named `<name>.<name of the transport>`, so that one that is
   * down delays none of the others.
   */
  readonly to: Transport | readonly Transport[]
}

/** A subscription that forwards. */
export interface Forwarding {
  readonly transport: Transport
  /** Its options, for `bus.subscribe`. */
  readonly subscription: object
}

const optionNames = [...subscriptionOptionNames.filter((name) => name !== 'handler' && name !== 'mode'), 'to']

/** Handlers that wait for the system at the same time: as many as its calls take, within the bounds of `concurrency`. */
const fewest = 50
const most = 1000

/**
 * The subscriptions that forward events: one for each transport.
 *
 * @throws a `ConfigurationError` `BUS_INVALID_OPTION`
 */
export function forwardings(options: ForwardOptions<string>): Forwarding[] {
  assertObject('options like { name, events, to }', options)
  const { to, ...subscription } = options
  if ('handler' in subscription || 'mode' in subscription)
    throw invalidOption('Expected neither `handler` nor `mode` in bus.forward: the transport is the handler')
  refuseUnknownKeys(options, optionNames, 'bus.forward')
  assertSubscriptionName(subscription.name)
  const isList = Array.isArray(to)
  const transports = (isList ? (to as readonly Transport[]) : [to as Transport]).flatMap(
    (given: Transport) => {
      assertTransport(given)
      return given.targets ?? [given]
    },
  )
  if (transports.length === 0) throw invalidOption('Expected `to` to have a transport', 'to')
  const isNamed = isList || transports.length > 1
  const names = transports.map(({ name }, index) => {
    const sameBefore = transports.slice(0, index).filter((other) => other.name === name).length
    return sameBefore === 0 ? name : `${name}-${sameBefore + 1}`
  })
  return transports.map((transport, index) => {
    const ordered = booleanOption('ordered', subscription.ordered, transport.order === 'key')
    if (ordered && transport.order === 'none')
      throw invalidOption(
        `Expected no \`ordered\` with ${transport.name}, which does not keep events in order`,
        'ordered',
      )
    const queue = createSendQueue(transport)
    return {
      transport,
      subscription: {
        ...subscription,
        concurrency: subscription.concurrency ?? Math.min(Math.max(fewest, transport.maxEvents * 2), most),
        ordered,
        name: isNamed ? `${subscription.name}.${names[index]}` : subscription.name,
        handler: async (event: StoredEvent, { signal }: { readonly signal: AbortSignal }) =>
          queue.send(event, signal),
      },
    }
  })
}
