import { fastify, type FastifyInstance, type FastifyServerOptions } from 'fastify'
import { onTestFinished } from 'vitest'
import { events } from '../../src/demo/events.ts'
import type { NewBusOptions } from '../../src/fastify/index.ts'
import type { EventFields, NewEvent } from '../../src/index.ts'

/** A Fastify app that is closed when the test is over. */
export function testApp(options: FastifyServerOptions = {}): FastifyInstance {
  const app = fastify(options)
  onTestFinished(async () => {
    await app.close().catch(() => {})
  })
  return app
}

/** Options that have the plugin make a bus on a database, with the demo's events: those `app.bus` is typed by. */
export function newBus(database: string, more: Partial<NewBusOptions> = {}): NewBusOptions {
  return { database, events, source: 'payment-service', graceMs: 5000, ...more }
}

/** Some event that the catalogue has. */
export function somePayment(more: Partial<EventFields> = {}): NewEvent<typeof events> {
  return {
    type: 'payment.paid',
    tenantId: 'acme',
    payload: {
      paymentId: '7c1f4c43-5b34-4f0e-9d1a-5d5b7a0f3b52',
      amountCents: 1250,
      currency: 'EUR',
      verifiedBy: 'ada',
      method: 'bank-transfer',
    },
    ...more,
  }
}
