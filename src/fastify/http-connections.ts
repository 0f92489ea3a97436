import type { ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import type { FastifyInstance } from 'fastify'

/** The connections of an app's HTTP server while it closes. */
export interface HttpConnections {
  /**
   * Lets running requests finish, closes each connection after its last request, and closes the remaining ones after
   * `graceMs`. Fastify itself closes connections that are idle when it starts to close. It keeps a connection that
   * becomes idle later for `keepAliveTimeout`, 72 seconds, and one that was never used even longer.
   */
  closeWithin: (graceMs: number) => void
  /** Resolves when no request is running, or the grace period has passed. */
  finished: () => Promise<void>
}

/** Must be called before the app is ready. */
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
    // For `localhost` Fastify listens with a second server that it does not expose.
    if (request.raw.socket instanceof Socket) watch(request.raw.socket)
    done()
  })

  return {
    closeWithin(graceMs) {
      for (const response of responses) {
        const { socket, httpVersionMajor } = response.req
        // Fastify closes HTTP/2 sessions itself; requests of `inject` have no connection.
        if (httpVersionMajor > 1 || !sockets.has(socket)) continue
        // Otherwise the client would reuse the connection for its next request.
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
