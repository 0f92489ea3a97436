/** Receives the messages of a redelivering broker: `node receiving-process.ts URL BROKER`. Each seventh is poison. */
import { createBus } from '../../src/index.ts'
import type { ReceivedMessage, ReceiveMessages, Source, SourceContext } from '../../src/transports/index.ts'
import { paymentEvents } from './catalogue.ts'

const [, , url = '', broker = ''] = process.argv
const pause = async (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

async function fetchSome(receive: ReceiveMessages, { signal }: SourceContext): Promise<void> {
  const ids = (await (await fetch(broker)).json()) as number[]
  if (ids.length === 0) return pause(20)
  const messages = ids.map((id): ReceivedMessage => ({
    ...{ id: String(id), body: Buffer.from(id % 7 === 0 ? 'poison' : String(id)), headers: {} },
    ...{ contentType: undefined, key: undefined, from: 'queue', protocol: undefined },
  }))
  await receive(messages, { signal })
  await fetch(broker, { method: 'POST', body: JSON.stringify(ids) })
}

function source(): Source {
  let isStopped = false
  let running: Promise<unknown> | undefined
  const run = async (receive: ReceiveMessages, context: SourceContext): Promise<void> => {
    while (!isStopped)
      await fetchSome(receive, context).catch(async (error: unknown) => {
        context.reportFailure(error)
        await pause(50)
      })
  }
  return {
    name: 'broker',
    async start(receive, context) {
      running = Promise.all([run(receive, context), run(receive, context)])
    },
    async stop() {
      isStopped = true
      await running
    },
    async check() {},
  }
}

const quiet = (): void => {}
const bus = createBus({
  ...{ database: url, events: paymentEvents, source: 'payment-service' },
  logger: { debug: quiet, info: quiet, warn: quiet, error: quiet },
})
bus.receive({
  ...{ name: 'orders', from: source() },
  map: ({ body }) => ({
    type: 'note',
    tenantId: 'acme',
    payload: JSON.parse(Buffer.from(body).toString()) as unknown,
  }),
})
const begun = async (): Promise<void> => {
  for (;;) {
    try {
      return await bus.start({ run: ['orders'] })
    } catch {
      await pause(100)
    }
  }
}
await begun()
console.log('started')
