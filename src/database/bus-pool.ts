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

/** A pool whose new connections go where the source says at that time. */
export class BusPool extends pg.Pool {
  readonly #source: ConnectionSource
  readonly #toOptions: (config: pg.PoolConfig) => pg.PoolOptions
  readonly #sizeOf: (max: number | undefined) => number

  /**
   * @param sizeOf - how many connections it may have, where the source says that the bus may have `max`
   * @param kind - whose statements its sessions run
   * @param onOpening - called with each connection before it is opened; may throw, and it is not opened
   */
  constructor(
    source: ConnectionSource,
    sizeOf: (max: number | undefined) => number,
    kind: SessionKind,
    onOpening: (client: BusClient) => void,
  ) {
    /** Called with `new`. A pool opens connections in callbacks, where nobody could catch what a constructor throws. */
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
      // Connections that nobody uses keep no script alive. A bus that runs does so by itself.
      allowExitOnIdle: config.allowExitOnIdle ?? true,
      max: sizeOf(config.max),
      Client: OpeningClient as unknown as new () => pg.ClientBase,
    })
    super(complete(source.known))
    this.#source = source
    this.#sizeOf = sizeOf
    // A pool fills in its options itself, and opens nothing.
    this.#toOptions = (config) => new pg.Pool(complete(config)).options
  }

  override connect(): Promise<pg.PoolClient>
  override connect(callback: Connected): void
  override connect(callback?: Connected): Promise<pg.PoolClient> | undefined {
    const { ask } = this.#source
    if (callback === undefined) return this.#refresh(ask).then(async () => super.connect())
    // oxlint-disable promise/no-callback-in-promise -- node-postgres itself calls its pool so
    this.#refresh(ask).then(
      () => super.connect(callback),
      (error: Error) => callback(error, undefined, () => {}),
    )
    // oxlint-enable promise/no-callback-in-promise
    return undefined
  }

  /** Takes the size that it may have by now. What is open and idle beyond that is closed. */
  async resize(): Promise<void> {
    this.options.max = this.#sizeOf(this.#source.known.max)
    while (this.totalCount > this.options.max && this.idleCount > 0) (await super.connect()).release(true)
  }

  /** Asks where to, unless a connection is at hand. Who waits for one meanwhile gets it as the newest answer says. */
  async #refresh(ask: ConnectionSource['ask']): Promise<void> {
    if (ask !== undefined && this.idleCount === 0 && !this.ending) this.options = this.#toOptions(await ask())
  }
}

/** A connection that could not even be made: to its pool, one that failed to connect. */
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
