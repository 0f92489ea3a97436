import { createServer, Socket, type AddressInfo } from 'node:net'
import { onTestFinished } from 'vitest'

type Direction = 'to server' | 'to client'

/** A way to a database that a test can break. */
export interface TcpProxy {
  /** The database's URL by way of the proxy. */
  readonly url: string
  /** Connections that the client has not closed. */
  readonly connectionCount: number
  /** Stops forwarding on the connections there are, for good and without closing them: both ends believe that they live. */
  freeze: () => void
  /**
   * From now on nothing gets through in these directions, neither bytes nor closes, on connections old and new: a cable that
   * is cut, or a firewall that drops in silence.
   */
  hold: (...directions: Direction[]) => void
  /** Lets through what was held back, and everything from now on, as a network does that is back. */
  release: () => void
  /** From now on every byte takes so long in each direction. */
  delay: (delayMs: number) => void
  /** From now on new connections are accepted and lead nowhere, or lead to the database again. */
  refuseService: (refused: boolean) => void
  /** Closes every connection. */
  cut: () => void
}

/** One direction of one connection. */
interface Way {
  readonly direction: Direction
  readonly from: Socket
  readonly to: Socket
  readonly waiting: Buffer[]
  ended: boolean
  /** Whether it was frozen: nothing gets through any more. */
  dead: boolean
}

/** Ended when the test is over. */
export async function startTcpProxy(databaseUrl: string): Promise<TcpProxy> {
  const target = new URL(databaseUrl)
  const sockets = new Set<Socket>()
  const inwards = new Set<Socket>()
  const ways = new Set<Way>()
  const held = new Set<Direction>()
  let refused = false
  let delayMs = 0

  function flush(way: Way): void {
    if (way.dead || held.has(way.direction)) return
    for (const chunk of way.waiting.splice(0)) way.to.write(chunk)
    if (!way.ended) return
    ways.delete(way)
    way.to.destroySoon()
  }

  function forward(direction: Direction, from: Socket, to: Socket): void {
    const way: Way = { direction, from, to, waiting: [], ended: false, dead: false }
    ways.add(way)
    const pass = (chunk: Buffer): void => {
      way.waiting.push(chunk)
      flush(way)
    }
    from.on('data', (chunk: Buffer) => {
      if (delayMs === 0) pass(chunk)
      else setTimeout(pass, delayMs, chunk)
    })
    from.on('close', () => {
      way.ended = true
      flush(way)
    })
  }

  function add(socket: Socket): void {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => {
      sockets.delete(socket)
      inwards.delete(socket)
    })
  }

  const server = createServer((inward) => {
    add(inward)
    inwards.add(inward)
    if (refused) {
      inward.resume()
      return
    }
    const outward = new Socket()
    add(outward)
    outward.connect(Number(target.port), target.hostname)
    forward('to server', inward, outward)
    forward('to client', outward, inward)
  })
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  const url = new URL(databaseUrl)
  url.host = `127.0.0.1:${(server.address() as AddressInfo).port}`
  const cut = (): void => {
    for (const socket of sockets) socket.destroy()
  }
  onTestFinished(() => {
    cut()
    server.close()
  })
  return {
    url: url.toString(),
    get connectionCount() {
      return inwards.size
    },
    freeze() {
      for (const way of ways) way.dead = true
    },
    hold(...directions) {
      for (const direction of directions) held.add(direction)
    },
    release() {
      held.clear()
      for (const way of ways) flush(way)
    },
    delay(ms) {
      delayMs = ms
    },
    refuseService(isRefused) {
      refused = isRefused
    },
    cut,
  }
}
