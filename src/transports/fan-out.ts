import { invalidOption } from '../foundation/options.ts'
import { assertTransport, type PublishResult, type Transport } from './sending/transport.ts'

const gravity: readonly PublishResult['status'][] = ['delivered', 'throttled', 'retry', 'rejected']

/**
 * Several transports as one. `bus.forward` makes a subscription for each of them, so that they do not wait for each other. A call of its
 * own `publish` sends each event to all, and gives the worst result of each.
 *
 * @throws a `ConfigurationError` `BUS_INVALID_OPTION`
 */
export function fanOut(transports: readonly Transport[]): Transport {
  const given: unknown = transports
  if (!Array.isArray(given) || given.length === 0)
    throw invalidOption('Expected fanOut to be given a list of transports')
  for (const transport of transports) assertTransport(transport)
  const targets = transports.flatMap((transport) => transport.targets ?? [transport])
  return {
    name: 'fan-out',
    order: targets.every(({ order }) => order === 'key') ? 'key' : 'none',
    maxEvents: Math.min(...targets.map(({ maxEvents }) => maxEvents)),
    targets,
    async open() {
      await Promise.all(targets.map(async (target) => target.open?.()))
    },
    async publish(events, call) {
      const all = await Promise.all(targets.map(async (target) => target.publish(events, call)))
      return events.map((_, index) =>
        all
          .map(
            (results): PublishResult => results[index] ?? { status: 'retry', error: new Error('no result') },
          )
          .reduce((worst, result) =>
            gravity.indexOf(result.status) > gravity.indexOf(worst.status) ? result : worst,
          ),
      )
    },
    async check(call) {
      await Promise.all(targets.map(async (target) => target.check(call)))
    },
    async close() {
      await Promise.all(targets.map(async (target) => target.close()))
    },
  }
}
