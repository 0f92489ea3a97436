import { createServer, type AddressInfo, type Socket } from 'node:net'
import { onTestFinished } from 'vitest'

/** A server that answers each client's first message with some bytes, and then nothing. Ended when the test is over. */
export async function startStrangeServer(
  answer: Buffer,
): Promise<{ readonly url: string; readonly connectionCount: number }> {
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => sockets.delete(socket))
    socket.once('data', () => socket.write(answer))
  })
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return {
    url: `postgres://ada@127.0.0.1:${(server.address() as AddressInfo).port}/shop`,
    get connectionCount() {
      return sockets.size
    },
  }
}

/** What PostgreSQL sends to have a password in clear text, one as MD5, one by SCRAM. */
export const authenticationRequests = {
  clearText: Buffer.from([0x52, 0, 0, 0, 8, 0, 0, 0, 3]),
  md5: Buffer.from([0x52, 0, 0, 0, 12, 0, 0, 0, 5, 1, 2, 3, 4]),
  scram: Buffer.concat([
    Buffer.from([0x52, 0, 0, 0, 23, 0, 0, 0, 10]),
    Buffer.from('SCRAM-SHA-256\0\0', 'latin1'),
  ]),
} as const
