// The readiness probe of an orchestrator.
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { createBus, type Bus } from '../../src/index.ts'
import type { Environment } from './environment.ts'
import { events } from './events.ts'

/** Answers 200 while the bus is ready for work, else 503, and says why. */
function probe(bus: Bus<typeof events>) {
  return createServer((_request, response) => {
    void bus.health().then(({ ok, ...rest }) => {
      response.writeHead(ok ? 200 : 503, { 'content-type': 'application/json' })
      response.end(JSON.stringify({ ok, ...rest }))
    })
  })
}

export async function run({ url }: Environment): Promise<string[]> {
  const bus = createBus({ database: url, events, source: 'payment-service' })
  const server = probe(bus).listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address() as AddressInfo
  const ask = async (): Promise<string> => {
    const response = await fetch(`http://127.0.0.1:${port}`)
    const { state } = (await response.json()) as { state: string }
    return `${response.status} ${state}`
  }
  const answers = [await ask()]
  await bus.start()
  answers.push(await ask())
  await bus.stop()
  answers.push(await ask())
  server.close()
  return answers
}
