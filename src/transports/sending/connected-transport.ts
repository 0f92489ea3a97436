import { ConfigurationError, DeliveryError } from '../../foundation/errors.ts'
import { boundedCall } from './bounded-call.ts'
import type { Transport } from './transport.ts'

/** A transport that makes its client itself, when it is first used. */
export interface ConnectedTransportParts<M> extends Pick<Transport, 'name' | 'order' | 'maxEvents'> {
  /** Loads what the client comes from. Called once, by `open`; {@link loadPackage} does it. */
  readonly load: () => Promise<M>
  /** Connects, and gives the transport and what ends the client. Called again after it failed. */
  readonly connect: (loaded: M) => Promise<Connected>
}

/** A connection, and how it is given back. */
interface Connected {
  readonly transport: Transport
  readonly end: () => Promise<void>
  /** Settles when the client has given up, as after a login that was refused: the next call connects anew. */
  readonly ended?: Promise<unknown> | undefined
}

/** How long a call waits for the connection. */
const connectMs = 30_000

/** For transports by URL: a system that is down when the bus starts is connected to later. */
export function createConnectedTransport<M>(parts: ConnectedTransportParts<M>): Transport {
  const { name, order, maxEvents, load, connect } = parts
  let loading: Promise<M> | undefined
  let connecting: Promise<Connected> | undefined
  let isClosed = false

  async function connected(signal: AbortSignal): Promise<Transport> {
    if (isClosed) throw closedError(name)
    loading ??= load()
    const loaded = await loading
    if (connecting === undefined) {
      const attempt = connect(loaded)
      connecting = attempt
      void forgetWhenEnded(attempt)
    }
    return (await boundedCall(connecting, { signal, timeoutMs: connectMs })).transport
  }

  async function forgetWhenEnded(attempt: Promise<Connected>): Promise<void> {
    const made = await attempt.catch(() => undefined)
    if (made !== undefined) {
      if (made.ended === undefined) return
      await made.ended.catch(() => {})
    }
    if (connecting !== attempt) return
    connecting = undefined
    await giveBack(made)
  }

  async function giveBack(made: Connected | undefined): Promise<void> {
    if (made === undefined) return
    await made.transport.close()
    await made.end().catch(() => {})
  }

  return {
    name,
    order,
    maxEvents,
    async open() {
      loading ??= load()
      await loading
    },
    publish: async (events, call) => (await connected(call.signal)).publish(events, call),
    check: async (call) => (await connected(call.signal)).check(call),
    async close() {
      isClosed = true
      const attempt = connecting
      connecting = undefined
      await giveBack(await attempt?.catch(() => undefined))
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
