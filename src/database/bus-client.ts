import type { Socket } from 'node:net'
import pg from 'pg'
import { toConnectError } from './database-errors.ts'
import { clientKeepaliveMs } from './configuration/keepalive.ts'
import { pinLocallySql, pinSql, startupSettings, type SessionKind } from './session-settings.ts'
import { valueTypes } from './value-types.ts'

/** How long the goodbye of a connection may take: one that is cut off never hears it. */
const endLimitMs = 1000

/**
 * A connection of the bus: with parsers and settings of its own, whatever the process and the server have set, and one that knows
 * how long it has been waiting for the server, for the {@link Watchdog}. Connecting either succeeds, with the settings of the bus
 * made, or gives an error: nothing that node-postgres throws meanwhile gets away.
 */
export class BusClient extends pg.Client {
  #connected = false
  #waitingSince: number | undefined
  #isReadOnly = false
  #isEnding = false
  /** Set while a transaction is open that may not write: that it is refused then says nothing of the server. */
  inReadOnlyTransaction = false
  readonly #kind: SessionKind
  #isPinned = false

  constructor(config?: pg.ClientConfig, kind: SessionKind = 'bus') {
    // A pool hides its password from copies. The other two are looked after here: node-postgres's timer and its keepalive
    // throw where a stream of the caller's is none.
    super({
      ...config,
      password: config?.password,
      types: valueTypes,
      keepAlive: false,
      connectionTimeoutMillis: 0,
    })
    this.#kind = kind
    // `pg.defaults.binary` of the application.
    Object.assign(this, { binary: false })
    if (typeof (this.connection.stream as unknown) !== 'object')
      throw new TypeError('The function `stream` gave no stream')
    // Of some failures node-postgres tells its client alone, where nobody listens while it connects.
    this.on('error', (error: unknown) => {
      if (!this.#connected) this.connection.stream.destroy(asError(error))
    })
    // Registered before node-postgres's own listeners, which send the next statement or say that there is none.
    const connection: NodeJS.EventEmitter = this.connection
    connection.on('readyForQuery', () => {
      this.#waitingSince = this.#connected && this.#waitingSince !== undefined ? performance.now() : undefined
      this.#connected = true
    })
    connection.on('errorMessage', (error: { readonly code?: string }) => {
      if (error.code === readOnlyTransaction && !this.inReadOnlyTransaction) this.#isReadOnly = true
    })
    this.on('drain', () => {
      this.#waitingSince = undefined
    })
    const connect = this.connect.bind(this) as (callback: Opened) => void
    const limitMs = config?.connectionTimeoutMillis ?? 0
    this.connect = ((callback?: (error?: Error) => void) => {
      if (callback !== undefined) return this.#open(connect, limitMs, callback)
      return new Promise<this>((resolve, reject) => {
        this.#open(connect, limitMs, (error) => (error === undefined ? resolve(this) : reject(error)))
      })
    }) as typeof this.connect
    const end = this.end.bind(this) as (...args: unknown[]) => unknown
    this.end = ((...args: unknown[]) => {
      this.#isEnding = true
      const timer = setTimeout(() => this.connection.stream.destroy(), endLimitMs).unref()
      this.once('end', () => clearTimeout(timer))
      return end(...args)
    }) as typeof this.end
    const query = this.query.bind(this) as (...args: unknown[]) => unknown
    this.query = ((...args: unknown[]) => {
      this.#waitingSince ??= performance.now()
      return isAnsweredByPromise(args) ? promiseOf(query, args) : query(...args)
    }) as typeof this.query
  }

  #open(connect: (callback: Opened) => void, limitMs: number, callback: (error?: Error) => void): void {
    this.#waitingSince = performance.now()
    const { connection } = this
    let answered = false
    const answer = (error?: Error): void => {
      if (answered) return
      answered = true
      this.#waitingSince = undefined
      clearTimeout(timer)
      unguard()
      // Where it failed half-way node-postgres leaves its socket open.
      if (error !== undefined) connection.stream.destroy()
      process.nextTick(callback, error)
    }
    const fail = (thrown: unknown): void => answer(toConnectError(asError(thrown)))
    const unguard = guardListeners(connection, fail)
    const timer =
      limitMs > 0
        ? setTimeout(() => fail(Object.assign(new Error('timeout expired'), { code: 'ETIMEDOUT' })), limitMs)
        : undefined
    // The socket keeps the process alive as long as somebody waits for it.
    timer?.unref()
    connection.once('connect', () => {
      const stream = connection.stream as unknown as Partial<Socket>
      stream.setKeepAlive?.(true, clientKeepaliveMs)
    })
    try {
      connect((error, client) => {
        // What was thrown may be anything, also nothing.
        if (client === undefined) return fail(error)
        // oxlint-disable-next-line promise/no-promise-in-callback -- node-postgres gives the connection so
        void this.#pinSettings().then(() => answer(), fail)
      })
    } catch (error) {
      fail(error)
      // There will be none from the socket.
      this.emit('end')
    }
  }

  /** The settings of the bus for one transaction, where the session could not be given them: behind a pooler. */
  get localSettingsSql(): string | undefined {
    return this.#isPinned ? undefined : pinLocallySql(this.#kind, this.#ownLimits())
  }

  /** A stream of the caller's own may lack them. */
  ref(): void {
    streamOf(this).ref?.()
  }

  unref(): void {
    streamOf(this).unref?.()
  }

  /** What node-postgres sends when it connects. */
  getStartupConf(): Record<string, string> {
    const { getStartupConf } = pg.Client.prototype as unknown as {
      getStartupConf: () => Record<string, string>
    }
    return { ...getStartupConf.call(this), ...startupSettings[this.#kind] }
  }

  async #pinSettings(): Promise<void> {
    const { rows } = await this.query(pinSql(this.#kind, this.backendPid ?? 0, this.#ownLimits()))
    this.#isPinned = rows.length > 0
  }

  /** The limits that the configuration of the connection itself names. */
  #ownLimits(): readonly string[] {
    const { connectionParameters } = this as unknown as {
      readonly connectionParameters: Record<string, unknown>
    }
    return ['statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout'].filter((name) =>
      Boolean(connectionParameters[name]),
    )
  }

  /** Since which moment of `performance.now()` an answer is awaited; undefined where none is. */
  get waitingSince(): number | undefined {
    return this.#waitingSince
  }

  /** The server's process behind it, as the server, or a pooler in front of it, says. */
  get backendPid(): number | undefined {
    return (this as { readonly processID?: number | null }).processID ?? undefined
  }

  /** Whether its goodbye was sent, so that it is gone within {@link endLimitMs}. */
  get isEnding(): boolean {
    return this.#isEnding
  }

  /** Whether the server refused to write: it was demoted, and its name leads elsewhere by now. */
  get isReadOnly(): boolean {
    return this.#isReadOnly
  }

  /**
   * What `work` sends goes to the server at once, without waiting for the answers of what went before. Only for `work` that
   * has all its answers when it resolves or rejects, and with nothing else under way on this connection.
   */
  async pipelined<T>(work: () => Promise<T>): Promise<T> {
    const client = this as { pipeline?: boolean }
    client.pipeline = true
    try {
      return await work()
    } finally {
      client.pipeline = false
    }
  }

  /** Cuts the connection: what waits for it fails at once. */
  cut(reason: string): void {
    this.connection.stream.destroy(Object.assign(new Error(reason), { code: 'ETIMEDOUT' }))
  }
}

const readOnlyTransaction = '25006'

function streamOf({ connection }: pg.Client): Partial<Socket> {
  return connection.stream as unknown as Partial<Socket>
}

type Opened = (error: unknown, client: pg.Client | undefined) => void

/**
 * Until the function it gives is called, what a listener of the connection throws is caught: node-postgres has some that
 * throw at a password or an option that is no text, in the middle of an event of the socket, where it ends the process.
 */
function guardListeners(connection: NodeJS.EventEmitter, onThrown: (error: unknown) => void): () => void {
  const emit = connection.emit.bind(connection)
  connection.emit = (...args) => {
    try {
      return emit(...args)
    } catch (error) {
      onThrown(error)
      return true
    }
  }
  return () => {
    connection.emit = emit
  }
}

function asError(thrown: unknown): Error {
  if (thrown instanceof Error) return thrown
  return new Error(typeof thrown === 'string' ? thrown : 'no reason was given')
}

/** Whether the caller of `query` gave neither a callback nor an object that takes the answer itself. */
function isAnsweredByPromise([config, ...more]: readonly unknown[]): boolean {
  const { submit, callback } = (config ?? {}) as { readonly submit?: unknown; readonly callback?: unknown }
  return submit === undefined && callback === undefined && !more.some((arg) => typeof arg === 'function')
}

/**
 * Of the promises that node-postgres makes itself (8.23), each one keeps the next alive in V8's young generation, with all
 * the rows of its answer: two thirds of what was allocated outlived a collection, and lived until the next full one.
 */
async function promiseOf(
  query: (...args: unknown[]) => unknown,
  [config, values]: readonly unknown[],
): Promise<unknown> {
  return new Promise((resolve, reject) => {
    query(config, values, (error: Error | null | undefined, result: unknown) => {
      if (error == null) resolve(result)
      else reject(error)
    })
  }).catch((error: Error) => {
    // As node-postgres does: a stack that leads to who asked, not to the socket.
    Error.captureStackTrace(error)
    throw error
  })
}
