import { EventEmitter } from 'node:events'
import pg from 'pg'
import { BusClient } from './bus-client.ts'
import type { ConnectionSource } from './connection-source.ts'
import { toConnectError } from './database-errors.ts'
import type { SessionKind } from './session-settings.ts'

type Connected = (
  error: Error | undefined,
  client: pg.PoolClient | undefined,
  release: (release?: unknown) => void,
) => void

/** A pool that asks the source for the address of each new connection. */
export class BusPool extends pg.Pool {
  readonly #source: ConnectionSource
  readonly #toOptions: (config: pg.PoolConfig) => pg.PoolOptions
  readonly #sizeOf: (max: number | undefined) => number

  /**
   * @param sizeOf - the pool's share of the connections, if the bus may have `max`
   * @param kind - whose statements its sessions run
   * @param onOpening - called before each connection is opened; if it throws, the connection is not opened
   */
  constructor(
    source: ConnectionSource,
    sizeOf: (max: number | undefined) => number,
    kind: SessionKind,
    onOpening: (client: BusClient) => void,
  ) {
    /** Called with `new`. A pool opens connections in callbacks, where nobody could catch an exception of a constructor. */
    function OpeningClient(config?: pg.ClientConfig): BusClient | FailedClient {
      try {
        const client = new BusClient(config, kind)
        onOpening(client)
        return client
      } catch (error) {
        return new FailedClient(error)
      }
    }
    const complete = (config: pg.PoolConfig): pg.PoolConfig => ({
      ...config,
      // Idle connections do not keep a script alive. A running bus does so itself.
      allowExitOnIdle: config.allowExitOnIdle ?? true,
      max: sizeOf(config.max),
      Client: OpeningClient as unknown as new () => pg.ClientBase,
    })
    super(complete(source.known))
    this.#source = source
    this.#sizeOf = sizeOf
    // A pool completes its options itself, and opens no connection.
    this.#toOptions = (config) => new pg.Pool(complete(config)).options
  }

  override connect(): Promise<pg.PoolClient>
  override connect(callback: Connected): void
  override connect(callback?: Connected): Promise<pg.PoolClient> | undefined {
    const { ask } = this.#source
    if (callback === undefined) return this.#refresh(ask).then(async () => super.connect())
    // oxlint-disable promise/no-callback-in-promise -- node-postgres calls its pool like this
    this.#refresh(ask).then(
      () => super.connect(callback),
      (error: Error) => callback(error, undefined, () => {}),
    )
    // oxlint-enable promise/no-callback-in-promise
    return undefined
  }

  /** Applies the current share. Idle connections in excess of it are closed. */
  async resize(): Promise<void> {
    this.options.max = this.#sizeOf(this.#source.known.max)
    while (this.totalCount > this.options.max && this.idleCount > 0) (await super.connect()).release(true)
  }

  /** Asks for the address unless a connection is available. Waiting callers get a connection to the newest address. */
  async #refresh(ask: ConnectionSource['ask']): Promise<void> {
    if (ask !== undefined && this.idleCount === 0 && !this.ending) this.options = this.#toOptions(await ask())
  }
}

/** A connection that could not be created: the pool treats it as one that failed to connect. */
class FailedClient extends EventEmitter {
  readonly #reason: Error

  constructor(reason: unknown) {
    super()
    this.#reason = toConnectError(reason)
  }

  connect(callback: (error: Error) => void): void {
    process.nextTick(callback, this.#reason)
  }

  end(callback?: () => void): void {
    callback?.()
  }
}
