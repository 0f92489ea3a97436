import type { ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import type { FastifyInstance } from 'fastify'

/** The connections of an app's HTTP server, while it closes. */
export interface HttpConnections {
  /**
   * Lets the requests that run finish, each connection closed behind its last one, and ends after `graceMs` what is left.
   * Fastify itself closes connections that are idle when it begins to close; one that becomes idle later it keeps for
   * `keepAliveTimeout`, 72 seconds, and one that was opened ahead and never used for longer.
   */
  closeWithin: (graceMs: number) => void
  /** Resolves when no request runs any more, or the grace is over. */
  finished: () => Promise<void>
}

/** To be called before the app is ready. */
export function watchHttpConnections(app: FastifyInstance): HttpConnections {
  const sockets = new Set<Socket>()
  const responses = new Set<ServerResponse>()
  const graceOver = Promise.withResolvers<void>()
  let timer: NodeJS.Timeout | undefined
  let onFinished: () => void = () => {}

  function watch(socket: Socket): void {
    if (sockets.has(socket)) return
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  }

  app.server.on('connection', watch)
  app.addHook('onRequest', (request, { raw: response }, done) => {
    const forget = (): void => {
      responses.delete(response)
      if (responses.size === 0) onFinished()
    }
    responses.add(response)
    response.once('finish', forget)
    response.once('close', forget)
    // On `localhost` Fastify listens with a second server, which it shows nobody.
    if (request.raw.socket instanceof Socket) watch(request.raw.socket)
    done()
  })

  return {
    closeWithin(graceMs) {
      for (const response of responses) {
        const { socket, httpVersionMajor } = response.req
        // The sessions of HTTP/2 are Fastify's to close; what `inject` brings has no connection.
        if (httpVersionMajor > 1 || !sockets.has(socket)) continue
        // Else the client would take the connection for its next request.
        if (!response.headersSent) response.setHeader('connection', 'close')
        response.once('close', () => socket.destroySoon())
      }
      for (const socket of sockets) if (socket.bytesRead === 0) socket.destroy()
      timer = setTimeout(() => {
        for (const socket of sockets) socket.destroy()
        graceOver.resolve()
      }, graceMs)
    },
    async finished() {
      const finished = new Promise<void>((resolve) => {
        onFinished = resolve
      })
      if (responses.size > 0) await Promise.race([finished, graceOver.promise])
      clearTimeout(timer)
    },
  }
}
