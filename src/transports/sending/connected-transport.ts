import { ConfigurationError, DeliveryError } from '../../foundation/errors.ts'
import type { Transport } from './transport.ts'

/** A transport that makes its client itself, when it is first used. */
export interface ConnectedTransportParts<M> extends Pick<Transport, 'name' | 'order' | 'maxEvents'> {
  /** Loads what the client comes from. Called once, by `open`; {@link loadPackage} does it. */
  readonly load: () => Promise<M>
  /** Connects, and gives the transport and what ends the client. Called again after it failed. */
  readonly connect: (
    loaded: M,
  ) => Promise<{ readonly transport: Transport; readonly end: () => Promise<void> }>
}

/** For transports by URL: a system that is down when the bus starts is connected to later. */
export function createConnectedTransport<M>(parts: ConnectedTransportParts<M>): Transport {
  const { name, order, maxEvents, load, connect } = parts
  let loading: Promise<M> | undefined
  let connecting: ReturnType<typeof connect> | undefined
  let isClosed = false

  async function connected(): Promise<Transport> {
    if (isClosed) throw closedError(name)
    loading ??= load()
    const loaded = await loading
    if (connecting === undefined) {
      const attempt = connect(loaded)
      connecting = attempt
      attempt.catch(() => {
        if (connecting === attempt) connecting = undefined
      })
    }
    return (await connecting).transport
  }

  return {
    name,
    order,
    maxEvents,
    async open() {
      loading ??= load()
      await loading
    },
    publish: async (events, call) => (await connected()).publish(events, call),
    check: async (call) => (await connected()).check(call),
    async close() {
      isClosed = true
      const made = await connecting?.catch(() => {})
      connecting = undefined
      if (made === undefined) return
      await made.transport.close()
      await made.end()
    },
  }
}

/** The error of a transport that was closed: the event is sent by another process, or after the next start. */
export function closedError(name: string): DeliveryError {
  return new DeliveryError('BUS_TRANSPORT_CLOSED', `The transport ${name} was closed`, { retryable: true })
}

/**
 * Loads the package of a client, which is an optional peer dependency.
 *
 * @param load - `() => import('…')`
 * @throws a `ConfigurationError` `BUS_TRANSPORT_CLIENT_MISSING`
 */
export async function loadPackage<M>(packageName: string, load: () => Promise<M>): Promise<M> {
  try {
    return await load()
  } catch (error) {
    throw new ConfigurationError(
      'BUS_TRANSPORT_CLIENT_MISSING',
      `The package \`${packageName}\` could not be loaded: run \`npm install ${packageName}\``,
      { cause: error },
    )
  }
}
