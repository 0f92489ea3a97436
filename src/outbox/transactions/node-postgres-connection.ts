import type { CallerConnection, StatementLogger } from './caller-connection.ts'
import { keptName, replyOf, textOf } from './statement.ts'

export interface NodePostgresClient {
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

/** What node-postgres takes beside a statement, for a row to be an array of texts: parsers of the application have no part in it. */
export const unparsed = {
  rowMode: 'array',
  types: { getTypeParser: () => (value: string) => value },
} as const

/** Clients whose connection leads to the server without a pooler that hands it on: what is prepared there stays. */
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
      // Replies begin with the server's own process: a pooler tells its clients another one.
      if (typeof client.processID === 'number' && reply.startsWith(`${client.processID}/`))
        directClients.add(client)
      return reply
    },
  }
}
