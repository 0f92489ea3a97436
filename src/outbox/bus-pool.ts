import { EventEmitter } from 'node:events'
import pg from 'pg'
import { BusClient } from './bus-client.ts'
import type { ConnectionSource } from './connection-source.ts'
import { toConnectError } from './database-errors.ts'
import { poolDefaults } from './pool-config.ts'
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

  /**
   * @param minConnections - it may open that many, also when the source says fewer
   * @param kind - whose statements its sessions run
   * @param onOpening - called with each connection before it is opened; may throw, and it is not opened
   */
  constructor(
    source: ConnectionSource,
    minConnections: number,
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
      max: Math.max(config.max ?? poolDefaults.max, minConnections),
      Client: OpeningClient as unknown as new () => pg.ClientBase,
    })
    super(complete(source.known))
    this.#source = source
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
