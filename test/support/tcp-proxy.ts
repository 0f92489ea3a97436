import { createServer, Socket, type AddressInfo } from 'node:net'
import { onTestFinished } from 'vitest'

/** A way to a database that a test can break. */
export interface TcpProxy {
  /** The database's URL by way of the proxy. */
  readonly url: string
  readonly connectionCount: number
  /** Stops forwarding on the connections there are, without closing them: both ends believe that they live. */
  freeze: () => void
  /** From now on new connections are accepted and lead nowhere, or lead to the database again. */
  refuseService: (refused: boolean) => void
  /** Closes every connection. */
  cut: () => void
}

/** Ended when the test is over. */
export async function startTcpProxy(databaseUrl: string): Promise<TcpProxy> {
  const target = new URL(databaseUrl)
  const pairs = new Set<{ readonly inward: Socket; readonly outward: Socket | undefined }>()
  let refused = false
  const server = createServer((inward) => {
    inward.on('error', () => {})
    if (refused) {
      pairs.add({ inward, outward: undefined })
      return
    }
    const outward = new Socket()
    outward.on('error', () => inward.destroy())
    inward.on('close', () => outward.destroy())
    outward.on('close', () => inward.destroy())
    outward.connect(Number(target.port), target.hostname)
    inward.pipe(outward).pipe(inward)
    pairs.add({ inward, outward })
  })
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  const url = new URL(databaseUrl)
  url.host = `127.0.0.1:${(server.address() as AddressInfo).port}`
  const cut = (): void => {
    for (const { inward, outward } of pairs) {
      inward.destroy()
      outward?.destroy()
    }
    pairs.clear()
  }
  onTestFinished(() => {
    cut()
    server.close()
  })
  return {
    url: url.toString(),
    get connectionCount() {
      return [...pairs].filter(({ inward }) => !inward.destroyed).length
    },
    freeze() {
      for (const { inward, outward } of pairs) {
        inward.unpipe()
        outward?.unpipe()
        inward.removeAllListeners('close')
        outward?.removeAllListeners('close')
        inward.pause()
        outward?.pause()
      }
    },
    refuseService(isRefused) {
      refused = isRefused
    },
    cut,
  }
}
