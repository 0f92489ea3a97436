import type { Socket } from 'node:net'
import pg from 'pg'
import { toConnectError } from './database-errors.ts'
import { wantsReadOnly } from './read-only-option.ts'
import { clientKeepaliveMs } from './configuration/keepalive.ts'
import { pinLocallySql, pinSql, startupSettings, valueTypes, type SessionKind } from './session-settings.ts'

/** Time limit for closing a connection gracefully: a disconnected server never answers. */
const endLimitMs = 1000

/**
 * A connection of the bus. Its parsers and settings are independent of those of the process and the server, and it
 * tracks how long it has been waiting for the server, for the {@link Watchdog}. Connecting either succeeds, with the
 * bus's settings applied, or fails with an error: no exception of node-postgres escapes.
 */
export class BusClient extends pg.Client {
  #connected = false
  #waitingSince: number | undefined
  #isReadOnly = false
  #isEnding = false
  /** Set while a read-only transaction is open: a refused write then says nothing about the server. */
  inReadOnlyTransaction = false
  readonly #kind: SessionKind
  #isPinned = false

  constructor(config?: pg.ClientConfig, kind: SessionKind = 'bus') {
    // A pool hides its password from copies. The timer and the keepalive are implemented here, because those of
    // node-postgres throw if the caller's stream is not a real one.
    super({
      ...config,
      password: config?.password,
      types: valueTypes,
      keepAlive: false,
      connectionTimeoutMillis: 0,
    })
    this.#kind = kind
    // Overrides `pg.defaults.binary` of the application.
    Object.assign(this, { binary: false })
    if (typeof (this.connection.stream as unknown) !== 'object')
      throw new TypeError('The function `stream` did not return a stream')
    // node-postgres reports some failures only to its client, which has no listener while it connects.
    this.on('error', (error: unknown) => {
      if (!this.#connected) this.connection.stream.destroy(asError(error))
    })
    // Registered before node-postgres's own listeners, which send the next statement or report that there is none.
    const connection: NodeJS.EventEmitter = this.connection
    connection.on('readyForQuery', () => {
      this.#waitingSince = this.#connected && this.#waitingSince !== undefined ? performance.now() : undefined
      this.#connected = true
    })
    connection.on('errorMessage', (error: { readonly code?: string }) => {
      if (error.code !== readOnlyTransaction || this.inReadOnlyTransaction) return
      if (!this.isReadOnlyByOption) this.#isReadOnly = true
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
      // node-postgres leaves its socket open if connecting fails half-way.
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
        // The thrown value may be anything, including undefined.
        if (client === undefined) return fail(error)
        // oxlint-disable-next-line promise/no-promise-in-callback -- node-postgres passes the connection to a callback
        void this.#pinSettings().then(() => answer(), fail)
      })
    } catch (error) {
      fail(error)
      // The socket will not emit it.
      this.emit('end')
    }
  }

  /** The bus's settings for one transaction, if the session could not be given them because of a pooler. */
  get localSettingsSql(): string | undefined {
    return this.#isPinned ? undefined : pinLocallySql(this.#kind, this.#keptSettings())
  }

  /** A stream of the caller may lack ref and unref. */
  ref(): void {
    streamOf(this).ref?.()
  }

  unref(): void {
    streamOf(this).unref?.()
  }

  /** The parameters that node-postgres sends when it connects. */
  getStartupConf(): Record<string, string> {
    const { getStartupConf } = pg.Client.prototype as unknown as {
      getStartupConf: () => Record<string, string>
    }
    return { ...getStartupConf.call(this), ...startupSettings[this.#kind] }
  }

  async #pinSettings(): Promise<void> {
    const { rows } = await this.query(pinSql(this.#kind, this.backendPid ?? 0, this.#keptSettings()))
    this.#isPinned = rows.length > 0
  }

  /** The settings that the connection's own configuration names, which are kept: limits, and that transactions are read-only. */
  #keptSettings(): readonly string[] {
    const limits = ['statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout'].filter(
      (name) => Boolean(this.#configuration[name]),
    )
    return this.isReadOnlyByOption ? [...limits, 'default_transaction_read_only'] : limits
  }

  /** Whether its own configuration asks for read-only transactions: see {@link readOnlyByOption}. */
  get isReadOnlyByOption(): boolean {
    return wantsReadOnly(this.#configuration['options'])
  }

  /** What node-postgres has made of the options, the URL and the environment. */
  get #configuration(): Readonly<Record<string, unknown>> {
    const { connectionParameters } = this as unknown as {
      readonly connectionParameters: Readonly<Record<string, unknown>>
    }
    return connectionParameters
  }

  /** The moment since when an answer is awaited, by `performance.now()`; undefined if none is. */
  get waitingSince(): number | undefined {
    return this.#waitingSince
  }

  /** The id of the server process, as reported by the server or by a pooler in front of it. */
  get backendPid(): number | undefined {
    return (this as { readonly processID?: number | null }).processID ?? undefined
  }

  /** Whether the connection is closing, and will be closed within {@link endLimitMs}. */
  get isEnding(): boolean {
    return this.#isEnding
  }

  /** Whether the server refused to write: it was demoted, and its name probably resolves to another server by now. */
  get isReadOnly(): boolean {
    return this.#isReadOnly
  }

  /**
   * Sends the statements of `work` to the server immediately, without waiting for earlier answers. `work` must have all
   * its answers when it resolves or rejects, and nothing else may use this connection meanwhile.
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

  /** Closes the socket: everything that waits for the connection fails at once. */
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
 * Catches what the connection's listeners throw, until the returned function is called. Some listeners of node-postgres
 * throw if a password or an option is not a string, inside a socket event, which would end the process.
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

/** Whether the caller of `query` passed neither a callback nor an object that receives the answer itself. */
function isAnsweredByPromise([config, ...more]: readonly unknown[]): boolean {
  const { submit, callback } = (config ?? {}) as { readonly submit?: unknown; readonly callback?: unknown }
  return submit === undefined && callback === undefined && !more.some((arg) => typeof arg === 'function')
}

/**
 * Each promise that node-postgres (8.23) creates itself keeps the next one alive in V8's young generation, with all the
 * rows of its answer: two thirds of the allocations survived a collection, and lived until the next full one.
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
    // Like node-postgres: a stack trace that leads to the caller, not to the socket.
    Error.captureStackTrace(error)
    throw error
  })
}
