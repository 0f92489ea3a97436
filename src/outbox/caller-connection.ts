import { createHash } from 'node:crypto'
import type { sql } from 'drizzle-orm/sql'
import { DatabaseError } from '../events/errors.ts'

/**
 * A Drizzle transaction of any PostgreSQL driver: what `db.transaction` hands to its callback. It says what it takes of it and
 * nothing of Drizzle's own types, which another version, or another copy, has too. A plain handle has no `rollback`, so it is none.
 */
export interface DrizzleTransaction {
  // Methods, because their parameters are compared in both directions: each copy of Drizzle takes its own `SQL` only.
  execute(query: unknown): PromiseLike<unknown>
  rollback(): never
}

/** A statement, as a template literal gives it: texts, and the values between them. */
export interface Statement {
  readonly strings: TemplateStringsArray
  readonly values: readonly (string | null)[]
}

/** Makes a statement of a template literal. */
export function statement(strings: TemplateStringsArray, ...values: readonly (string | null)[]): Statement {
  return { strings, values }
}

/** Sends statements over the connection of a caller's Drizzle handle. Each answers with one row of one text. */
export interface CallerConnection {
  send: (statement: Statement) => Promise<string>
  /** The same, with the transaction given an id before: in one round trip, where the driver sends without waiting. */
  sendWithTransactionId?: (statement: Statement) => Promise<string>
}

/**
 * The connection of a handle. Drizzle's own `execute` has postgres.js ask the server what it makes of the statement before it
 * runs it, each time, and lets no driver keep a plan. So where the handle is what Drizzle makes of postgres.js or node-postgres,
 * statements go to the driver's own client, and Drizzle's logger is told of them; anything else gets them through `execute`.
 */
export function connectionOf(tx: DrizzleTransaction): CallerConnection {
  const { session } = tx as { readonly session?: DrizzleSession | null }
  if (session === undefined || session === null) return throughDrizzle(tx)
  const kind = (session.constructor as { readonly [entityKind]?: string } | undefined)?.[entityKind]
  if (kind === 'PostgresJsSession' && typeof session.client?.unsafe === 'function')
    return throughPostgresJs(session.client as PostgresJsClient, session)
  if (kind === 'NodePgSession' && typeof session.client?.query === 'function')
    return throughNodePostgres(session.client as NodePostgresClient, session)
  return throughDrizzle(tx)
}

/** By which Drizzle's classes tell each other apart, whichever copy of Drizzle they come from. */
const entityKind = Symbol.for('drizzle:entityKind')

/** What of a Drizzle session is used. None of it is promised, so all of it is looked for first. */
interface DrizzleSession {
  readonly client?: { readonly unsafe?: unknown; readonly query?: unknown } | null
  readonly logger?: { readonly logQuery?: (text: string, values: unknown[]) => void }
}

interface PostgresJsClient {
  readonly unsafe: (
    text: string,
    values: unknown[],
    options: { readonly prepare: boolean; readonly simple: boolean },
  ) => { readonly raw: () => PromiseLike<PostgresJsRows> }
}

type PostgresJsRows = readonly (readonly unknown[])[] & {
  /** The connection: its process as the server, or a pooler in front of it, said. */
  readonly state?: { readonly pid: unknown; readonly secret: unknown } | null
  /** Without a name it was not prepared. */
  readonly statement?: { readonly name?: unknown } | null
}

interface NodePostgresClient {
  /** The server's process behind it, as the server, or a pooler in front of it, said. A pool has none. */
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

function throughDrizzle(tx: DrizzleTransaction): CallerConnection {
  return {
    async send({ strings, values }) {
      const tag = await loadSql()
      const result = await tx.execute(tag(strings, ...values))
      const rows = (Array.isArray(result) ? result : (result as { rows: unknown[] }).rows) as {
        reply: unknown
      }[]
      return toText(rows[0]?.reply)
    },
  }
}

let drizzle: Promise<{ readonly sql: typeof sql }> | undefined

/**
 * Drizzle's `sql`, loaded with the first call: whoever hands in a Drizzle transaction has loaded it, and a process that
 * only delivers does without its 30 MB. Kept, because importing again costs a tenth of a millisecond each time.
 */
async function loadSql(): Promise<typeof sql> {
  drizzle ??= import('drizzle-orm/sql')
  return (await drizzle).sql
}

/**
 * A client that was opened with `prepare: false`, for a pooler, prepares nothing here either. Answers are asked for as bytes: a
 * parser or a transformation of the client's own has no part in them.
 */
function throughPostgresJs(client: PostgresJsClient, { logger }: DrizzleSession): CallerConnection {
  function begin(text: string, values: readonly (string | null)[]): PromiseLike<PostgresJsRows> {
    const sent = [...values]
    logger?.logQuery?.(text, sent)
    return client.unsafe(text, sent, { prepare: keptName(text) !== undefined, simple: false }).raw()
  }
  function replyIn(rows: PostgresJsRows): string {
    const reply = textIn(rows)
    if (preparesThroughPooler(rows, reply)) commitLosers.add(client)
    return reply
  }
  return {
    send: async ({ strings, values }) => replyIn(await begin(joined(strings), values)),
    async sendWithTransactionId({ strings, values }) {
      // Both are sent before either is answered. Where the connection is lost between them, the second may run outside the
      // transaction, and finds that out by itself.
      const [identified, answered] = await Promise.allSettled([
        begin(assignTransactionId, []),
        begin(joined(strings), values),
      ])
      if (identified.status === 'rejected') throw identified.reason
      if (answered.status === 'rejected') throw answered.reason
      return replyIn(answered.value)
    },
  }
}

/** Clients of transactions whose commit may come to nothing and be reported as done. */
const commitLosers = new WeakSet<object>()

/**
 * Whether the handle's connection was seen to send prepared statements through a pooler that hands it one server process after the
 * other. postgres.js prepares its COMMIT too. Where the server process does not know that statement, it aborts the transaction;
 * postgres.js prepares COMMIT again, gets a ROLLBACK for an answer and takes it for success.
 */
export function mayLoseCommits(tx: DrizzleTransaction): boolean {
  const { session } = tx as { readonly session?: DrizzleSession | null }
  return typeof session?.client === 'function' && commitLosers.has(session.client)
}

/** By connection: what a pooler has called it, and the server's process that answered last. */
const lastServers = new WeakMap<object, { readonly connection: string; readonly server: string }>()

/** Replies begin with the server's own process. Behind a pooler that keeps sessions it stays the same for a connection. */
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

const assignTransactionId = 'select pg_catalog.pg_current_xact_id() as id'

/** Parsers that the application has set have no part in the answers. */
const unparsed = { getTypeParser: () => (value: string) => value }

/** Clients whose connection leads to the server without a pooler that hands it on: what is prepared there stays. */
const directClients = new WeakSet<NodePostgresClient>()

function throughNodePostgres(client: NodePostgresClient, { logger }: DrizzleSession): CallerConnection {
  return {
    async send({ strings, values }) {
      const text = joined(strings)
      const sent = [...values]
      logger?.logQuery?.(text, sent)
      const name = directClients.has(client) ? keptName(text) : undefined
      const config = { text, rowMode: 'array', types: unparsed } as const
      const { rows } = await client.query(name === undefined ? config : { name, ...config }, sent)
      const reply = textIn(rows)
      // Replies begin with the server's own process: a pooler tells its clients another one.
      if (typeof client.processID === 'number' && reply.startsWith(`${client.processID}/`))
        directClients.add(client)
      return reply
    },
  }
}

function textIn(rows: readonly (readonly unknown[])[]): string {
  return toText(rows[0]?.[0])
}

/** @throws when a driver gives something else: then the caller's transaction must not go on as if nothing was wrong */
function toText(reply: unknown): string {
  if (typeof reply === 'string') return reply
  if (reply instanceof Uint8Array) return Buffer.from(reply).toString('utf8')
  throw new DatabaseError(
    'BUS_DATABASE_ERROR',
    'Expected the driver to give a text as a string: a parser of its own makes something else of it',
  )
}

const texts = new WeakMap<TemplateStringsArray, string>()

function joined(strings: TemplateStringsArray): string {
  let text = texts.get(strings)
  if (text === undefined) {
    text = strings.reduce((before, part, index) => `${before}$${index}${part}`)
    texts.set(strings, text)
  }
  return text
}

/** Statements that connections keep: a few for each set of fields that a service's events have. */
const maxKeptStatements = 50
const keptNames = new Map<string, string>()

/** What a statement is called that connections keep. */
function keptName(text: string): string | undefined {
  let name = keptNames.get(text)
  if (name === undefined && keptNames.size < maxKeptStatements) {
    name = `bus_${createHash('sha256').update(text).digest('hex').slice(0, 24)}`
    keptNames.set(text, name)
  }
  return name
}
