import { createServer, Socket, type AddressInfo } from 'node:net'
import pg from 'pg'
import { onTestFinished } from 'vitest'

/** What a server of PostgreSQL 13 says of itself. */
const olderVersion = '130022'

/** A way to the server of a database, which says of itself there that it is PostgreSQL 13. Ended when the test is over. */
export async function startOlderServer(databaseUrl: string): Promise<string> {
  const version = await versionOf(databaseUrl)
  const target = new URL(databaseUrl)
  const sockets = new Set<Socket>()
  const server = createServer((inward) => {
    const outward = new Socket()
    for (const socket of [inward, outward]) {
      sockets.add(socket)
      socket.on('error', () => {})
      socket.on('close', () => {
        inward.destroy()
        outward.destroy()
      })
    }
    outward.connect(Number(target.port), target.hostname)
    inward.on('data', (chunk: Buffer) => outward.write(chunk))
    outward.on('data', (chunk: Buffer) =>
      inward.write(Buffer.from(chunk.toString('latin1').replaceAll(version, olderVersion), 'latin1')),
    )
  })
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return Object.assign(new URL(databaseUrl), {
    host: `127.0.0.1:${(server.address() as AddressInfo).port}`,
  }).toString()
}

async function versionOf(url: string): Promise<string> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    const { rows } = await client.query<{ server_version_num: string }>('show server_version_num')
    return rows[0]?.server_version_num ?? ''
  } finally {
    await client.end()
  }
}
