// An API process that publishes and handles nothing; the workers of another deployment do.
import { createBus, defineSubscription } from '../../src/index.ts'
import type { Environment } from './environment.ts'
import { events } from './events.ts'

const handledBy: string[] = []
const handled = Promise.withResolvers<void>()
/** Declared in every process of the service, so that it need not be told apart which does what. */
const openCase = defineSubscription(events, {
  name: 'open-case',
  events: ['payment.paid'],
  handler: ({ source }) => {
    handledBy.push(source)
    handled.resolve()
  },
})

export async function run({ url, db }: Environment) {
  const make = () => {
    const bus = createBus({ database: url, events, source: 'payment-service' })
    bus.subscribe(openCase)
    return bus
  }

  const api = make()
  await api.start({ run: 'nothing' })
  const { ok, relay } = await api.health()

  const worker = make()
  await worker.start()
  await db.transaction(async (tx) =>
    api.publish(tx, {
      type: 'payment.paid',
      tenantId: 'acme',
      payload: { paymentId: '42', amountCents: 4200 },
    }),
  )
  await handled.promise
  await Promise.all([api.stop(), worker.stop()])
  return { ok, relay, handledBy }
}
