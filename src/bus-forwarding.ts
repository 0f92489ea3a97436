import type { SubscriptionHandle } from './bus-interface.ts'
import type { BusSubscriptions } from './bus-subscriptions.ts'
import { reasonOf } from './foundation/error-reason.ts'
import type { BusLogger } from './foundation/logger.ts'
import { forwardings, type ForwardOptions } from './transports/forward.ts'
import type { Transport } from './transports/sending/transport.ts'

/** The subscriptions of a bus that forward, and their transports. */
export interface BusForwarding {
  readonly forward: (options: ForwardOptions<string>) => SubscriptionHandle
  /**
   * Opens the transports of the subscriptions that run here.
   * @throws a `ConfigurationError`
   */
  readonly open: (chosen: readonly { readonly name: string }[]) => Promise<void>
  /** After the workers have stopped. */
  readonly close: () => Promise<void>
}

export function createBusForwarding(
  subscribe: BusSubscriptions['subscribe'],
  hasStarted: () => boolean,
  logger: BusLogger,
): BusForwarding {
  const transports = new Map<string, Transport>()

  async function close(transport: Transport): Promise<void> {
    await transport.close().catch((error: unknown) => {
      logger.warn({ transport: transport.name, reason: reasonOf(error) }, 'a transport could not be closed')
    })
  }

  return {
    forward(options) {
      const made = forwardings(options)
      const handles: SubscriptionHandle[] = []
      const opening: Promise<unknown>[] = []
      try {
        for (const { transport, subscription } of made) {
          const handle = subscribe(subscription)
          handles.push(handle)
          transports.set(handle.name, transport)
          if (hasStarted()) opening.push(Promise.resolve(transport.open?.()))
        }
      } catch (error) {
        // All of them, or none.
        for (const handle of handles) {
          transports.delete(handle.name)
          handle.stop({ graceMs: 0 }).catch(() => {})
        }
        throw error
      }
      for (const each of opening) each.catch(() => {})
      const [first] = handles
      return {
        name: handles.length === 1 && first !== undefined ? first.name : options.name,
        async ready() {
          await Promise.all([...opening, ...handles.map(async (handle) => handle.ready())])
        },
        async stop(stopOptions) {
          await Promise.all(handles.map(async (handle) => handle.stop(stopOptions)))
          await Promise.all(made.map(async ({ transport }) => close(transport)))
        },
      }
    },
    async open(chosen) {
      await Promise.all(chosen.map(async ({ name }) => transports.get(name)?.open?.()))
    },
    async close() {
      await Promise.all([...new Set(transports.values())].map(close))
    },
  }
}
