import type { CallerConnection, StatementLogger } from './caller-connection.ts'
import { keptName, replyOf, textOf, type Statement } from './statement.ts'

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
  function replyIn(rows: PostgresJsRows): string {
    const reply = replyOf(rows[0]?.[0])
    if (preparesThroughPooler(rows, reply)) commitLosers.add(client)
    return reply
  }
  return {
    send: async (sent) => replyIn(await begin(sent)),
    async sendWithTransactionId(sent) {
      // Both are sent before either is answered. If the connection is lost in between, the second one may run outside
      // the transaction, and detects that itself.
      const [identified, answered] = await Promise.allSettled([begin(assignTransactionId), begin(sent)])
      if (identified.status === 'rejected') throw identified.reason
      if (answered.status === 'rejected') throw answered.reason
      return replyIn(answered.value)
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
