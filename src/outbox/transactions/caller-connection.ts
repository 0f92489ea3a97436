import { createHash } from 'node:crypto'
import type { sql } from 'drizzle-orm/sql'
import { DatabaseError } from '../../foundation/errors.ts'

/** Sends statements on the connection of a caller's transaction. Each statement returns one row with one text. */
export interface CallerConnection {
  send: (statement: Statement) => Promise<string>
  /** Sends a statement after one that assigns a transaction id: in one round trip, if the driver can pipeline. */
  sendWithTransactionId?: (statement: Statement) => Promise<string>
  /**
   * Whether the connection was seen to send prepared statements through a pooler that changes its server process.
   * postgres.js prepares its COMMIT too. A server process that does not know that statement aborts the transaction;
   * postgres.js prepares COMMIT again, receives ROLLBACK as the answer, and reports success.
   */
  mayLoseCommits?: () => boolean
}

/** A statement as a template literal: texts, and the values between them. It returns one row with one text. */
export interface Statement {
  readonly strings: TemplateStringsArray
  readonly values: readonly (string | null)[]
}

/** Creates a statement from a template literal. */
export function statement(strings: TemplateStringsArray, ...values: readonly (string | null)[]): Statement {
  return { strings, values }
}

const texts = new WeakMap<TemplateStringsArray, string>()

/** The SQL text, with `$1`, `$2` … for the values. */
export function textOf({ strings }: Statement): string {
  let text = texts.get(strings)
  if (text === undefined) {
    text = strings.reduce((before, part, index) => `${before}$${index}${part}`)
    texts.set(strings, text)
  }
  return text
}

/** Maximum number of prepared statements per connection: a few for each set of fields that a service's events have. */
const maxKeptStatements = 50
const keptNames = new Map<string, string>()

/** The name under which connections keep a statement. */
function keptName(text: string): string | undefined {
  let name = keptNames.get(text)
  if (name === undefined && keptNames.size < maxKeptStatements) {
    name = `bus_${createHash('sha256').update(text).digest('hex').slice(0, 24)}`
    keptNames.set(text, name)
  }
  return name
}

/** @throws if a driver returns something else: the caller's transaction must not continue as if nothing had happened */
export function replyOf(value: unknown): string {
  if (typeof value === 'string') return value
  if (value instanceof Uint8Array) return Buffer.from(value).toString('utf8')
  throw new DatabaseError(
    'BUS_DATABASE_ERROR',
    'Expected the driver to return text as a string: a custom parser converts it',
  )
}

/** The reply in rows that are objects. */
export function replyIn(rows: unknown): string {
  return replyOf((rows as readonly ({ readonly reply?: unknown } | undefined)[] | undefined)?.[0]?.reply)
}

/** Called with each statement before it is sent. */
export interface StatementLogger {
  readonly logQuery?: (text: string, values: unknown[]) => void
}

/**
 * A Drizzle transaction of any PostgreSQL driver, as `db.transaction` passes it to its callback. The type lists what
 * the bus uses and avoids Drizzle's own types, so that other versions and copies fit too. A plain handle has no
 * `rollback`, so it does not fit.
 */
export interface DrizzleTransaction {
  // Methods, because their parameters are bivariant: each copy of Drizzle accepts only its own `SQL`.
  execute(query: unknown): PromiseLike<unknown>
  rollback(): never
}

/**
 * The connection of a Drizzle handle. With Drizzle's own `execute`, postgres.js asks the server to describe the
 * statement before each run, and no driver keeps a plan. So if Drizzle created the handle for postgres.js or
 * node-postgres, statements are sent through the driver's own client, and reported to Drizzle's logger; other handles
 * use `execute`.
 */
export function connectionOf(tx: DrizzleTransaction): CallerConnection {
  const { session } = tx as { readonly session?: DrizzleSession | null }
  if (session === undefined || session === null) return throughDrizzle(tx)
  const kind = (session.constructor as { readonly [entityKind]?: string } | undefined)?.[entityKind]
  if (kind === 'PostgresJsSession' && typeof session.client?.unsafe === 'function')
    return throughPostgresJs(session.client as PostgresJsClient, session.logger)
  if (kind === 'NodePgSession' && typeof session.client?.query === 'function')
    return throughNodePostgres(session.client as NodePostgresClient, session.logger)
  return throughDrizzle(tx)
}

/** The property that distinguishes Drizzle's classes, in every copy of Drizzle. */
const entityKind = Symbol.for('drizzle:entityKind')

/** The parts of a Drizzle session that are used. Drizzle does not guarantee them, so each of them is checked first. */
interface DrizzleSession {
  readonly client?: { readonly unsafe?: unknown; readonly query?: unknown } | null
  readonly logger?: StatementLogger
}

function throughDrizzle(tx: DrizzleTransaction): CallerConnection {
  return {
    async send({ strings, values }) {
      const tag = await loadSql()
      const result = await tx.execute(tag(strings, ...values))
      return replyIn(Array.isArray(result) ? result : (result as { rows: unknown[] }).rows)
    },
  }
}

let drizzle: Promise<{ readonly sql: typeof sql }> | undefined

/**
 * Drizzle's `sql`, loaded on first use: a caller with a Drizzle transaction has already loaded it, and a process that
 * only delivers saves 30 MB. Cached, because importing again takes a tenth of a millisecond.
 */
async function loadSql(): Promise<typeof sql> {
  drizzle ??= import('drizzle-orm/sql')
  return (await drizzle).sql
}

export interface PostgresJsClient {
  readonly unsafe: (
    text: string,
    values: unknown[],
    options: { readonly prepare: boolean; readonly simple: boolean },
  ) => { readonly raw: () => PromiseLike<PostgresJsRows> }
}

type PostgresJsRows = readonly (readonly unknown[])[] & {
  /** The connection, with the process id reported by the server or by a pooler in front of it. */
  readonly state?: { readonly pid: unknown; readonly secret: unknown } | null
  /** A statement without a name was not prepared. */
  readonly statement?: { readonly name?: unknown } | null
}

const assignTransactionId: Statement = {
  strings: Object.assign(['select pg_catalog.pg_current_xact_id() as id'], { raw: [] }),
  values: [],
}

/**
 * A client that was opened with `prepare: false`, for a pooler, prepares nothing here either. Answers are requested as
 * bytes, which bypasses the client's own parsers and transformations.
 */
export function throughPostgresJs(client: PostgresJsClient, logger?: StatementLogger): CallerConnection {
  function begin(sent: Statement): PromiseLike<PostgresJsRows> {
    const text = textOf(sent)
    const values = [...sent.values]
    logger?.logQuery?.(text, values)
    return client.unsafe(text, values, { prepare: keptName(text) !== undefined, simple: false }).raw()
  }
  function replyFrom(rows: PostgresJsRows): string {
    const reply = replyOf(rows[0]?.[0])
    if (preparesThroughPooler(rows, reply)) commitLosers.add(client)
    return reply
  }
  return {
    send: async (sent) => replyFrom(await begin(sent)),
    async sendWithTransactionId(sent) {
      // Both are sent before either is answered. If the connection is lost in between, the second one may run outside
      // the transaction, and detects that itself.
      const [identified, answered] = await Promise.allSettled([begin(assignTransactionId), begin(sent)])
      if (identified.status === 'rejected') throw identified.reason
      if (answered.status === 'rejected') throw answered.reason
      return replyFrom(answered.value)
    },
    mayLoseCommits: () => commitLosers.has(client),
  }
}

/** Clients of transactions whose commits may fail and be reported as successful. */
const commitLosers = new WeakSet<object>()

/** For each connection: the id that a pooler reported, and the server process that answered last. */
const lastServers = new WeakMap<object, { readonly connection: string; readonly server: string }>()

/** Replies start with the server's own process id. Behind a pooler in session mode it stays the same for a connection. */
function preparesThroughPooler({ state, statement: sent }: PostgresJsRows, reply: string): boolean {
  if (state === undefined || state === null || typeof sent?.name !== 'string' || sent.name === '')
    return false
  const server = reply.slice(0, reply.indexOf('/'))
  if (server === String(state.pid)) return false
  const connection = `${String(state.pid)} ${String(state.secret)}`
  const last = lastServers.get(state)
  lastServers.set(state, { connection, server })
  return last !== undefined && last.connection === connection && last.server !== server
}

export interface NodePostgresClient {
  /** The id of the server process, as reported by the server or by a pooler in front of it. A pool has none. */
  readonly processID?: unknown
  readonly query: (
    config: {
      readonly text: string
      readonly name?: string
      readonly rowMode: 'array'
      readonly types: { readonly getTypeParser: () => (value: string) => string }
    },
    values: unknown[],
  ) => PromiseLike<{ readonly rows: readonly (readonly unknown[])[] }>
}

/** Options of node-postgres that return a row as an array of texts, bypassing the application's parsers. */
export const unparsed = {
  rowMode: 'array',
  types: { getTypeParser: () => (value: string) => value },
} as const

/** Clients with a direct connection to the server: prepared statements persist there. */
const directClients = new WeakSet<NodePostgresClient>()

export function throughNodePostgres(client: NodePostgresClient, logger?: StatementLogger): CallerConnection {
  return {
    async send(sent) {
      const text = textOf(sent)
      const values = [...sent.values]
      logger?.logQuery?.(text, values)
      const name = directClients.has(client) ? keptName(text) : undefined
      const config = { text, ...unparsed }
      const { rows } = await client.query(name === undefined ? config : { name, ...config }, values)
      const reply = replyOf(rows[0]?.[0])
      // Replies start with the server's own process id; a pooler reports another one to its clients.
      if (typeof client.processID === 'number' && reply.startsWith(`${client.processID}/`))
        directClients.add(client)
      return reply
    },
  }
}
