import pg from 'pg'
import { pinLocallySql, pinSql, startupSettings, type SessionKind } from './session-settings.ts'
import { valueTypes } from './value-types.ts'

/**
 * A connection of the bus: with parsers and settings of its own, whatever the process and the server have set, and one that knows
 * how long it has been waiting for the server, for the {@link Watchdog}.
 */
export class BusClient extends pg.Client {
  #connected = false
  #waitingSince: number | undefined
  #isReadOnly = false
  /** Set while a transaction is open that may not write: that it is refused then says nothing of the server. */
  inReadOnlyTransaction = false
  readonly #kind: SessionKind
  #isPinned = false

  constructor(config?: pg.ClientConfig, kind: SessionKind = 'bus') {
    super({ ...config, types: valueTypes })
    this.#kind = kind
    // While the settings are being pinned nobody else listens, and an `error` without a listener ends the process.
    this.on('error', () => {})
    // `pg.defaults.binary` of the application.
    Object.assign(this, { binary: false })
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
    const connect = this.connect.bind(this)
    this.connect = ((callback?: (error: unknown) => void) => {
      this.#waitingSince = performance.now()
      const ready = connect().then(async () => this.#pinSettings())
      if (callback === undefined) return ready.then(() => this)
      // oxlint-disable-next-line promise/no-callback-in-promise -- node-postgres's pool calls its clients so
      ready.then(() => callback(null), callback)
      return undefined
    }) as typeof this.connect
    const query = this.query.bind(this) as (...args: unknown[]) => unknown
    this.query = ((...args: unknown[]) => {
      this.#waitingSince ??= performance.now()
      return isAnsweredByPromise(args) ? promiseOf(query, args) : query(...args)
    }) as typeof this.query
  }

  /** The settings of the bus for one transaction, where the session could not be given them: behind a pooler. */
  get localSettingsSql(): string | undefined {
    return this.#isPinned ? undefined : pinLocallySql(this.#kind, this.#ownLimits())
  }

  /** What node-postgres sends when it connects. */
  getStartupConf(): Record<string, string> {
    const { getStartupConf } = pg.Client.prototype as unknown as {
      getStartupConf: () => Record<string, string>
    }
    return { ...getStartupConf.call(this), ...startupSettings[this.#kind] }
  }

  async #pinSettings(): Promise<void> {
    try {
      const { rows } = await this.query(pinSql(this.#kind, this.backendPid ?? 0, this.#ownLimits()))
      this.#isPinned = rows.length > 0
    } catch (error) {
      this.end().catch(() => {})
      throw error
    }
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
