import type { CallerConnection, StatementLogger } from './caller-connection.ts'
import { keptName, replyOf, textOf } from './statement.ts'

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
