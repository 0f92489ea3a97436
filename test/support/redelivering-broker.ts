import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { onTestFinished } from 'vitest'
import { randomOfTest } from './random.ts'

/** A broker in memory, over HTTP, so that its messages outlive those who fetch them. */
export interface RedeliveringBroker {
  readonly url: string
  readonly waitingCount: () => number
  /** How many messages were passed on more than once, and how often that was. */
  readonly redelivered: () => { readonly messages: number; readonly deliveries: number }
}

/** A message that nobody has acknowledged is passed on again after this. */
const leaseMs = 400

/** `GET /` passes on up to a hundred messages; `POST /` acknowledges ids. Some acknowledgements are lost. */
export async function startRedeliveringBroker(count: number): Promise<RedeliveringBroker> {
  const random = randomOfTest()
  const waiting = new Map<number, number>(Array.from({ length: count }, (_, id) => [id, 0]))
  const deliveries = new Map<number, number>()

  function lease(): number[] {
    const now = Date.now()
    const ids: number[] = []
    for (const [id, leasedUntil] of waiting) {
      if (ids.length === 100) break
      if (leasedUntil > now) continue
      waiting.set(id, now + leaseMs)
      deliveries.set(id, (deliveries.get(id) ?? 0) + 1)
      ids.push(id)
    }
    return ids
  }

  async function acknowledge(request: IncomingMessage): Promise<void> {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    if (random() < 0.1) return
    for (const id of JSON.parse(Buffer.concat(chunks).toString()) as number[]) waiting.delete(id)
  }

  const server = createServer((request, response) => {
    if (request.method === 'GET') response.end(JSON.stringify(lease()))
    else
      acknowledge(request).then(
        () => response.end(),
        () => response.destroy(),
      )
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    waitingCount: () => waiting.size,
    redelivered() {
      const more = [...deliveries.values()].filter((times) => times > 1)
      return { messages: more.length, deliveries: more.reduce((sum, times) => sum + times - 1, 0) }
    },
  }
}
