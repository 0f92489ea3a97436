import { createConnection, createServer, type AddressInfo, type Socket } from 'node:net'
import { accepts, type Broker } from './broker.ts'

/** The broker of this machine, if there is one. */
export const rabbitmqUrl = (await accepts(5672)) ? 'amqp://guest:guest@127.0.0.1:5672' : undefined

/** A way to a port of 127.0.0.1 that is cut as if the server was killed, and is there again on the same port. */
export async function startCuttable(target: number): Promise<Pick<Broker, 'port' | 'kill' | 'start'>> {
  const sockets = new Set<Socket>()
  const server = createServer((client) => {
    const upstream = createConnection({ port: target, host: '127.0.0.1' })
    for (const [from, to] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(from)
      from.on('error', () => {})
      from.on('close', () => {
        sockets.delete(from)
        to.destroy()
      })
      from.pipe(to)
    }
  })
  const listen = async (port: number): Promise<void> =>
    new Promise((resolve) => void server.listen(port, '127.0.0.1', resolve))
  await listen(0)
  const { port } = server.address() as AddressInfo
  return {
    port,
    start: async () => listen(port),
    async kill() {
      for (const socket of sockets) socket.destroy()
      if (server.listening) await new Promise((resolve) => void server.close(resolve))
    },
  }
}
