import type { FastifyPluginAsync, FastifyReply, FastifyRequest } from 'fastify'
import { describe, invalidOption, refuseUnknownKeys } from '../foundation/options.ts'
import { hiddenSchema } from './api/hidden-schema.ts'
import type { HttpSource } from '../transports/adapters/http-source.ts'

/** Options of {@link receiveRoute}. */
export interface ReceiveRouteOptions {
  /** The source that is passed to `bus.receive`. */
  readonly source: HttpSource
  /** Where it receives, below the prefix of the scope, such as `/hooks/stripe`. */
  readonly url: string
}

/**
 * A plugin with a route that passes requests to a source of `httpSource`. The body reaches it as it came, whatever parsers the app has, because
 * signatures are about its bytes. Hooks of the app run before it: those that ask for a login must leave it out.
 *
 * @example
 * ```ts
 * import { receiveRoute } from 'bossbus/fastify'
 * import { github, httpSource } from 'bossbus/transports/http-source'
 *
 * const hooks = httpSource({ verify: github({ secrets: process.env.GITHUB_SECRET! }) })
 * app.bus.receive({ name: 'github', from: hooks, map: () => undefined })
 * await app.register(receiveRoute, { url: '/hooks/github', source: hooks })
 * ```
 * @throws from `register`: a {@link ConfigurationError} `BUS_INVALID_OPTION`
 */
export const receiveRoute: FastifyPluginAsync<ReceiveRouteOptions> = async (app, options) => {
  refuseUnknownKeys(options, ['source', 'url', 'prefix', 'logLevel'], 'receiveRoute')
  const { source, url } = options
  if (typeof (source as Partial<HttpSource> | undefined)?.handle !== 'function')
    throw invalidOption(`Expected \`source\` to be made by httpSource, got ${describe(source)}`, 'source')
  if (typeof url !== 'string' || !url.startsWith('/'))
    throw invalidOption(`Expected \`url\` to be a path such as /hooks/stripe, got ${describe(url)}`, 'url')
  // This scope is the plugin's own: the parsers of the app stay as they are.
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('*', { parseAs: 'buffer' }, async (_request: FastifyRequest, body: Buffer) => body)
  app.route({
    method: 'POST',
    url,
    bodyLimit: source.maxBodyBytes,
    schema: hiddenSchema(),
    async handler(request, reply) {
      return send(reply, await source.handle(toRequest(request)))
    },
  })
}

function toRequest({ url, headers, body }: FastifyRequest): Request {
  const entries = Object.entries(headers).flatMap(([name, value]) =>
    value === undefined || name === 'content-length'
      ? []
      : [[name, Array.isArray(value) ? value.join(', ') : value] satisfies [string, string]],
  )
  return new Request(new URL(url, 'http://localhost'), {
    method: 'POST',
    headers: entries,
    // Without a body there is nothing that a signature could be about.
    body: Buffer.isBuffer(body) ? new Uint8Array(body) : new Uint8Array(),
  })
}

async function send(reply: FastifyReply, response: Response): Promise<FastifyReply> {
  void reply.code(response.status).headers(Object.fromEntries(response.headers))
  return reply.send(response.body === null ? undefined : Buffer.from(await response.arrayBuffer()))
}
